// Package scheduler decides which container goes where. It is pure: facts come in by Apply, decisions come out of
// Schedule, time is an argument, and the same inputs give the same decisions.
//
// It owns, in memory, the queues and their usage, the nodes and their free resources, the asks that wait, and the preemption
// notices. It stores nothing: after a restart its owner applies the facts again.
//
// A Core wires these parts. The comment of each part defines its own words:
//
//	fleet        the nodes, and the search for one
//	apps         the apps that ask, and their names
//	containers   the containers that are held
//	tree         the queues: whose turn it is, and what limits an ask
//	backlog      the asks that wait, by shape and bucket
//	nominations  the room on nodes that only one ask may use
//	preemption   the notices of containers, and the choice of victims
//	lending      the contracts between queues
//	explainer    why asks wait
//
// No part selects the fields of another. An ask is granted a container on a node; a container is held until it is released. A
// queue borrows when it holds more than its guarantee; it is entitled to its guarantee and to what contracts lend to it.
package scheduler

import (
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// Input is a fact for Apply.
type Input interface{ isInput() }

// SetQueues replaces the queue tree. It is checked as a whole; on an error nothing changes.
type SetQueues struct {
	Queues []QueueSpec
	// Contracts replace all lending contracts in the same step; nil leaves them as they are.
	Contracts []Contract
}

// SetSchema replaces Config.Schema. The names that there are keep their indexes.
type SetSchema struct{ Schema resource.Schema }

// SetNode adds a node or changes one. Containers that it holds stay held, even when it shrinks below them.
type SetNode struct{ Node NodeSpec }

// RemoveNode takes a node away (it is lost or was decommissioned). Its containers stay held, and count for their
// queues, until Release says that they were seen gone or fenced.
type RemoveNode struct{ Node id.Node }

// AddApp lets an app ask. Adding it again changes queue, user and priority.
type AddApp struct {
	App id.App
	// Name is the app's name, to which affinities refer.
	Name string
	// Queue is the leaf in which the app asks.
	Queue id.Queue
	// User is the user whose limits apply.
	User string
	// Priority decides the order of the asks in a leaf before anything else; higher is served first.
	Priority int32
	// Recovered is true if the app was admitted before: the queue's state, limit of apps and submit list are not checked again.
	Recovered bool
	// Allowed is true if the caller has checked that the app may be submitted: the submit list is not checked.
	Allowed bool
}

// RemoveApp withdraws an app and its asks. Its containers stay held until they are released.
type RemoveApp struct{ App id.App }

// SetAsk sets what an app still wants under an ask id. Pending zero withdraws it.
type SetAsk struct {
	App id.App
	Ask Ask
}

// Hold counts a container that exists already: after a restart, from the store or from a node's report.
type Hold struct {
	Container id.Container
	Node      id.Node
	Resources resource.Vector
	// Ask and Group are the ask that it was granted to and that ask's group.
	Ask   string
	Group string
	// Master is true for an application master.
	Master bool
	// StartedAt is when it was granted.
	StartedAt time.Time
	// Duration is the expected duration in its ask; zero is unknown.
	Duration time.Duration
	// Service is Service of its ask.
	Service bool
	// Gang is the number of the gang that it was granted with; zero is none.
	Gang int64
}

// Release ends a container's hold: it was seen gone, or was fenced. Releasing twice is harmless.
type Release struct{ Container id.Container }

// Checkpoint records until when the work of a container is saved: stopping it loses only later work.
type Checkpoint struct {
	Container id.Container
	At        time.Time
}

// SetContracts replaces all lending contracts. It is checked as a whole; on an error nothing changes.
type SetContracts struct{ Contracts []Contract }

func (SetQueues) isInput()  {}
func (SetSchema) isInput()  {}
func (SetNode) isInput()    {}
func (RemoveNode) isInput() {}
func (AddApp) isInput()     {}
func (RemoveApp) isInput()  {}
func (SetAsk) isInput()     {}
func (Hold) isInput()       {}
func (Release) isInput()    {}

func (Checkpoint) isInput()   {}
func (SetContracts) isInput() {}

// QueueSpec is one queue: a capacity contract. A tree has one root, the queue without a parent.
type QueueSpec struct {
	// Name is unique in the tree.
	Name id.Queue
	// Parent is empty for the root.
	Parent id.Queue
	// Guaranteed is what the queue can always have, Maximum what it may have at most.
	Guaranteed Capacity
	Maximum    Capacity
	// Stopped and draining queues take no new apps; a stopped one grants nothing either.
	State QueueState
	// MaxApps limits the apps of a leaf; zero is no limit.
	MaxApps int
	// MaxMasterPercent is the share of the queue's maximum that application masters may hold; zero is 50. One master is always
	// allowed.
	MaxMasterPercent float64
	// Fair serves the apps of a leaf by their shares, the smallest first, instead of in the order of their submission.
	Fair bool
	// UserLimitPercent is the share of the queue's maximum that one user may hold; zero is no limit.
	UserLimitPercent float64
	// Submit and Admin name the users who may submit and administer, here and in all queues below.
	Submit, Admin []string
	// Notice is the time between a preemption notice to a container of the queue and its stop; zero is that of the queue
	// above, and Config.Notice for the root.
	Notice time.Duration
}

// QueueState is whether a queue admits apps and grants containers.
type QueueState uint8

// A queue runs, or takes no new apps, or grants nothing at all.
const (
	QueueRunning QueueState = iota
	QueueDraining
	QueueStopped
)

// Capacity is a share of the parent's in percent, or an absolute quantity. The zero Capacity is nothing as a
// guarantee and everything as a maximum.
type Capacity struct {
	Percent  float64
	Absolute resource.Vector
	// IsPercent is true if Percent counts, false if Absolute does.
	IsPercent bool
}

// NodeSpec is a node as the scheduler sees it.
type NodeSpec struct {
	Name id.Node
	// Capacity is what the node offers to containers.
	Capacity resource.Vector
	// Attributes are compared with constraints and spread over.
	Attributes map[string]Value
	// Closed is why nothing new may be placed on the node, one sentence; empty if the node is open.
	Closed string
}

// Value is a typed node attribute.
type Value struct {
	// Kind is which of the other fields counts.
	Kind ValueKind
	// Text is the text or, for a number that was parsed from text, that text.
	Text   string
	Number float64
	Flag   bool
}

// ValueKind is which field of a Value counts.
type ValueKind uint8

// The kinds of node attributes.
const (
	TextValue ValueKind = iota
	NumberValue
	FlagValue
)

// Policy is how a node is chosen among those that fit.
type Policy uint8

const (
	// Spread puts containers of a group where the fewest of them are.
	Spread Policy = iota
	// Pack fills the fullest node that fits.
	Pack
)

// Ask is a request of an app for a number of equal containers.
type Ask struct {
	// ID is the app's own name for it.
	ID string
	// Pending is how many are still to be granted.
	Pending int
	// Resources is what each container holds.
	Resources resource.Vector
	// Priority orders the asks of apps with equal priority; higher is served first.
	Priority int32
	// Policy chooses among the nodes that fit.
	Policy Policy
	// SpreadOver is the node attribute over whose values to spread; empty spreads over nodes.
	SpreadOver string
	// Constraints are tests that a node must pass.
	Constraints []Constraint
	// MaxPerNode limits the containers of Group on a node; zero is no limit.
	MaxPerNode int
	// Group is what spread and MaxPerNode count, within the app.
	Group string
	// Avoid are nodes on which it must not be placed.
	Avoid []id.Node
	// Affinity and AntiAffinity name apps whose containers must be, or must not be, on the same node.
	Affinity     []string
	AntiAffinity []string
	// Gang grants all pending containers at once, or none.
	Gang bool
	// Duration is how long a container is expected to run; zero is unknown. Lent capacity is granted only if it ends in time.
	Duration time.Duration
	// Service is true if the containers run until they are stopped: no reservation waits for their resources.
	Service bool
	// Replaces is true if the container replaces one that the app has lost. Reservations of others end in its favour.
	Replaces bool
	// Master marks the container of an application master.
	Master bool
}

// Decisions is what Schedule decided. Its slices are valid until the next call.
type Decisions struct {
	// Grants are new containers.
	Grants []Grant
	// Notices are preemption notices to containers.
	Notices []Notice
	// Stops are containers whose notice has expired.
	Stops []Stop
	// Cancelled are the containers whose earlier notice is cancelled. Cancellations apply before Notices: a container in both
	// keeps the new notice.
	Cancelled []id.Container
	// Next is when to call Schedule again even if nothing new is applied; zero is never. If it is the present time, the pass has
	// reached its bound and there is more to decide.
	Next time.Time
}

// More reports whether the pass at now was cut short, so that the next has more to decide at once.
func (d Decisions) More(now time.Time) bool { return !d.Next.IsZero() && !d.Next.After(now) }

// Grant gives a container to an app. The container counts as held from now on.
type Grant struct {
	Container id.Container
	Ask       string
	Node      id.Node
	Queue     id.Queue
	Resources resource.Vector
	Master    bool
	// Gang is the same for all containers of a gang, and no other of the app; zero is none.
	Gang int64
}

// Notice is a preemption notice: the container has to end by the deadline.
type Notice struct {
	Container id.Container
	Deadline  time.Time
	Reason    string
}

// Stop ends a container whose notice has expired.
type Stop struct {
	Container id.Container
	Reason    string
}

// Explanation is why the asks of an app wait.
type Explanation struct {
	Asks []AskExplanation
}

// AskExplanation is why an ask is not granted.
type AskExplanation struct {
	Ask string
	// Pending is how many containers wait.
	Pending int
	// Limit is a sentence about the limit of a queue, user or master that the ask would exceed; empty if none.
	Limit string
	// Coming is a sentence about room that is nominated for it; empty if there is none.
	Coming string
	// Guarantee is a sentence why no container of another queue is preempted for it. It is empty for a gang, if
	// room is nominated for it, if a limit is exceeded, if the ask fits, or if no other queue holds anything.
	Guarantee string
	// Never is a sentence why it could not run even on an empty zone; empty if it could.
	Never string
	// Tests counts the nodes by the first test that each failed, most nodes first.
	Tests []FailedTest
	// Fits is on how many nodes one container would fit right now.
	Fits int
	// Help is a sentence about what a person can change so that it is granted; empty if nothing is known.
	Help string
}

// FailedTest is one reason why nodes do not fit, and how many.
type FailedTest struct {
	// Test, for example "not enough memory".
	Test  string
	Nodes int
	// Example is the closest miss: "node-2 has 32MiB of memory free, 64MiB are requested".
	Example string
}

// Plan is what Schedule would do with an ask of an app that does not exist yet.
type Plan struct {
	// Nodes has one entry for each container that would be granted now.
	Nodes []id.Node
	// Explanation says why the rest would wait.
	Explanation AskExplanation
	// Never is a sentence why it could not run, with its master, even on an empty zone; empty if it could.
	Never string
}

// QueueUsage is a queue and its usage.
type QueueUsage struct {
	// Spec is the queue as it was set.
	Spec QueueSpec
	// Used is what its containers hold, Pending what its asks wait for.
	Used    resource.Vector
	Pending resource.Vector
	// Guaranteed and Maximum are the capacities of Spec in the present zone.
	Guaranteed resource.Vector
	Maximum    resource.Vector
	// Apps is the number of apps in the queue and below it, Containers the number of containers that they hold.
	Apps       int
	Containers int
}

// Config is the configuration of a Core.
type Config struct {
	// Epoch is part of the ids of the containers that it grants.
	Epoch int64
	// Schema names the extended resources, for sentences.
	Schema resource.Schema
	// Notice is the time between a preemption notice and the stop, unless the queue has another; zero is 10s.
	Notice time.Duration
	// Master is the resources of an application master. Plan checks that an app fits together with its own.
	Master resource.Vector
	// ReserveAfter is how long an ask is blocked before room is reserved for it; zero is 10s.
	ReserveAfter time.Duration
}

// Interface is what the owner of a Core uses. It is called from one goroutine only.
type Interface interface {
	// Apply applies a fact. An error is one sentence for a person (errdefs.ErrInvalidArgument, ErrNotFound, ErrFailedPrecondition);
	// nothing has changed then.
	Apply(Input) error
	// Schedule decides all that can be decided at now.
	Schedule(now time.Time) Decisions
	// Explain returns why the asks of an app wait.
	Explain(app id.App, now time.Time) Explanation
	// Plan returns where Schedule would grant an ask of a new app with this name, queue and user. It changes no decision.
	Plan(app AddApp, ask Ask, now time.Time) (Plan, error)
	// Queues returns the tree, parents before children.
	Queues() []QueueUsage
	// QueuesAfter returns the tree as it would be after SetQueues, or the error of SetQueues.
	QueuesAfter(SetQueues) ([]QueueUsage, error)
	// Used is what containers hold on a node.
	Used(node id.Node) resource.Vector
}
