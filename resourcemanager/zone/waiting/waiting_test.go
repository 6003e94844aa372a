package waiting

import (
	"testing"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func TestInstancesThatWaitForTheSameAreOneReason(t *testing.T) {
	soon := time.Unix(1_700_000_000, 0)
	capacity := Cause{Role: "front", One: "waits for capacity", Many: "wait for capacity", Detail: "too little memory", Until: soon.Add(time.Minute)}
	sooner := capacity
	sooner.Until = soon
	r := &Reasons{}
	r.Of("web-3", 1, Cause{One: "starts", Many: "start", Routine: true})
	r.Of("web-10", 2, capacity)
	r.Of("web-2", 1, sooner)
	r.About(Cause{Detail: "the rollout is paused"})
	r.Sort()
	want := []string{"the rollout is paused", "web-2 and 2 more wait for capacity: too little memory", "web-3 starts"}
	if len(r.All) != len(want) {
		t.Fatalf("%d reasons", len(r.All))
	}
	for i, reason := range r.All {
		if got := reason.Waiting().GetText(); got != want[i] {
			t.Errorf("%q, want %q", got, want[i])
		}
	}
	if until := r.All[1].Waiting().GetUntil().AsTime(); !until.Equal(soon) {
		t.Errorf("it waits until %v", until)
	}
}

func TestReasonsOfOneKindDifferInTheirFiguresOnly(t *testing.T) {
	kind := func(text string) string { return Kind(&apiv1.Waiting{Role: "front", Text: text}) }
	if kind("web-1 waits for capacity: 2 nodes; room comes in 5s") != kind("web-12 waits for capacity: 3 nodes") {
		t.Error("figures make another kind")
	}
	if kind("web-1 waits for capacity") == kind("web-1 is in back-off") {
		t.Error("two causes are of one kind")
	}
}
