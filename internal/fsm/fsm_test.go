package fsm_test

import (
	"testing"

	"github.com/mammoth-os/mammoth/internal/fsm"
)

type (
	door  uint8
	touch uint8
)

const (
	open door = iota
	shut
)

const (
	push touch = iota
	pull
)

func (d door) String() string  { return [...]string{"open", "shut"}[d] }
func (t touch) String() string { return [...]string{"push", "pull"}[t] }

var rules = []fsm.Rule[door, touch]{
	{From: []door{open}, On: push, To: shut},
	{From: []door{open, shut}, On: pull, To: open},
}

func TestNext(t *testing.T) {
	table := fsm.New("door", rules)
	if got, ok := table.Next(open, push); got != shut || !ok {
		t.Errorf("push on an open door: %v, %v", got, ok)
	}
	if got, ok := table.Next(shut, push); got != shut || ok {
		t.Errorf("a pair without a rule: %v, %v; want shut, false", got, ok)
	}
}

func TestTwoRulesForOnePairPanic(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an ambiguous table was accepted")
		}
	}()
	fsm.New("door", append(rules, fsm.Rule[door, touch]{From: []door{open}, On: push, To: open}))
}

func TestMermaidDrawsEveryChange(t *testing.T) {
	want := "stateDiagram-v2\n    open --> shut: push\n    shut --> open: pull\n"
	if got := fsm.New("door", rules).Mermaid(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
