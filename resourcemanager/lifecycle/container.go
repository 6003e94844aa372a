package lifecycle

import "github.com/mammoth-os/mammoth/internal/fsm"

// ContainerState is a lease's place in its life; see corev1.ContainerStatus_State.
type ContainerState uint8

// The states of a container.
const (
	ContainerUnspecified ContainerState = iota
	ContainerNew
	ContainerLocalizing
	ContainerLaunching
	ContainerRunning
	ContainerStopping
	ContainerDone
)

// String is the protocol's name.
func (s ContainerState) String() string {
	return name(s, "STATE_UNSPECIFIED", "NEW", "LOCALIZING", "LAUNCHING", "RUNNING", "STOPPING", "DONE")
}

// Held reports whether the lease still counts against its node: it does until the container was seen gone.
func (s ContainerState) Held() bool { return s != ContainerUnspecified && s != ContainerDone }

// ContainerEvent is what can happen to a lease.
type ContainerEvent uint8

// The events of a container.
const (
	// ContainerGranted: the scheduler gave it away.
	ContainerGranted ContainerEvent = iota
	// The node says that it is in the state of that name.
	ReportedNew
	ReportedLocalizing
	ReportedLaunching
	ReportedRunning
	ReportedStopping
	ReportedDone
	// ContainerMissing: its node registered anew and does not have it.
	ContainerMissing
	// ContainerExpired: it was never started, and its token is no longer good for a start.
	ContainerExpired
	// ContainerNodeGone: an operator said that its node is gone for good. Should the node come back all the same, it is
	// told to end it.
	ContainerNodeGone
)

// String names the event.
func (e ContainerEvent) String() string {
	return name(e, "granted", "reported NEW", "reported LOCALIZING", "reported LAUNCHING", "reported RUNNING",
		"reported STOPPING", "reported DONE", "missing", "expired", "node gone")
}

// Reported is the event of a node's report of a state.
func Reported(state ContainerState) ContainerEvent { return ContainerEvent(state) }

// containerRules lets a report move a container forward only: a report that was overtaken changes nothing. A
// container that no node has reported yet is not missing when its node registers anew: its start may be under way.
// Nor does the loss of a node appear here, since a lost node's containers may well be running.
func containerRules() []fsm.Rule[ContainerState, ContainerEvent] {
	rules := []fsm.Rule[ContainerState, ContainerEvent]{
		{From: []ContainerState{ContainerUnspecified}, On: ContainerGranted, To: ContainerNew},
		{From: []ContainerState{ContainerNew}, On: ContainerMissing, To: ContainerNew},
		{
			From: []ContainerState{ContainerLocalizing, ContainerLaunching, ContainerRunning, ContainerStopping, ContainerDone},
			On:   ContainerMissing, To: ContainerDone,
		},
		{From: []ContainerState{ContainerNew, ContainerDone}, On: ContainerExpired, To: ContainerDone},
		{
			From: []ContainerState{ContainerNew, ContainerLocalizing, ContainerLaunching, ContainerRunning, ContainerStopping, ContainerDone},
			On:   ContainerNodeGone, To: ContainerDone,
		},
	}
	for state := ContainerNew; state <= ContainerDone; state++ {
		for reported := ContainerNew; reported <= ContainerDone; reported++ {
			rules = append(rules, fsm.Rule[ContainerState, ContainerEvent]{
				From: []ContainerState{state}, On: Reported(reported), To: max(state, reported),
			})
		}
	}
	return rules
}

// Containers is the life of a lease.
func Containers() fsm.Table[ContainerState, ContainerEvent] {
	return fsm.New("container", containerRules())
}
