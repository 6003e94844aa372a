// Package scheduler decides which container goes where. It is pure: facts come in by Apply, decisions come out of
// Schedule, time is an argument, and the same inputs give the same decisions.
//
// It owns, in memory, the queues with what they hold, the nodes with what they have left, the asks that wait, and the notices
// of containers that are preempted. Its owner keeps what has to outlast it, and applies it again.
//
// A Core wires these parts, each of which opens with its own words:
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

// SetNode adds a node or changes one. Containers that it holds stay held, even when it shrinks below them.
type SetNode struct{ Node NodeSpec }

// RemoveNode takes a node away (it is lost or was decommissioned). Its containers stay held, and count for their
// queues, until Release says that they were seen gone or fenced.
type RemoveNode struct{ Node id.Node }

// AddApp lets an app ask. Adding it again changes queue, user and priority.
type AddApp struct {
	App      id.App
	Name     string
	Queue    id.Queue
	User     string
	Priority int32
	// Weight is the app's share of a fair leaf, against the other apps there; zero is 1.
	Weight float64
	// Recovered says that the app was admitted before: the queue's state, limit of apps and submit list are not looked
	// at again.
	Recovered bool
	// Allowed says that the person who adds the app, who need not be User, may submit: the submit list is not looked at.
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
	Ask       string
	Group     string
	Master    bool
	StartedAt time.Time
	// Duration is how long its ask said that it would run; zero is unknown.
	Duration time.Duration
	// Service is what its ask said of it.
	Service bool
	// Gang is the number of the gang that it was granted with; zero is none.
	Gang int64
}

// Release ends a container's hold: it was seen gone, or was fenced. Releasing twice is harmless.
type Release struct{ Container id.Container }

// Checkpoint says that a container's work is safe up to a time: stopping it loses only what came after.
type Checkpoint struct {
	Container id.Container
	At        time.Time
}

// SetContracts replaces all lending contracts. It is checked as a whole; on an error nothing changes.
type SetContracts struct{ Contracts []Contract }

func (SetQueues) isInput()  {}
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
	Name       id.Queue
	Parent     id.Queue
	Guaranteed Capacity
	Maximum    Capacity
	// Stopped and draining queues take no new apps; a stopped one grants nothing either.
	State QueueState
	// MaxApps limits the apps of a leaf; zero is no limit.
	MaxApps int
	// MaxMasterPercent is the share of the queue's maximum that application masters may hold; zero is 50. One may always be
	// there.
	MaxMasterPercent float64
	// Fair serves the app of a leaf that has the least by its weight, instead of the one that came first.
	Fair bool
	// UserLimitPercent is the share of the queue's maximum that one user may hold; zero is no limit.
	UserLimitPercent float64
	// Submit and Admin name the users who may submit and administer, here and in all queues below.
	Submit, Admin []string
	// Notice is how long before it is stopped a container of the queue gets notice; zero is Config.Notice.
	Notice time.Duration
}

// QueueState says what a queue still takes.
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
	// IsPercent says which of both counts.
	IsPercent bool
}

// NodeSpec is a node as the scheduler sees it.
type NodeSpec struct {
	Name       id.Node
	Capacity   resource.Vector
	Attributes map[string]Value
	// Closed says, in one sentence, why nothing new may be placed here; empty is open.
	Closed string
}

// Value is a typed node attribute.
type Value struct {
	Kind ValueKind
	// Text is a text, or a number as it was written, if it was.
	Text   string
	Number float64
	Flag   bool
}

// ValueKind says which field of a Value counts.
type ValueKind uint8

// The kinds of node attributes.
const (
	TextValue ValueKind = iota
	NumberValue
	FlagValue
)

// Policy is how nodes are preferred among those that fit.
type Policy uint8

const (
	// Spread puts containers of a group where the fewest of them are.
	Spread Policy = iota
	// Pack fills the fullest node that fits.
	Pack
)

// Ask is a number of equal containers that an app waits for.
type Ask struct {
	// ID is the app's own name for it.
	ID string
	// Pending is how many are still to be granted.
	Pending   int
	Resources resource.Vector
	// Priority: higher first within the queue.
	Priority int32
	Policy   Policy
	// SpreadOver is the node attribute over whose values to spread; empty spreads over nodes.
	SpreadOver  string
	Constraints []Constraint
	// MaxPerNode limits the containers of Group on a node; zero is no limit.
	MaxPerNode int
	// Group is what spread and MaxPerNode count, within the app.
	Group string
	Avoid []id.Node
	// Affinity and AntiAffinity name apps whose containers must be, or must not be, on the same node.
	Affinity     []string
	AntiAffinity []string
	// Gang grants all pending containers at once, or none.
	Gang bool
	// Duration, if known, is how long a container will run: lent capacity is granted only if it ends in time.
	Duration time.Duration
	// Service says that a container runs until somebody ends it: no ask has a reservation that waits for its room.
	Service bool
	// Replaces says that a container replaces one that the app has lost: reservations give way to it.
	Replaces bool
	// Master marks the container of an application master.
	Master bool
}

