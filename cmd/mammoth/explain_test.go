package main

import (
	"fmt"
	"strings"
	"testing"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func TestInstancesThatWaitForTheSameAreToldOfOnce(t *testing.T) {
	e := &apiv1.Explanation{Summary: "web is running: 1 of 7 instances healthy"}
	for i := range 5 {
		e.Obstacles = append(e.Obstacles, &apiv1.Obstacle{
			Subject: fmt.Sprintf("web-%d", i+2), Count: 1, Reason: "it waits for capacity: not enough cpu: node-1 has 0 cpu free, 0.1 are requested",
			FailedTests: []*apiv1.Obstacle_FailedTest{{Test: "not enough cpu", Nodes: 2, Example: "node-1 has 0 cpu free, 0.1 are requested"}},
		})
	}
	e.Obstacles = append(e.Obstacles, &apiv1.Obstacle{Subject: "web-7", Count: 1, Reason: "it is about to be placed"})
	var text strings.Builder
	if err := explanationText(&text, e); err != nil {
		t.Fatal(err)
	}
	const want = `web is running: 1 of 7 instances healthy
  web-2, web-3, web-4 and 2 more: they wait for capacity: not enough cpu: node-1 has 0 cpu free, 0.1 are requested
    not enough cpu: 2 nodes
  web-7: it is about to be placed
`
	if text.String() != want {
		t.Errorf("got:\n%s", &text)
	}
}

func TestReasonsOfManyAreInTheirWords(t *testing.T) {
	for one, many := range map[string]string{
		"it waits for capacity: no room":                             "they wait for capacity: no room",
		"it waits for its turn":                                      "they wait for their turn",
		"it is about to be placed":                                   "they are about to be placed",
		"its replacement is in back-off: x; it last ended: y":        "their replacements are in back-off: x; they last ended: y",
		"its node node-1 does not answer":                            "their node node-1 does not answer",
		"the balancer nginx does not route it: the host is reserved": "the balancer nginx does not route it: the host is reserved",
	} {
		if got := reasonFor(2, one); got != many {
			t.Errorf("of two it says %q, want %q", got, many)
		}
		if got := reasonFor(1, one); got != one {
			t.Errorf("of one it says %q, want %q", got, one)
		}
	}
}
