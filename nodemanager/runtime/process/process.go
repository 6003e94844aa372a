// Package process runs containers as plain processes of the host: application masters, and programs of companion apps. Each has
// a control group, a session, a working directory and output files of its own, none of which depends on the NodeManager:
// when the NodeManager is killed the process continues, and the next one finds it by a state file that was written before
// the program's first instruction.
//
// There is no helper process. A new process is stopped by ptrace between its exec and its first instruction until it is in
// its control group and recorded; if the NodeManager ends meanwhile, it ends too. Only the parent of a process can learn its
// exit code: after a restart of the NodeManager it is -1.
//
// It owns two folders, of containers and of state directories, and the control groups of its node.
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
	// Dir has a folder for each container: its state, its working directory, its unread output.
	Dir string
	// LogDir has the logs, also after Remove.
	LogDir string
	// StateDirs has the state directories; empty refuses specs with one.
	StateDirs string
	// Zone and Node name the control group: mammoth/ZONE/NODE/CONTAINER.
	Zone, Node string
	// Self is the program for the name "mammoth": the NodeManager's own executable.
	Self string
	// Ports is the range to lease from. Leases, shared with the node's other runtimes, replaces it if set.
	Ports  network.Range
	Leases *network.Leases
	// Unlimited runs without control groups and quotas: for tests without root.
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
	// Paths in the kernel's tables must not depend on the working directory.
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err == nil {
		c.LogDir, err = filepath.Abs(c.LogDir)
	}
	if err == nil && c.StateDirs != "" {
		c.StateDirs, err = filepath.Abs(c.StateDirs)
	}
	return err
}

// Runtime implements runtime.Runtime.
type Runtime struct {
	config    Config
	hierarchy *cgroup.Hierarchy
	watcher   *disk.Watcher
	events    runtime.Events
	// starting serialises starts: they are few, and each takes milliseconds.
	starting sync.Mutex
	// removing are the state directories that are being removed, guarded by starting. Each channel is closed at the end.
	removing map[string]chan struct{}
	// stateDirGrace is how long the processes may take to end when their state directory is removed.
	stateDirGrace time.Duration
	// supervisors are the goroutines of the running containers.
	supervisors sync.WaitGroup

	mu         sync.Mutex
	containers map[id.Container]*container
}

var _ runtime.Runtime = (*Runtime)(nil)

// New takes over what an earlier NodeManager left running. It fails with ErrFailedPrecondition without root or control
// groups, unless Unlimited. Close ends the runtime, not its containers.
func New(config Config) (*Runtime, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	r := &Runtime{config: config, stateDirGrace: stateDirGrace, containers: make(map[id.Container]*container), removing: make(map[string]chan struct{})}
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

// Close ends the supervision of the containers, which continue.
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
		// The node's own group exists as long as a container is in it, the zone's as long as a node is.
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

// Prepare implements runtime.Runtime. There is nothing to fetch: a process runs a program of the host.
func (r *Runtime) Prepare(_ context.Context, spec runtime.Spec, _ func(runtime.Progress)) error {
	if spec.Image != "" {
		return fmt.Errorf("a process runs a program of the host; the image %q cannot be used: %w", spec.Image, errdefs.ErrInvalidArgument)
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

// Logs implements runtime.Runtime. A line has the time at which the NodeManager read it, which is milliseconds late unless
// there was no NodeManager. Lines of the two streams that are read together may be out of order.
func (r *Runtime) Logs(ctx context.Context, container id.Container, options runtime.LogOptions, line func(runtime.LogLine) error) error {
	if c := r.find(container); c != nil && options.Follow && !c.hasEnded() {
		return c.log.Follow(ctx, c.ended, options, line)
	}
	if err := logs.Read(ctx, r.config.LogDir, container.String(), options, line); err != nil {
		return fmt.Errorf("container %v: %w", container, err)
	}
	return nil
}
