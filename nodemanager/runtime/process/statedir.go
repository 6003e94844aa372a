package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	specs "github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/nodemanager/cgroup"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// A state directory is shared by successive containers of a companion app on a node, together with the processes that one of
// them has left in sessions of their own. When such a container ends, its remaining processes are moved from its control
// group to that of the state directory, under the same quotas, instead of being killed; the next container moves them to its
// own. So nginx continues while its companion is replaced. RemoveStateDir ends all of it.

// stateDirGrace is how long the processes may take to end when the state directory is removed.
const stateDirGrace = 5 * time.Second

func (r *Runtime) stateDir(name string) string { return filepath.Join(r.config.StateDirs, name) }

// stateGroup is the control group of processes between two containers; nil without control groups.
func (r *Runtime) stateGroup(name string) *cgroup.Group {
	if r.hierarchy == nil {
		return nil
	}
	return r.hierarchy.Open(r.stateGroupPath(name))
}

// stateGroupPath is a path that no container can have.
func (r *Runtime) stateGroupPath(name string) string {
	return filepath.Join("mammoth", r.config.Zone, r.config.Node, "state-"+name)
}

// isStateDir reports whether a text is the name of an app, or ROLE.APP.
func isStateDir(text string) bool {
	role, app, both := strings.Cut(text, ".")
	return specs.CheckName("an app", role) == nil && (!both || specs.CheckName("an app", app) == nil)
}

// openStateDir creates the state directory of a spec, owned by the user of its program.
func (r *Runtime) openStateDir(spec runtime.Spec, owner *syscall.Credential) error {
	switch {
	case spec.StateDir == "":
		return nil
	case r.config.StateDirs == "":
		return fmt.Errorf("this node has no state directories for companion apps: %w", errdefs.ErrFailedPrecondition)
	case !isStateDir(spec.StateDir):
		return fmt.Errorf("%q cannot be the name of a state directory: %w", spec.StateDir, errdefs.ErrInvalidArgument)
	}
	// Processes of other users, such as nginx's workers, must reach its files.
	err := os.MkdirAll(r.stateDir(spec.StateDir), 0o755)
	if err == nil && owner != nil {
		err = os.Chown(r.stateDir(spec.StateDir), int(owner.Uid), int(owner.Gid))
	}
	return err
}

// takeOverProcesses moves the processes of the state directory to the container's own group. A failure only affects the
// accounting and is logged.
func (c *container) takeOverProcesses() {
	if c.state.StateDir == "" || c.group == nil {
		return
	}
	group := c.runtime.stateGroup(c.state.StateDir)
	if err := errors.Join(move(group, c.group), group.Delete()); err != nil {
		c.runtime.config.Logger.Warn("cannot take over the processes of a state directory", "container", c.id.String(), "directory", c.state.StateDir, "error", err)
	}
}

// handOverProcesses moves the container's remaining processes to the state directory, and reports whether it could.
func (c *container) handOverProcesses() bool {
	if c.state.StateDir == "" || c.group == nil {
		return false
	}
	limits, err := c.group.Limits()
	if err != nil {
		return false
	}
	group, err := c.runtime.hierarchy.Create(c.runtime.stateGroupPath(c.state.StateDir), limits)
	if err == nil {
		err = move(c.group, group)
	}
	if err != nil {
		c.runtime.config.Logger.Error("cannot keep the remaining processes of a container; they are ended with it", "container", c.id.String(), "directory", c.state.StateDir, "error", err)
		return false
	}
	if left, err := group.Pids(); err == nil && len(left) == 0 {
		_ = group.Delete()
	}
	return true
}

// moveTimeout is how long new processes may start, or old ones take to end, while a group is moved.
const moveTimeout = 10 * time.Second

// move moves every process of a group to another, including new ones.
func move(from, to *cgroup.Group) error {
	for round, began := 0, time.Now(); ; round++ {
		members, err := from.Pids()
		if err != nil || len(members) == 0 {
			return err
		}
		if round > 2 {
			if time.Since(began) > moveTimeout {
				return fmt.Errorf("new processes start faster than they can be moved: %w", errdefs.ErrUnavailable)
			}
			time.Sleep(time.Millisecond) // a dying process cannot be moved, and is gone once it gets the processor
		}
		for _, pid := range members {
			if err := to.Add(pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("move process %d: %w", pid, err)
			}
		}
	}
}

// StateDirs lists the existing state directories.
func (r *Runtime) StateDirs() ([]string, error) {
	entries, err := os.ReadDir(r.config.StateDirs)
	if errors.Is(err, fs.ErrNotExist) || r.config.StateDirs == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if isStateDir(entry.Name()) {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// RemoveStateDir ends the processes of a state directory and deletes it. It fails with ErrFailedPrecondition while a
// container uses it. It may be repeated.
func (r *Runtime) RemoveStateDir(ctx context.Context, name string) error {
	if !isStateDir(name) {
		return fmt.Errorf("%q cannot be the name of a state directory: %w", name, errdefs.ErrInvalidArgument)
	}
	if err := r.lockStart(ctx, name); err != nil {
		return err
	}
	if c := r.occupant(name); c != nil {
		r.starting.Unlock()
		return fmt.Errorf("container %v runs in %s: %w", c.id, name, errdefs.ErrFailedPrecondition)
	}
	over := make(chan struct{})
	r.removing[name] = over
	r.starting.Unlock()
	err := r.clearStateDir(ctx, name)
	r.starting.Lock()
	delete(r.removing, name)
	r.starting.Unlock()
	close(over)
	return err
}

// lockStart locks starting, after any removal of the state directory has ended.
func (r *Runtime) lockStart(ctx context.Context, name string) error {
	for ctx.Err() == nil {
		r.starting.Lock()
		over := r.removing[name]
		if over == nil {
			return nil
		}
		r.starting.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
		}
	}
	return context.Cause(ctx)
}

// occupant is the container that uses a state directory; nil if none does.
func (r *Runtime) occupant(name string) *container {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.state.StateDir == name && !c.hasEnded() {
			return c
		}
	}
	return nil
}

// clearStateDir ends the processes of a state directory, then deletes it.
func (r *Runtime) clearStateDir(ctx context.Context, name string) error {
	if group := r.stateGroup(name); group == nil {
		r.endStrays(name)
	} else if err := endGroup(ctx, group, r.stateDirGrace); err != nil {
		return fmt.Errorf("end what was left running in %s: %w", name, err)
	}
	return os.RemoveAll(r.stateDir(name))
}

// endStrays kills, without control groups, the processes whose working directory is the state directory, where daemons go.
func (r *Runtime) endStrays(name string) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		where, err := os.Readlink(link)
		pid, numberErr := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err == nil && numberErr == nil && where == r.stateDir(name) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// endGroup sends SIGTERM to the processes of a group, then kills them, then deletes the group.
func endGroup(ctx context.Context, group *cgroup.Group, grace time.Duration) error {
	if err := group.Signal(unix.SIGTERM); err != nil {
		return err
	}
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(grace); time.Now().Before(deadline); {
		members, err := group.Pids()
		if err != nil {
			return err
		}
		if len(members) == 0 {
			break
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return errors.Join(group.Kill(ctx), group.Delete())
}
