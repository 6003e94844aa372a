package appmaster

import (
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// Event is what a master receives from Events. It is one of the types below.
type Event interface{ isEvent() }

// Allocated: a container was granted. The master starts or releases it. Each grant is one event.
type Allocated struct{ Allocation *masterv1.Allocation }

// Completed: a container's lease has ended. Each end is one event. If the node of the container has others of the app, it may still report
// this one afterwards; that means nothing. An earlier attempt may have held the container, if it ended while no master ran.
type Completed struct{ Status *corev1.ContainerStatus }

// StatusChanged: a node reports a change of one container.
type StatusChanged struct{ Status *corev1.ContainerStatus }

// NodeSnapshot: the watch of a node was opened. Containers are all that the app has on the node.
type NodeSnapshot struct {
	Node       string
	Containers []*corev1.ContainerStatus
}

// NodeDisconnected: the watch of a node has ended or could not be opened. Nothing is known of its containers until the next
// NodeSnapshot.
type NodeDisconnected struct{ Node string }

// NodeChanged: the ResourceManager reports another state of a node.
type NodeChanged struct {
	Node   string
	State  apiv1.NodeState
	Reason string
}

// Preemption: the container is to be preempted at the deadline. Without a deadline the preemption was cancelled.
type Preemption struct {
	ContainerID string
	Deadline    time.Time
	Reason      string
}

// DesiredChanged: the desired state of the app has changed. It is also sent after each reconnection.
type DesiredChanged struct{ Desired *masterv1.DesiredState }

// Withdrawn: the instance was reported with InService false, and no registry has it and no balancer routes to it any more.
type Withdrawn struct{ Instance string }

// Traffic: the balancers' counts for an instance since the last such event.
type Traffic struct {
	Instance         string
	Requests, Errors int64
}

// WaitingChanged: the reasons why instances are missing. Waiting is empty if none are.
type WaitingChanged struct{ Waiting []*apiv1.Waiting }

// CommandReceived: a person or program has sent the master a command, such as a pause of the rollout. The master answers with
// Outbox.Answer. Each command is one event.
type CommandReceived struct{ Command *masterv1.Command }

// Connected: the first answer of a stream to the ResourceManager has been handed over completely.
type Connected struct{}

// Disconnected: the stream to the ResourceManager has ended, and the Client registers again. Containers keep running.
type Disconnected struct{ Err error }

// Superseded: a newer attempt has taken over. The master must end without changing anything. It is the last event.
type Superseded struct{ Reason string }

func (Allocated) isEvent()        {}
func (Completed) isEvent()        {}
func (StatusChanged) isEvent()    {}
func (NodeSnapshot) isEvent()     {}
func (NodeDisconnected) isEvent() {}
func (NodeChanged) isEvent()      {}
func (Preemption) isEvent()       {}
func (DesiredChanged) isEvent()   {}
func (Withdrawn) isEvent()        {}
func (Traffic) isEvent()          {}
func (WaitingChanged) isEvent()   {}
func (CommandReceived) isEvent()  {}
func (Connected) isEvent()        {}
func (Disconnected) isEvent()     {}
func (Superseded) isEvent()       {}
