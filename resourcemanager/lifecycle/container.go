package lifecycle

import "github.com/mammoth-os/mammoth/internal/fsm"

// ContainerState is the state of a lease; see corev1.ContainerStatus_State.
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

// Held reports whether the lease still holds resources of its node: it does until the container was seen gone.
func (s ContainerState) Held() bool { return s != ContainerUnspecified && s != ContainerDone }

// ContainerEvent is what can happen to a lease.
type ContainerEvent uint8

// The events of a container.
const (
	// ContainerGranted: the scheduler has granted it.
	ContainerGranted ContainerEvent = iota
	// These are reports of the node with the state of that name.
	ReportedNew
	ReportedLocalizing
	ReportedLaunching
	ReportedRunning
	ReportedStopping
	ReportedDone
	// ContainerMissing: its node has registered again and does not have it.
	ContainerMissing
	// ContainerExpired: it was never started, and its token has expired.
	ContainerExpired
	// ContainerNodeGone: an operator has removed its node. If the node comes back nevertheless, it receives the command to end the
	// container.
	ContainerNodeGone
)

// String names the event.
func (e ContainerEvent) String() string {
	return name(e, "granted", "reported NEW", "reported LOCALIZING", "reported LAUNCHING", "reported RUNNING",
		"reported STOPPING", "reported DONE", "missing", "expired", "node gone")
}

// Reported is the event of a node's report of a state.
func Reported(state ContainerState) ContainerEvent { return ContainerEvent(state) }

// containerRules lets reports move a container forward only: a late report changes nothing. A container that no node has reported
// yet is not missing when its node registers again, since its start may be in progress. The loss of a node is no event, since the
// containers of a lost node may be running.
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

// Containers is the state machine of a lease.
func Containers() fsm.Table[ContainerState, ContainerEvent] {
	return fsm.New("container", containerRules())
}
