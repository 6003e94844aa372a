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

// A place is what containers that follow one another on a node share: a folder, and the processes that one of them
// has left in sessions of their own. When such a container ends, what it left is moved out of its control group into
// that of the place, under the same quotas, instead of being killed; the next container takes it into its own. So
// an nginx goes on serving while its companion is exchanged. EndPlace ends all of it.

// placeGrace is how long processes that are left may take to end when their place does.
const placeGrace = 5 * time.Second

func (r *Runtime) placeDir(place string) string { return filepath.Join(r.config.Places, place) }

// placeGroup is the group of what waits for the next container; nil without control groups.
func (r *Runtime) placeGroup(place string) *cgroup.Group {
	if r.hierarchy == nil {
		return nil
	}
	return r.hierarchy.Open(r.placePath(place))
}

// placePath has no name that a container could have.
func (r *Runtime) placePath(place string) string {
	return filepath.Join("mammoth", r.config.Zone, r.config.Node, "place-"+place)
}

// isPlace reports whether a text is the name of an app, or ROLE.APP.
func isPlace(text string) bool {
	role, app, both := strings.Cut(text, ".")
	return specs.CheckName("an app", role) == nil && (!both || specs.CheckName("an app", app) == nil)
}

// openPlace makes the folder of a spec's place, which is the user's whose program runs there.
func (r *Runtime) openPlace(spec runtime.Spec, owner *syscall.Credential) error {
	switch {
	case spec.Place == "":
		return nil
	case r.config.Places == "":
		return fmt.Errorf("this node keeps no places for system components: %w", errdefs.ErrFailedPrecondition)
	case !isPlace(spec.Place):
		return fmt.Errorf("%q cannot be the name of a place: %w", spec.Place, errdefs.ErrInvalidArgument)
	}
	// Whoever runs there as another user, as nginx's workers do, has to reach its files.
	err := os.MkdirAll(r.placeDir(spec.Place), 0o755)
	if err == nil && owner != nil {
		err = os.Chown(r.placeDir(spec.Place), int(owner.Uid), int(owner.Gid))
	}
	return err
}

// adopt takes what waits in the container's place into its own group. A failure costs the accounting, not the
// processes, and is only logged.
func (c *container) adopt() {
	if c.state.Place == "" || c.group == nil {
		return
	}
	group := c.runtime.placeGroup(c.state.Place)
	if err := errors.Join(move(group, c.group), group.Delete()); err != nil {
		c.runtime.config.Logger.Warn("what was left running could not be taken over", "container", c.id.String(), "place", c.state.Place, "error", err)
	}
}

// leave moves what the container leaves running into its place, and reports whether it could.
func (c *container) leave() bool {
	if c.state.Place == "" || c.group == nil {
		return false
	}
	limits, err := c.group.Limits()
	if err != nil {
		return false
	}
	group, err := c.runtime.hierarchy.Create(c.runtime.placePath(c.state.Place), limits)
	if err == nil {
		err = move(c.group, group)
	}
	if err != nil {
		c.runtime.config.Logger.Error("what the container has left running is ended with it", "container", c.id.String(), "place", c.state.Place, "error", err)
		return false
	}
	if left, err := group.Pids(); err == nil && len(left) == 0 {
		_ = group.Delete()
	}
	return true
}

// move moves every process of a group to another; those that are born meanwhile, too.
func move(from, to *cgroup.Group) error {
	for round := range 300 {
		members, err := from.Pids()
		if err != nil || len(members) == 0 {
			return err
		}
		if round > 2 {
			time.Sleep(time.Millisecond) // what is dying cannot be moved, and is gone soon
		}
		for _, pid := range members {
			if err := to.Add(pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("move process %d: %w", pid, err)
			}
		}
	}
	return fmt.Errorf("processes are born faster than they can be moved: %w", errdefs.ErrUnavailable)
}

// Places are the places that are there.
func (r *Runtime) Places() ([]string, error) {
	entries, err := os.ReadDir(r.config.Places)
	if errors.Is(err, fs.ErrNotExist) || r.config.Places == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var places []string
	for _, entry := range entries {
		if isPlace(entry.Name()) {
			places = append(places, entry.Name())
		}
	}
	return places, nil
}

// EndPlace ends what waits in a place and deletes its folder. ErrFailedPrecondition while a container is there. One
// that does not exist is not an error.
func (r *Runtime) EndPlace(ctx context.Context, place string) error {
	if !isPlace(place) {
		return fmt.Errorf("%q cannot be the name of a place: %w", place, errdefs.ErrInvalidArgument)
	}
	if err := r.enter(ctx, place); err != nil {
		return err
	}
	if c := r.inPlace(place); c != nil {
		r.starting.Unlock()
		return fmt.Errorf("container %v runs in %s: %w", c.id, place, errdefs.ErrFailedPrecondition)
	}
	over := make(chan struct{})
	r.ending[place] = over
	r.starting.Unlock()
	err := r.clearPlace(ctx, place)
	r.starting.Lock()
	delete(r.ending, place)
	r.starting.Unlock()
	close(over)
	return err
}

// enter locks starting, once nobody is ending the place.
func (r *Runtime) enter(ctx context.Context, place string) error {
	for ctx.Err() == nil {
		r.starting.Lock()
		over := r.ending[place]
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

// inPlace is the container that runs in a place; nil if none does.
func (r *Runtime) inPlace(place string) *container {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.state.Place == place && !c.hasEnded() {
			return c
		}
	}
	return nil
}

// clearPlace ends what waits in a place, then deletes its folder.
func (r *Runtime) clearPlace(ctx context.Context, place string) error {
	if group := r.placeGroup(place); group == nil {
		r.endStrays(place)
	} else if err := endGroup(ctx, group); err != nil {
		return fmt.Errorf("end what was left running in %s: %w", place, err)
	}
	return os.RemoveAll(r.placeDir(place))
}

// endStrays kills, without control groups, the processes that work in a place's folder, which is where daemons go.
func (r *Runtime) endStrays(place string) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		where, err := os.Readlink(link)
		pid, numberErr := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err == nil && numberErr == nil && where == r.placeDir(place) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// endGroup asks the processes of a group to end, then kills them, then deletes the group.
func endGroup(ctx context.Context, group *cgroup.Group) error {
	if err := group.Signal(unix.SIGTERM); err != nil {
		return err
	}
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(placeGrace); time.Now().Before(deadline); {
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
