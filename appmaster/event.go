package appmaster

import (
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// Event is something that a master is told. Each is one of the types below.
type Event interface{ isEvent() }

// Allocated: a container was granted; start or release it. Each is told once.
type Allocated struct{ Allocation *masterv1.Allocation }

// Completed: a container's lease has ended. Each is told once, and is the last that is heard of the container. It may be
// one that an earlier attempt held and that ended while no master was there.
type Completed struct{ Status *corev1.ContainerStatus }

// StatusChanged: a node has seen a change of one container.
type StatusChanged struct{ Status *corev1.ContainerStatus }

// NodeSnapshot: the watch of a node was opened, and these are all the app's containers on it.
type NodeSnapshot struct {
	Node       string
	Containers []*corev1.ContainerStatus
}

// NodeUnseen: the watch of a node has ended, or could not be opened; a NodeSnapshot says that it is seen again. What its
// containers do meanwhile is not known.
type NodeUnseen struct{ Node string }

// NodeChanged: the ResourceManager thinks differently of a node.
type NodeChanged struct {
	Node   string
	State  apiv1.NodeState
	Reason string
}

// Preempted: the container will be taken away at the deadline; without a deadline, it may stay after all.
type Preempted struct {
	ContainerID string
	Deadline    time.Time
	Reason      string
}

// WantedChanged: people want something else of the app. It is also told after each reconnection.
type WantedChanged struct{ Wanted *masterv1.Wanted }

// Withdrawn: the instance, reported with InService false, is out of the registry and out of every balancer.
type Withdrawn struct{ Instance string }

// Traffic: what balancers have counted for an instance since the last event of the kind.
type Traffic struct {
	Instance         string
	Requests, Errors int64
}

// Waits: why something that is wanted is not there; none if nothing is missing any more.
type Waits struct{ Waiting []*apiv1.Waiting }

// Connected: the first answer of a stream to the ResourceManager has been told in full.
type Connected struct{}

// Disconnected: the ResourceManager cannot be reached at present. Containers go on running.
type Disconnected struct{ Err error }

// Superseded: a newer attempt has taken over. This one must end without touching anything. It is the last event.
type Superseded struct{ Reason string }

func (Allocated) isEvent()     {}
func (Completed) isEvent()     {}
func (StatusChanged) isEvent() {}
func (NodeSnapshot) isEvent()  {}
func (NodeUnseen) isEvent()    {}
func (NodeChanged) isEvent()   {}
func (Preempted) isEvent()     {}
func (WantedChanged) isEvent() {}
func (Withdrawn) isEvent()     {}
func (Traffic) isEvent()       {}
func (Waits) isEvent()         {}
func (Connected) isEvent()     {}
func (Disconnected) isEvent()  {}
func (Superseded) isEvent()    {}
