package main

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/nodemanager"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func TestTheCommandThatTakesAZoneUpAgainIsWhole(t *testing.T) {
	c := &upCommands{args: []string{"up", "--dir", "/var/zone one", "--nodes", "2", "--attribute=disk=it's"}}
	_, again, _ := strings.Cut(c.again(), " ")
	if want := `up --dir '/var/zone one' --nodes 2 '--attribute=disk=it'\''s'`; again != want {
		t.Errorf("got %s, want %s", again, want)
	}
	c.args = []string{"up", "--dir=zone"}
	if again := c.again(); !strings.Contains(again, "up --dir=/") || !strings.HasSuffix(again, "/zone") {
		t.Errorf("the folder is not a whole path: %s", again)
	}
}

func TestOnlyNodesOfThisRunAreRegistered(t *testing.T) {
	started := time.Unix(1_700_000_000, 0)
	node := func(name string, state apiv1.NodeState, after time.Duration) *apiv1.Node {
		return &apiv1.Node{Name: name, State: state, RegisteredAt: timestamppb.New(started.Add(after))}
	}
	got := registered([]*apiv1.Node{
		node("before", apiv1.NodeState_READY, -time.Hour), node("lost", apiv1.NodeState_LOST, time.Second),
		node("now", apiv1.NodeState_READY, time.Second), node("ill", apiv1.NodeState_UNHEALTHY, time.Second),
	}, started)
	if len(got) != 2 || got[0].GetName() != "now" || got[1].GetName() != "ill" {
		t.Errorf("registered are %v", got)
	}
}

func TestNodesOfAnEarlierStartAreMissed(t *testing.T) {
	for _, c := range []struct {
		found []string
		nodes int
		want  string
	}{
		{[]string{"node-1", "node-2", "host-7", "node-x", "node-03"}, 2, ""},
		{[]string{"node-1", "node-2"}, 1, "mammoth: node-2 of an earlier start is not run any more, and its instances move to others; start with --nodes 2 to have it back, or forget it with `mammoth node rm node-2`\n"},
		{[]string{"node-1", "node-2", "node-4", "node-5"}, 1, "mammoth: node-2, node-4 and node-5 of an earlier start are not run any more, and their instances move to others; start with --nodes 5 to have them back, or forget each with `mammoth node rm node-2`\n"},
	} {
		var said bytes.Buffer
		var nodes []*apiv1.Node
		for _, name := range c.found {
			nodes = append(nodes, &apiv1.Node{Name: name})
		}
		(&upCommands{streams: streams{err: &said}}).warnOfMissing(nodes, c.nodes)
		if said.String() != c.want {
			t.Errorf("%v with %d: %q, want %q", c.found, c.nodes, said.String(), c.want)
		}
	}
}

func TestNodesThatAreLargerThanTheMachineAreWarnedOf(t *testing.T) {
	has := resource.Vector{resource.CPU: 4000, resource.Memory: 8 << 30, resource.Disk: 100 << 30}
	for _, c := range []struct {
		cpu, memory string
		nodes       int
		want        string
	}{
		{"2", "4GiB", 2, ""},
		{"100000", "", 1, "mammoth: --node-cpu 100000 for 1 node is more than the 4 cpu of this machine; instances will get in each other's way\n"},
		{"", "5GiB", 2, "mammoth: --node-memory 5GiB for 2 nodes is more than the 8GiB memory of this machine; instances will get in each other's way\n"},
	} {
		var said bytes.Buffer
		s := &upSettings{nodes: c.nodes}
		s.node.cpu, s.node.memory = c.cpu, c.memory
		(&upCommands{streams: streams{err: &said}}).warnOfTooMuch(s, has)
		if said.String() != c.want {
			t.Errorf("%s cpu and %s on %d: %q, want %q", c.cpu, c.memory, c.nodes, said.String(), c.want)
		}
	}
}

// Three instances of half a core, their master, and one more while they are replaced.
func TestTwoCoresHaveRoomForThreeHalvesAndTheirReplacement(t *testing.T) {
	for nodes := 1; nodes <= 2; nodes++ {
		each := nodemanager.OfferedCPU(2) / int64(nodes)
		master, room := int64(100), int64(0)
		for n := range nodes {
			free := each
			if n == 0 {
				free -= master
			}
			room += free / 500
		}
		if room < 4 {
			t.Errorf("as %d nodes there is room for %d instances", nodes, room)
		}
	}
	has, err := measureShare(t.TempDir(), 2)
	if err != nil || has.CPUMillis != nodemanager.OfferedCPU(runtime.NumCPU())/2 {
		t.Errorf("each of two nodes has %v, %v", has, err)
	}
}
