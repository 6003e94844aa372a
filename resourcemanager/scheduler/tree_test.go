package scheduler_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

func TestATreeIsBounded(t *testing.T) {
	tree := func(children int, change func(*scheduler.QueueSpec)) []scheduler.QueueSpec {
		specs := []scheduler.QueueSpec{{Name: "root"}}
		for n := range children {
			specs = append(specs, scheduler.QueueSpec{Name: id.Queue(fmt.Sprintf("q%d", n)), Parent: "root"})
		}
		change(&specs[1])
		return specs
	}
	none := func(*scheduler.QueueSpec) {}
	for want, specs := range map[string][]scheduler.QueueSpec{
		"": tree(999, none),
		"the tree has 1001 queues, and a zone has 1000 at most":                            tree(1000, none),
		`queue "aaaaaaaaaaaaaaaaaaaa"… has a name of 101 characters, but the limit is 100`: tree(1, func(q *scheduler.QueueSpec) { q.Name = id.Queue(strings.Repeat("a", 101)) }),
		`queue "a\x1b[2J" has a character in its name that cannot be printed`:              tree(1, func(q *scheduler.QueueSpec) { q.Name = "a\x1b[2J" }),
		"queue q0 names more than 1000 people in one list":                                 tree(1, func(q *scheduler.QueueSpec) { q.Submit = slices.Repeat([]string{"ann"}, 1001) }),
		"queue q0 guarantees NaN %; it must be 0 to 100":                                   tree(1, func(q *scheduler.QueueSpec) { q.Guaranteed = scheduler.Capacity{IsPercent: true, Percent: math.NaN()} }),
	} {
		switch err := scheduler.CheckQueues(specs); {
		case want == "" && err != nil:
			t.Errorf("a tree that is just small enough: %v", err)
		case want != "" && (!errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), want)):
			t.Errorf("%v, want %s", err, want)
		}
	}
}
