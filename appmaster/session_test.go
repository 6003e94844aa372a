package appmaster

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// A preemption may be cancelled while there is no stream. The first answer of the next one has every notice that is in force.
func TestAPreemptionThatIsCancelledBetweenStreamsIsNoticed(t *testing.T) {
	var got []string
	s := NewSession(Listener{
		Emit: func(event Event) {
			if preemption, ok := event.(Preemption); ok {
				got = append(got, fmt.Sprintf("%s %v", preemption.ContainerID, !preemption.Deadline.IsZero()))
			}
		},
		Watch: func(*masterv1.Allocation) {}, Unwatch: func(string, string) {}, UpdateNode: func(string, string) {},
	})
	expect := func(when string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
		got = nil
	}
	held := &masterv1.RegisterResponse{}
	for _, container := range []string{"c1", "c2", "c3"} {
		held.Containers = append(held.Containers, &masterv1.Allocation{Lease: &corev1.Lease{ContainerId: container, NodeId: "node-1"}})
	}
	notice := func(container string) *masterv1.PreemptionNotice {
		return &masterv1.PreemptionNotice{ContainerId: container, Deadline: timestamppb.New(time.Unix(100, 0))}
	}
	s.Begin(held)
	s.Apply(&masterv1.AllocateResponse{})
	s.Apply(&masterv1.AllocateResponse{Preemptions: []*masterv1.PreemptionNotice{notice("c1"), notice("c2"), notice("c3")}})
	expect("at first", "c1 true", "c2 true", "c3 true")
	s.Apply(&masterv1.AllocateResponse{Preemptions: []*masterv1.PreemptionNotice{{ContainerId: "c1", Withdrawn: true}}})
	expect("while there is a stream", "c1 false")
	s.Apply(&masterv1.AllocateResponse{})
	expect("an answer without notices")
	s.Resume(held)
	s.Apply(&masterv1.AllocateResponse{Preemptions: []*masterv1.PreemptionNotice{notice("c2")}})
	expect("on the next stream", "c3 false", "c2 true")
	s.Resume(held)
	s.Apply(&masterv1.AllocateResponse{Completed: []*corev1.ContainerStatus{{Lease: &corev1.Lease{ContainerId: "c2", NodeId: "node-1"}}}})
	expect("one that has ended meanwhile")
}

// A command is one event, although each stream repeats those that were not answered.
func TestACommandIsReceivedOnce(t *testing.T) {
	var got []string
	s := NewSession(Listener{Emit: func(event Event) {
		if received, ok := event.(CommandReceived); ok {
			got = append(got, received.Command.GetId())
		}
	}})
	answer := func(ids ...string) *masterv1.AllocateResponse {
		response := &masterv1.AllocateResponse{}
		for _, id := range ids {
			response.Commands = append(response.Commands, &masterv1.Command{Id: id})
		}
		return response
	}
	s.Begin(&masterv1.RegisterResponse{})
	s.Apply(answer("a"))
	s.Apply(answer("b"))
	s.Resume(&masterv1.RegisterResponse{})
	s.Apply(answer("a", "b", "c"))
	s.Apply(answer("d"))
	s.Resume(&masterv1.RegisterResponse{})
	s.Apply(answer("d"))
	if want := []string{"a", "b", "c", "d"}; !slices.Equal(got, want) {
		t.Errorf("received %q, want %q", got, want)
	}
	if len(s.commands) != 1 {
		t.Errorf("it remembers %d commands, and one may be repeated", len(s.commands))
	}
}
