// Package process runs containers as plain processes of the host: application masters and apps that are no
// images. Each has a control group, a session, a working directory and files for its output of its own, none of
// which depends on the NodeManager: when that is killed the process goes on, and its successor finds it again by
// a state file that is written before the program's first instruction.
//
// There is no helper process. A new process is held, by ptrace, between its exec and its first instruction until
// it is in its control group and written down; if the NodeManager dies meanwhile, it dies too. Who is not the
// process's parent cannot learn its exit code: after a restart of the NodeManager it is -1.
package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/cgroup"
	"github.com/mammoth-os/mammoth/nodemanager/disk"
	"github.com/mammoth-os/mammoth/nodemanager/logs"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Config of the runtime of one node.
type Config struct {
	// Dir keeps a folder for each container: its state, its working directory, its output not yet read.
	Dir string
	// LogDir keeps the output, also after Remove.
	LogDir string
	// Places keeps the folders that containers which follow one another share; empty refuses such specs.
	Places string
	// Zone and Node name the control group: mammoth/ZONE/NODE/CONTAINER.
	Zone, Node string
	// Self is what the program name "mammoth" means: the NodeManager's own executable.
	Self string
	// Ports to lease from. Leases, shared with the node's other runtimes, takes its place when set.
	Ports  network.Range
	Leases *network.Leases
	// Unlimited runs without control groups and thus without quotas: for tests without root.
	Unlimited bool
	Logger    *slog.Logger
}

func (c *Config) validate() error {
	if c.Dir == "" || c.LogDir == "" || c.Node == "" {
		return fmt.Errorf("the process runtime needs a directory, a log directory and a node: %w", errdefs.ErrInvalidArgument)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Leases == nil {
		c.Leases = network.NewLeases(c.Ports, nil)
	}
	// What is in the kernel's tables must not depend on the NodeManager's working directory.
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err == nil {
		c.LogDir, err = filepath.Abs(c.LogDir)
	}
	if err == nil && c.Places != "" {
		c.Places, err = filepath.Abs(c.Places)
	}
	return err
}

// Runtime implements runtime.Runtime.
type Runtime struct {
	config    Config
	hierarchy *cgroup.Hierarchy
	watcher   *disk.Watcher
	events    runtime.Events
	// starting makes starts one at a time: they are few, and each takes milliseconds.
	starting sync.Mutex
	// ending are the places that are being ended, guarded by starting. Each channel is closed when that is over.
	ending map[string]chan struct{}
	// placeGrace is how long processes that are left may take to end when their place does.
	placeGrace time.Duration
	// supervisors are the goroutines of the running containers.
	supervisors sync.WaitGroup

	mu         sync.Mutex
	containers map[id.Container]*container
}

var _ runtime.Runtime = (*Runtime)(nil)

// New takes up what an earlier NodeManager left running. ErrFailedPrecondition without root or control groups,
// unless Unlimited. Close ends the runtime, not its containers.
func New(config Config) (*Runtime, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	r := &Runtime{config: config, placeGrace: placeGrace, containers: make(map[id.Container]*container), ending: make(map[string]chan struct{})}
	if !config.Unlimited {
		if os.Geteuid() != 0 {
			return nil, fmt.Errorf("quotas for processes need root: %w", errdefs.ErrFailedPrecondition)
		}
		hierarchy, err := cgroup.Detect()
		if err != nil {
			return nil, err
		}
		r.hierarchy = hierarchy
	}
	if err := os.MkdirAll(config.Dir, 0o711); err != nil {
		return nil, err
	}
	r.watcher = disk.NewWatcher(config.Logger)
	if err := r.recover(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close ends the supervision of the containers; they go on.
func (r *Runtime) Close() error {
	r.watcher.Close()
	r.mu.Lock()
	for _, c := range r.containers {
		c.abandon()
	}
	r.mu.Unlock()
	r.supervisors.Wait()
	r.events.Disconnect()
	if r.hierarchy != nil {
		// The node's own group stays as long as a container is in it, the zone's as long as a node is.
		group := filepath.Dir(r.groupPath(id.Container{}))
		_ = r.hierarchy.Open(group).Delete()
		return r.hierarchy.Prune(group)
	}
	return nil
}

// Info implements runtime.Runtime.
func (r *Runtime) Info(context.Context) (runtime.Info, error) {
	info := runtime.Info{Name: "process", Version: "1", DiskQuota: "watcher", CgroupVersion: 2}
	if r.hierarchy != nil {
		info.CgroupVersion = r.hierarchy.Version()
	}
	return info, nil
}

// Prepare implements runtime.Runtime. A process runs what is on the host, so there is nothing to fetch.
func (r *Runtime) Prepare(_ context.Context, spec runtime.Spec, _ func(runtime.Progress)) error {
	if spec.Image != "" {
		return fmt.Errorf("a process runs what is on the host; the image %q cannot be used here: %w", spec.Image, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (r *Runtime) dir(container id.Container) string {
	return filepath.Join(r.config.Dir, container.String())
}

func (r *Runtime) workDir(container id.Container) string {
	return filepath.Join(r.dir(container), "work")
}

func (r *Runtime) find(container id.Container) *container {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.containers[container]
}

// Stop implements runtime.Runtime.
func (r *Runtime) Stop(ctx context.Context, container id.Container, grace time.Duration) error {
	c := r.find(container)
	if c == nil {
		return nil
	}
	return c.stop(ctx, grace)
}

// Remove implements runtime.Runtime.
func (r *Runtime) Remove(_ context.Context, container id.Container) error {
	c := r.find(container)
	if c != nil && !c.hasEnded() {
		return fmt.Errorf("container %v is running: %w", container, errdefs.ErrFailedPrecondition)
	}
	if err := os.RemoveAll(r.dir(container)); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.containers, container)
	return nil
}

// Purge implements runtime.Runtime.
func (r *Runtime) Purge(_ context.Context, container id.Container) error {
	return logs.Delete(r.config.LogDir, container.String())
}

// List implements runtime.Runtime.
func (r *Runtime) List(ctx context.Context) ([]runtime.Container, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	r.mu.Lock()
	list := make([]runtime.Container, 0, len(r.containers))
	for _, c := range r.containers {
		list = append(list, c.view())
	}
	r.mu.Unlock()
	slices.SortFunc(list, func(a, b runtime.Container) int {
		return cmp.Or(a.StartedAt.Compare(b.StartedAt), a.ID.Compare(b.ID))
	})
	return list, nil
}

// Watch implements runtime.Runtime.
func (r *Runtime) Watch(ctx context.Context) (<-chan runtime.Event, error) {
	return r.events.Watch(ctx), nil
}

// Logs implements runtime.Runtime. A line has the time at which the NodeManager read it, which is within
// milliseconds unless there was none; lines of the two streams that were read at once may be out of order.
func (r *Runtime) Logs(ctx context.Context, container id.Container, options runtime.LogOptions, line func(runtime.LogLine) error) error {
	if c := r.find(container); c != nil && options.Follow && !c.hasEnded() {
		return c.log.Follow(ctx, c.ended, options, line)
	}
	if err := logs.Read(ctx, r.config.LogDir, container.String(), options, line); err != nil {
		return fmt.Errorf("container %v: %w", container, err)
	}
	return nil
}
