package container

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Container is what a node knows of one container. Only a Machine changes it. The exported fields are what
// survives a restart of the NodeManager; what is under way at an edge dies with the process.
type Container struct {
	ID id.Container
	// MemoryBytes is its quota, for the sentence that tells of an OOM kill.
	MemoryBytes int64 `json:",omitempty"`
	// Probed: it declares a health check, and StartPeriod is how long it may be without health.
	Probed      bool          `json:",omitempty"`
	StartPeriod time.Duration `json:",omitempty"`
	// Grace between asking its process to end and killing it.
	Grace time.Duration `json:",omitempty"`
	// KeepUntil is the end of its token: before it the id must not be forgotten, or it could be started again.
	KeepUntil time.Time `json:",omitzero"`

	State  State
	Reason string `json:",omitempty"`
	// Sequence rises with every change that is published, also over restarts.
	Sequence     int64
	Health       Health `json:",omitempty"`
	HealthDetail string `json:",omitempty"`
	// HealthySince is when Health became Healthy; zero while it is anything else.
	HealthySince time.Time `json:",omitzero"`
	Phases       []Phase
	Seen         Seen
	// Wanted is the stop that was asked for first.
	Wanted     *Stop     `json:",omitempty"`
	Exit       *Exit     `json:",omitempty"`
	FinishedAt time.Time `json:",omitzero"`
	// Launched: Start was called, so a process may have been made.
	Launched bool `json:",omitempty"`
	// Forgotten: nobody needs to be told of it any more.
	Forgotten bool `json:",omitempty"`
	Removed   bool `json:",omitempty"`

	op       operation
	probing  bool // Probe was asked for, and Unprobe was not
	again    bool // it has ended and was seen running since
	failures int
	retryAt  time.Time // when what failed is tried again
	launchBy time.Time // when to give up on an engine that does not answer
	healthBy time.Time
	exitBy   time.Time
	// answeredAt is when Start last answered: a listing from before that says nothing of this container.
	answeredAt time.Time
	ended      *Exit  // seen by EndedEarly
	trouble    string // why the engine could not be asked
}

// operation is the one thing that an edge is doing for the container.
type operation uint8

const (
	idle operation = iota
	recording
	preparing
	starting
	stopping
	removing
	purging
)

// Health is the verdict of the probe.
type Health uint8

const (
	// NoProbe: running counts as healthy.
	NoProbe Health = iota
	// Starting: not yet healthy for the first time.
	Starting
	Healthy
	Unhealthy
)

func (h Health) String() string {
	return [...]string{"none", "starting", "healthy", "unhealthy"}[h]
}

// Seen is what the engine told of a container that runs.
type Seen struct {
	RuntimeID string    `json:",omitempty"`
	StartedAt time.Time `json:",omitzero"`
	Ports     []Port    `json:",omitempty"`
	// Address at which the node itself reaches the container's own ports; may be empty.
	Address string `json:",omitempty"`
}

// same reports whether the process and the way to it are what they were.
func (s Seen) same(other Seen) bool {
	return s.RuntimeID == other.RuntimeID && s.StartedAt.Equal(other.StartedAt) && s.Address == other.Address && slices.Equal(s.Ports, other.Ports)
}

// Port is a port of a container and where it is published.
type Port struct {
	Name      string
	Container int
	Host      int
}

// Reason says why a container ended.
type Reason uint8

const (
	Exited Reason = iota + 1
	OOMKilled
	DiskQuotaExceeded
	StopAsked
	Preempted
	LaunchFailed
	NotHealthy
	NodeLost
	LeaseEnded
	Vanished
	// NodeFailed: the node or its engine is to blame.
	NodeFailed
	// KilledFromOutside: somebody else had the engine end it.
	KilledFromOutside
)

// Exit is how a container ended.
type Exit struct {
	Reason  Reason
	Code    int
	Message string
}

// Stop is a wish for a container's end.
type Stop struct {
	Reason  Reason
	Message string
	// Grace overrides the container's own if it is set.
	Grace *time.Duration
}

// Ending is what an engine says of an end. Code is -1 if it could not be learned.
type Ending struct {
	Code      int
	OOM       bool
	DiskQuota bool
	Message   string
	At        time.Time
	// Engine: the engine was going down, or was away, when it ended, and may have ended it.
	Engine bool
	// Signal that it ended of, such as SIGKILL, if the engine was asked to send one; else empty. Who asked is not known.
	Signal string
}

// Fact is something that has happened. Event says which of the other fields hold.
type Fact struct {
	Event Event
	// Seen comes with Started and Found.
	Seen Seen
	// Ending comes with Ended.
	Ending Ending
	// Stop comes with StopWanted.
	Stop Stop
	// Detail is one sentence: why something failed, or what a probe saw. OfNode says that the node is to blame for it.
	Detail string
	OfNode bool
	// Phase and Bytes come with Progress, Bytes with Prepared too.
	Phase string
	Bytes int64
	// AsOf comes with Found, Missing, LeftBehind and an Ended that a listing told: when the engine was asked. What
	// was seen later than that is not doubted.
	AsOf time.Time
}

// Effect is what its owner has to do for a container, in the given order.
type Effect struct {
	Kind EffectKind
	// Grace comes with Stop.
	Grace time.Duration
	// Healthy comes with Probe: it was healthy before.
	Healthy bool
}

// EffectKind says what to do.
type EffectKind uint8

const (
	// Record writes the container down and answers Recorded or RecordFailed.
	Record EffectKind = iota
	// Save writes its change down whenever there is time; no answer.
	Save
	// Prepare answers Progress any number of times, then Prepared, PrepareFailed or PrepareUnavailable.
	Prepare
	// Start answers Started, StartFailed or StartUnavailable.
	Start
	// Cancel hurries Prepare or Start, which still answers.
	Cancel
	// StopProcess answers Stopped or StopFailed. It may be asked for again with less grace. In Done it is about a
	// container that somebody else has started again.
	StopProcess
	// Remove answers Removed, RemoveFailed or RemoveRefused.
	Remove
	// Purge answers Purged or PurgeFailed.
	Purge
	// Probe begins and Unprobe ends probing.
	Probe
	Unprobe
	// Publish tells everybody who watches.
	Publish
	// Drop deletes its record. The container is no more.
	Drop
)

func (k EffectKind) String() string {
	return [...]string{
		"record", "save", "prepare", "start", "cancel", "stop", "remove", "purge", "probe", "unprobe", "publish", "drop",
	}[k]
}
