package node

import (
	"strings"
	"testing"

	"github.com/mammoth-os/mammoth/nodemanager/container"
)

// The log message about a container without an owner must be true: only one with a record has ended before it ran again.
func TestWhatRunsWithoutAnOwnerIsSaidAsItIs(t *testing.T) {
	for found, want := range map[bool]string{false: "was started again from outside", true: "was found without a record still runs"} {
		n := &Node{}
		h := &Entry{Core: &container.Container{State: container.Done}, found: found}
		for range 2 {
			n.perform(h, []container.Effect{{Kind: container.StopProcess}})
		}
		if notes := n.out.Notes; len(notes) != 1 || !strings.Contains(notes[0].Text, want) {
			t.Errorf("found %v: said %v", found, notes)
		}
	}
}
