// Package runtime is what a NodeManager needs of whatever runs its containers. Docker, plain processes and a
// fake for tests implement it; all three pass the suite in runtimetest.
package runtime

import (
	"context"
	"io"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Runtime runs containers. Every method may block and heeds its context; none of them keeps state that a
// restart of the NodeManager would lose: what a runtime knows of a container it can tell again by List.
//
// Errors are of the errdefs taxonomy: ErrUnavailable when the engine does not answer (everything is then
// retried later), ErrNotFound for a container or image that does not exist, ErrInvalidArgument for a spec that
// can never run, ErrDataLoss for content that does not match its digest.
type Runtime interface {
	// Info says whether the engine answers and what it can do. Cheap enough for once a second.
	Info(ctx context.Context) (Info, error)
	// Prepare brings what a container needs onto the host: download, then load. It reports progress, is
	// idempotent, and returns at once when everything is there.
	Prepare(ctx context.Context, spec Spec, progress func(Progress)) error
	// Start creates and starts a container and returns once its process runs and its ports are bound. Idempotent
	// by Spec.ID: a container that a lost answer left behind is adopted if it runs and replaced if it never ran;
	// one that ran and has ended is not run again, but returned with its Exit.
	// On an error nothing is left behind, also when ctx ends in the middle.
	Start(ctx context.Context, spec Spec) (Container, error)
	// Stop sends the container's stop signal, after grace SIGKILL, and returns when the whole process tree was seen gone. A
	// signal that cannot be sent is no reason not to kill.
	// Stopping a container that has ended or never existed is not an error.
	Stop(ctx context.Context, container id.Container, grace time.Duration) error
	// Remove keeps the container's logs for Logs and deletes everything else of an ended container. Idempotent;
	// ErrFailedPrecondition while it runs.
	Remove(ctx context.Context, container id.Container) error
	// Purge deletes the logs of a removed container too. Idempotent.
	Purge(ctx context.Context, container id.Container) error
	// List gives every container of this node, running or ended and not removed; never a foreign one, be it a copy of
	// one of the node's with all that is written on it.
	List(ctx context.Context) ([]Container, error)
	// Watch sends what happens to this node's containers until ctx ends or the engine goes away, which closes the
	// channel. Events before the call are not repeated: call List after Watch to miss nothing.
	Watch(ctx context.Context) (<-chan Event, error)
	// Logs calls line for each line of output, oldest first, also after Remove until Purge. With Follow it returns
	// when the container has ended and everything was read.
	Logs(ctx context.Context, container id.Container, options LogOptions, line func(LogLine) error) error
	// Exec runs a command inside a running container and returns its exit code. One that cannot be run ends as
	// Exec.CannotRun says. It returns soon after the end of the command: what that has left running is ended then if it holds on
	// to the command's output, and in any case with a terminal. The end of ctx ends the command with everything that it has started.
	Exec(ctx context.Context, container id.Container, exec Exec) (int, error)
}

// Info is what a runtime tells about itself.
type Info struct {
	// Name is "docker", "process" or "fake".
	Name string
	// Version of the engine.
	Version string
	// DiskQuota says who holds containers to their disk quota: "driver", "watcher" or "none".
	DiskQuota string
	// CgroupVersion is 1 or 2.
	CgroupVersion int
}

// Network is how a container reaches and is reached.
type Network uint8

const (
	// Bridge gives it a network namespace of its own; ports are published on random host ports of the node's range.
	Bridge Network = iota
	// Host shares the host's; the container is told its leased ports in PORT and PORT_<NAME>.
	Host
)

// Spec is everything a runtime needs to run one container. It does not change once the container is started.
type Spec struct {
	ID id.Container
	// AppName, Attempt and Labels are kept with the container and given back by List.
	AppName string
	Attempt int32
	Labels  map[string]string
	// Image is NAME@sha256:… of the zone's store; empty for a process that is on the host.
	Image string
	// Command overrides the image's entrypoint when set, Args its arguments: nil are the image's, an empty list is none.
	Command    []string
	Args       []string
	Env        map[string]string
	WorkingDir string
	User       string
	Network    Network
	// Ports to publish; with Host network, the ports to lease.
	Ports []Port
	// Quotas. Zero is unlimited, which only tests use.
	CPUMillis   int64
	MemoryBytes int64
	DiskBytes   int64
	Pids        int64

	ReadOnlyRoot bool
	// StopSignal asks it to end, as signal.Number reads it; empty is the image's own, else SIGTERM.
	StopSignal string

	// Place names what the containers of a system component that follow one another on a node share: a folder, which
	// MAMMOTH_STATE names to them, and the processes that one of them leaves to the next. Empty is none. Only the process
	// runtime has places.
	Place string
}

// Port is a port of a container by name.
type Port struct {
	Name      string
	Container int
	// Host is filled in once the port is bound.
	Host int
}

// Container is what a runtime has seen of one container.
type Container struct {
	ID id.Container
	// RuntimeID is the engine's own id.
	RuntimeID string
	AppName   string
	Attempt   int32
	Labels    map[string]string
	// Running is false before the start and after the end.
	Running    bool
	Ports      []Port
	StartedAt  time.Time
	FinishedAt time.Time
	// Exit is set once it has ended.
	Exit *Exit
	// Pid of its first process while it runs, in the host's pid namespace; zero if unknown.
	Pid int
	// Address at which the node itself reaches the container's ports for exec-free probes, without the port mapping;
	// empty when only the host ports serve.
	Address string
}

// Exit is how a container ended.
type Exit struct {
	// Code is the exit code, 128+n for signal n, -1 if it could not be learned.
	Code int
	// OOM is true when the kernel killed it at its memory quota.
	OOM bool
	// DiskQuota is true when it was stopped for what it wrote, or had ended with more than its quota.
	DiskQuota bool
	// Message is one sentence when there is more to say, for example "disk quota exceeded (72MiB of 64MiB)".
	Message string
	// EngineDown is true when the engine was going down, or was away, when it ended: the engine may have ended it.
	EngineDown bool
	// Signal is set if it ended of a signal that the engine was asked to send, by the node's own Stop or by somebody else.
	// A program that ends itself has none, nor has one that was killed without the engine.
	Signal int
}

// Event is one thing that happened to one container.
type Event struct {
	ID id.Container
	// Kind says which of the fields below hold. Events of a container that somebody else has started again come too.
	Kind EventKind
	// Exit is set for Ended.
	Exit *Exit
	At   time.Time
}

// EventKind is what happened.
type EventKind uint8

const (
	// Started: its process runs.
	Started EventKind = iota
	// Ended: its process tree is gone.
	Ended
	// Created: it is there, and has not been started yet. Not every runtime has this step.
	Created
)

// Progress is how far Prepare has come.
type Progress struct {
	// Phase is "download" or "load".
	Phase string
	// Bytes moved to this host in the phase so far.
	Bytes int64
}

// LogOptions choose what Logs reads.
type LogOptions struct {
	Follow bool
	// Tail keeps only the last so many lines; negative is all.
	Tail  int
	Since time.Time
}

// LogLine is one line of output without its newline.
type LogLine struct {
	Time   time.Time
	Stderr bool
	Text   string
}

// Exec is a command to run inside a container.
type Exec struct {
	Command []string
	Env     map[string]string
	TTY     bool
	// Stdin may be nil. With TTY, Stderr is not used.
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Resize delivers terminal sizes until it is closed; may be nil.
	Resize <-chan WindowSize
}

// WindowSize is a terminal's, in characters.
type WindowSize struct {
	Rows, Columns uint
}
