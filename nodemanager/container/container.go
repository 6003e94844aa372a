package container

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Container is the state of one container on its node. Only a Machine changes it. The exported fields are stored and survive
// a restart of the NodeManager; the others are about operations that end with the process.
type Container struct {
	// ID is the container's id, which is that of its lease.
	ID id.Container
	// MemoryBytes is its memory quota, for the message about an OOM kill.
	MemoryBytes int64 `json:",omitempty"`
	// HasProbe is true if it declares a health check. StartPeriod is how long it may take to become healthy, or stay
	// unhealthy.
	HasProbe    bool          `json:",omitempty"`
	StartPeriod time.Duration `json:",omitempty"`
	// Grace is the time between asking its process to end and killing it.
	Grace time.Duration `json:",omitempty"`
	// KeepUntil is the expiry of its token. The id must be kept until then, since the container could be started again.
	KeepUntil time.Time `json:",omitzero"`

	// State only rises; see State.
	State State
	// Reason is why it is in its state, one sentence; it may be empty.
	Reason string `json:",omitempty"`
	// Sequence rises with every published change, also over restarts.
	Sequence int64
	Health   Health `json:",omitempty"`
	// HealthDetail is the result of the last failed probe, one sentence.
	HealthDetail string `json:",omitempty"`
	// HealthySince is when Health became Healthy; zero while it is anything else.
	HealthySince time.Time `json:",omitzero"`
	// Phases are the timed steps of its start so far.
	Phases []Phase
	// Process is its process as last reported; zero before the start.
	Process Process
	// StopRequest is the first stop that was requested; nil if none was.
	StopRequest *Stop `json:",omitempty"`
	// Exit is how it ended, set when State is Done.
	Exit *Exit `json:",omitempty"`
	// FinishedAt is when it ended; zero before.
	FinishedAt time.Time `json:",omitzero"`
	// Launched is true once Start was called: a process may exist.
	Launched bool `json:",omitempty"`
	// EndAcknowledged is true once the ResourceManager has stored its end or holds no lease for it.
	EndAcknowledged bool `json:",omitempty"`
	// Removed is true once it was removed from its engine. Its logs may still exist.
	Removed bool `json:",omitempty"`

	op        operation
	probing   bool // true between Probe and Unprobe
	runsAgain bool // it ended and is running again
	failures  int
	retryAt   time.Time // when a failed operation is repeated
	launchBy  time.Time // until when an engine that does not answer is tried
	healthBy  time.Time
	exitBy    time.Time
	// answeredAt is when Start last answered. A listing that was requested before that says nothing about this container.
	answeredAt  time.Time
	ended       *Exit  // seen by EndedEarly
	engineError string // why the engine did not answer
}

// operation is the one operation in progress for the container.
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

// Health is the result of the probes.
type Health uint8

const (
	// NoProbe: it has no health check; running counts as healthy.
	NoProbe Health = iota
	// Starting: it has not been healthy yet.
	Starting
	Healthy
	Unhealthy
)

func (h Health) String() string {
	return [...]string{"none", "starting", "healthy", "unhealthy"}[h]
}

// Process is what the engine reports of a running container.
type Process struct {
	// RuntimeID is the engine's own id of the container.
	RuntimeID string `json:",omitempty"`
	// StartedAt is when the process was started, by the engine's clock.
	StartedAt time.Time `json:",omitzero"`
	// Ports are its published ports.
	Ports []Port `json:",omitempty"`
	// Address is where the node reaches the container's own ports; it may be empty.
	Address string `json:",omitempty"`
}

// equal reports whether it is the same process under the same address.
func (s Process) equal(other Process) bool {
	return s.RuntimeID == other.RuntimeID && s.StartedAt.Equal(other.StartedAt) && s.Address == other.Address && slices.Equal(s.Ports, other.Ports)
}

// Port is a port of a container and where it is published.
type Port struct {
	// Name is the port's name in the spec.
	Name string
	// Container is the port inside the container, and Host the port of the host.
	Container int
	Host      int
}

// Reason is why a container ended.
type Reason uint8