// Decisions is what Schedule decided. Its slices are valid until the next call.
type Decisions struct {
	Grants  []Grant
	Notices []Notice
	Stops   []Stop
	// Cancelled are the containers whose preemption is cancelled.
	Cancelled []id.Container
	// Next is when to call Schedule again though nothing new was applied; zero is never. It may be the present:
	// then there is more to decide than a pass is allowed to take.
	Next time.Time
}

// More reports whether the pass at now was cut short, so that the next has more to decide at once.
func (d Decisions) More(now time.Time) bool { return !d.Next.IsZero() && !d.Next.After(now) }

// Grant gives a container to an app. It is counted as held from now on.
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

// Notice tells a container that it is preempted: it is to end by the deadline.
type Notice struct {
	Container id.Container
	Deadline  time.Time
	Reason    string
}

// Stop ends a container whose notice has run out.
type Stop struct {
	Container id.Container
	Reason    string
}

// Explanation says what an app waits for.
type Explanation struct {
	Asks []AskExplanation
}

// AskExplanation says why an ask is not granted.
type AskExplanation struct {
	Ask     string
	Pending int
	// Limit is the sentence about a queue, user or master limit that stands in the way; empty if none does.
	Limit string
	// Coming is the sentence about room that is nominated for it, or will be; empty if there is none.
	Coming string
	// Guarantee is the sentence why no other queue's containers are stopped for it; empty if some are, or a limit stands in
	// the way, or it fits.
	Guarantee string
	// Never is the sentence why it could not run even on an empty zone; empty if it could.
	Never string
	// Tests counts the nodes by the first test that each failed, most nodes first.
	Tests []FailedTest
	// Fits is on how many nodes one container would fit right now.
	Fits int
	// Help is the sentence what people could change so that it is granted; empty if nothing is known.
	Help string
}

// FailedTest is one reason for which nodes were passed over.
type FailedTest struct {
	// Test, for example "not enough memory".
	Test  string
	Nodes int
	// Example is the closest miss: "node-2 has 32MiB of memory free, 64MiB are asked".
	Example string
}

// Plan is what Schedule would do with an ask of an app that does not exist yet.
type Plan struct {
	// Nodes has one entry for each container that would be granted now.
	Nodes []id.Node
	// Explanation says why the rest would wait.
	Explanation AskExplanation
	// Never is the sentence why it could not run even on an empty zone, beside its own master; empty if it could.
	Never string
}

// QueueUsage is a queue and what it holds.
type QueueUsage struct {
	Spec       QueueSpec
	Used       resource.Vector
	Pending    resource.Vector
	Guaranteed resource.Vector
	Maximum    resource.Vector
	Apps       int
	Containers int
}

// Config is what a Core is made with.
type Config struct {
	// Epoch goes into the ids of the containers that it grants.
	Epoch int64
	// Schema names the extended resources, for sentences.
	Schema resource.Schema
	// Notice is how long before it is stopped for another queue's guarantee a container gets notice; zero is 10s.
	Notice time.Duration
	// Master is what every application master is given: Plan looks whether an app fits beside its own.
	Master resource.Vector
	// Patience is how long an ask is blocked, while others are granted, before room is reserved for it; zero is 10s.
	Patience time.Duration
}

// Interface is the whole face of a Core towards its owner, which calls it from one goroutine only.
type Interface interface {
	// Apply takes a fact. An error is one sentence for a person (errdefs.ErrInvalidArgument, ErrNotFound,
	// ErrFailedPrecondition) and means that nothing changed.
	Apply(Input) error
	// Schedule decides all that can be decided at now.
	Schedule(now time.Time) Decisions
	// Explain says what an app waits for.
	Explain(app id.App, now time.Time) Explanation
	// Plan says what would become of an ask of an app of this name, queue and user, without doing it.
	Plan(app AddApp, ask Ask, now time.Time) (Plan, error)
	// Queues gives the tree, parents before children.
	Queues() []QueueUsage
	// QueuesAfter gives the tree as it would be after SetQueues, or why that is refused.
	QueuesAfter(SetQueues) ([]QueueUsage, error)
	// Used is what containers hold on a node.
	Used(node id.Node) resource.Vector
	// Largest is, for each resource, the most that any node has.
	Largest() resource.Vector
}
