// Package runtime is the interface to what runs a node's containers. Docker, plain processes and a fake for tests implement
// it; all three pass the suite in runtimetest. A runtime owns the containers of its node from Start to Remove, and the NodeManager
// decides about them.
package runtime

import (
	"context"
	"io"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Runtime runs containers. Every method may block and respects its context. A Runtime has no state that a restart of the
// NodeManager would lose: List returns all that it knows of its containers.
//
// Errors are of the errdefs classes: ErrUnavailable when the engine does not answer (everything is repeated later),
// ErrNotFound for a container or image that does not exist, ErrInvalidArgument for a spec that can never run, ErrDataLoss
// for content with a wrong digest, ErrResourceExhausted for what the node lacks (it is blamed then).
type Runtime interface {
	// Info reports whether the engine answers and what it supports. It can be called once a second.
	Info(ctx context.Context) (Info, error)
	// Prepare brings what a container needs to the host: download, then load. It reports progress, may be repeated, and
	// returns at once when there is nothing to do.
	Prepare(ctx context.Context, spec Spec, progress func(Progress)) error
	// Start creates and starts a container. It returns when its process runs and its ports are bound. It may be repeated for
	// the same Spec.ID: a running container is adopted, one that never ran is replaced, and one that ran and ended is
	// returned with its Exit and not run again. After an error, also when ctx ends, nothing is left behind,
	// unless the engine does not answer: then List shows what is left, and the next Start replaces it.
	Start(ctx context.Context, spec Spec) (Container, error)
	// Stop sends the container's stop signal, after grace SIGKILL, and returns when the whole process tree was seen gone. A
	// signal that cannot be sent does not prevent the kill. It is not an error if the container has ended or never existed.
	Stop(ctx context.Context, container id.Container, grace time.Duration) error
	// Remove keeps the logs of an ended container for Logs and deletes everything else. It may be repeated, and fails with
	// ErrFailedPrecondition while the container runs.
	Remove(ctx context.Context, container id.Container) error
	// Purge also deletes the logs of a removed container. It may be repeated.
	Purge(ctx context.Context, container id.Container) error
	// List returns every container of this node that is running, or ended and not removed; never a foreign one, even a copy
	// with the same labels.
	List(ctx context.Context) ([]Container, error)
	// Watch sends the events of this node's containers until ctx ends or the engine goes away, which closes the channel.
	// Earlier events are not repeated: call List after Watch to miss nothing.
	Watch(ctx context.Context) (<-chan Event, error)
	// Logs calls line for each line of output, oldest first, also between Remove and Purge. With Follow it returns when the
	// container has ended and everything was read.
	Logs(ctx context.Context, container id.Container, options LogOptions, line func(LogLine) error) error
	// Exec runs a command inside a running container and returns its exit code. A command that cannot be run ends as in
	// Exec.CannotRun. Exec returns soon after the end of the command: processes that the command left behind are killed then
	// if they hold its output, and always with a terminal. The end of ctx kills the command and everything that it has
	// started.
	Exec(ctx context.Context, container id.Container, exec Exec) (int, error)
}

// Info describes a runtime.
type Info struct {
	// Name is "docker", "process" or "fake".
	Name string
	// Version of the engine.
	Version string
	// DiskQuota is what enforces the disk quota: "driver", "watcher" or "none".
	DiskQuota string
	// CgroupVersion is 1 or 2.
	CgroupVersion int
}

// Network is the network of a container.
type Network uint8

const (
	// Bridge is a network namespace of its own; ports are published on random host ports of the node's range.
	Bridge Network = iota
	// Host is the host's network; the leased ports are in PORT and PORT_<NAME>.
	Host
)

// Spec is everything that a runtime needs to run one container. It does not change after the start.
type Spec struct {
	// ID is the container's id, unique in the zone.
	ID id.Container
	// AppName, Attempt and Labels are stored with the container and returned by List.
	AppName string
	Attempt int32
	Labels  map[string]string
	// Image is NAME@sha256:… of the zone's store; empty for a process.
	Image string
	// Command replaces the image's entrypoint if set. Args replaces its arguments: nil keeps them, an empty list means none.
	Command []string
	Args    []string
	// Env adds variables to those of the image, and overrides them.
	Env map[string]string
	// WorkingDir and User override those of the image if they are set.
	WorkingDir string
	User       string
	// Network is the container's network.
	Network Network
	// Ports are to be published; with Host network, leased.
	Ports []Port
	// Quotas. Zero is unlimited, which only tests use.
	CPUMillis int64
	// MemoryBytes limits memory, DiskBytes what it writes, and Pids its processes and threads.
	MemoryBytes int64
	DiskBytes   int64
	Pids        int64

	// ReadOnlyRoot makes the root file system read-only.
	ReadOnlyRoot bool
	// StopSignal is the signal of a stop, in the syntax of signal.Number; empty is the image's own, else SIGTERM.
	StopSignal string

	// StateDir is the state directory that successive containers of a companion app share: its path is in MAMMOTH_STATE, and the
	// processes that one container leaves running are taken over by the next. Empty is none. Only the process runtime has
	// state directories.
	StateDir string
}

// Port is a port of a container by name.
type Port struct {
	// Name is the port's name, and Container the port inside the container.
	Name      string
	Container int
	// Host is set once the port is bound.
	Host int
}

// Container is what a runtime reports of one container.
type Container struct {
	ID id.Container
	// RuntimeID is the engine's own id.
	RuntimeID string
	// AppName, Attempt, Labels and Ports are those of its Spec; Ports with the bound host ports.
	AppName string
	Attempt int32
	Labels  map[string]string
	// Running is false before the start and after the end.
	Running bool
	Ports   []Port
	// StartedAt and FinishedAt are by the engine's clock; zero before the start and the end.
	StartedAt  time.Time
	FinishedAt time.Time
	// Exit is set once it has ended.
	Exit *Exit
	// Pid is its first process while it runs, in the host's pid namespace; zero if unknown.
	Pid int
	// Address is where the node reaches the container's ports without the port mapping; empty if it can use the host ports
	// only.
	Address string
}

// Exit is how a container ended.
type Exit struct {
	// Code is the exit code, 128+n for signal n, -1 if it is unknown.
	Code int
	// OOM is true when the kernel killed it at its memory quota.
	OOM bool
	// DiskQuota is true when it was stopped for exceeding its disk quota, or had exceeded it when it ended.
	DiskQuota bool
	// Message is one sentence if there is more to report, for example "disk quota exceeded (72MiB of 64MiB)".
	Message string
	// EngineDown is true when the engine was going down or away when it ended, and may have ended it.
	EngineDown bool
	// Signal is the signal that ended it, if the engine was asked to send it by the node's own Stop or from outside. A
	// program that ends itself has none, nor has one that was killed without the engine.
	Signal int
}

// Event is one thing that happened to one container.
type Event struct {
	// ID is the container.
	ID id.Container
	// Kind decides which fields are set. Containers that were started again from outside have events too.
	Kind EventKind
	// Exit is set for Ended.
	Exit *Exit
	// At is when it happened, by the engine's clock.
	At time.Time
}

// EventKind is what happened.
type EventKind uint8

const (
	// Started: its process runs.
	Started EventKind = iota
	// Ended: its process tree is gone.
	Ended
	// Created: it exists and was not started yet. Not every runtime has this step.
	Created
)

// Progress is how far Prepare has come.
type Progress struct {
	// Phase is "download" or "load".
	Phase string
	// Bytes is how many bytes were moved to this host in the phase so far.
	Bytes int64
}

// LogOptions select what Logs reads.
type LogOptions struct {
	// Follow continues with later lines until the container has ended.
	Follow bool
	// Tail is how many of the last lines are read; negative is all.
	Tail int
	// Since selects lines that were written at that time or later; zero selects all.
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
	// Command is the program and its arguments.
	Command []string
	// Env adds variables to those of the container, and overrides them.
	Env map[string]string
	TTY bool
	// Stdin may be nil. With TTY, Stderr is not used.
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Resize has new terminal sizes until it is closed; may be nil.
	Resize <-chan WindowSize
}

// WindowSize is the size of a terminal, in characters.
type WindowSize struct {
	Rows, Columns uint
}