// The values are those of the protocol; see corev1.Exit_Reason.
const (
	// Exited: the process ended by itself.
	Exited Reason = iota + 1
	// OOMKilled: the kernel killed it at its memory quota.
	OOMKilled
	// DiskQuotaExceeded: it was stopped for exceeding its disk quota.
	DiskQuotaExceeded
	// StopCommanded: its application master or an operator stopped it.
	StopCommanded
	// Preempted: it was stopped for another queue.
	Preempted
	// LaunchFailed: it never ran, because of its image, command, quotas or ports.
	LaunchFailed
	// NotHealthy: it did not become healthy, or was unhealthy for too long.
	NotHealthy
	// NodeLost: the ResourceManager stopped it because its node was lost or removed.
	NodeLost
	// LeaseEnded: the ResourceManager holds no lease for it.
	LeaseEnded
	// Vanished: it ended while no NodeManager watched, and its exit code is unknown.
	Vanished
	// NodeFailed: the node or its engine is at fault.
	NodeFailed
	// KilledFromOutside: the engine ended it by a command from outside Mammoth.
	KilledFromOutside
)

// Exit is how a container ended.
type Exit struct {
	// Reason is the kind of end.
	Reason Reason
	// Code is the exit code, 128+n for signal n, -1 if unknown.
	Code int
	// Message is one sentence; it may be empty.
	Message string
}

// Stop is a request to stop a container.
type Stop struct {
	// Reason becomes the reason of the exit, and Message its message.
	Reason  Reason
	Message string
	// Grace overrides the container's own if it is set.
	Grace *time.Duration
}

// Ending is what an engine reports of a container's end. Code is -1 if it is unknown.
type Ending struct {
	Code int
	// OOM is true if the kernel killed it at its memory quota, DiskQuota if it exceeded its disk quota.
	OOM       bool
	DiskQuota bool
	// Message is one sentence; it may be empty.
	Message string
	// At is when it ended; zero if unknown.
	At time.Time
	// EngineDown is true if the engine was going down or away at that time, and may have caused the end.
	EngineDown bool
	// Signal is the signal that the engine was asked to send and that ended it, such as SIGKILL; empty if none was.
	Signal string
}

// Fact is something that has happened. Event decides which other fields are set.
type Fact struct {
	Event Event
	// Process is set with Started and Found.
	Process Process
	// Ending is set with Ended.
	Ending Ending
	// Stop is set with StopRequested.
	Stop Stop
	// Detail is one sentence: why something failed, or the result of a probe. NodeFault is true if the node is at fault.
	Detail    string
	NodeFault bool
	// Phase and Bytes are set with Progress, Bytes also with Prepared.
	Phase string
	Bytes int64
	// AsOf is set with Found, Missing, LeftBehind and an Ended from a listing: when the listing was requested. It does not
	// override what was seen later.
	AsOf time.Time
}

// Effect is something that the owner has to do for a container, in the given order.
type Effect struct {
	Kind EffectKind
	// Grace is set with StopProcess.
	Grace time.Duration
	// Healthy is set with Probe if the container was healthy before.
	Healthy bool
}

// EffectKind is what is to be done.
type EffectKind uint8

const (
	// Record stores the container. The owner answers Recorded or RecordFailed.
	Record EffectKind = iota
	// Save stores a change at any later time. There is no answer.
	Save
	// Prepare brings the image to the node. The owner answers Progress any number of times, then Prepared, PrepareFailed or
	// PrepareUnavailable.
	Prepare
	// Start runs the container. The owner answers Started, StartFailed or StartUnavailable.
	Start
	// Cancel cancels Prepare or Start, which still answers.
	Cancel
	// StopProcess stops the process. The owner answers Stopped or StopFailed. It may be repeated with less grace. In Done it
	// stops a container that was started again from outside.
	StopProcess
	// Remove removes the ended container. The owner answers Removed, RemoveFailed or RemoveRefused.
	Remove
	// Purge deletes its logs. The owner answers Purged or PurgeFailed.
	Purge
	// Probe starts the probes and Unprobe ends them.
	Probe
	Unprobe
	// Publish sends the status to all watchers.
	Publish
	// Drop deletes the record. The container does not exist any more.
	Drop
)

func (k EffectKind) String() string {
	return [...]string{
		"record", "save", "prepare", "start", "cancel", "stop", "remove", "purge", "probe", "unprobe", "publish", "drop",
	}[k]
}
