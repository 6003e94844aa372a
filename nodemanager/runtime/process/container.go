package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/cgroup"
	"github.com/mammoth-os/mammoth/nodemanager/disk"
	"github.com/mammoth-os/mammoth/nodemanager/logs"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// container is one process tree. Until ended is closed its supervisor owns it; what List tells of its end is
// guarded by mu.
type container struct {
	runtime *Runtime
	id      id.Container
	dir     string
	// group is nil without control groups.
	group *cgroup.Group
	// pidfd names the process even after its number is given to another.
	pidfd *os.File
	log   *logs.Log
	pump  *pump
	// ended is closed when the whole tree is gone, its output is kept and its exit is written down.
	ended chan struct{}

	mu    sync.Mutex
	state state
	// overQuota is the sentence of the disk quota, once it was exceeded.
	overQuota string
}

func (c *container) spool(stderr bool) string {
	if stderr {
		return filepath.Join(c.dir, "stderr")
	}
	return filepath.Join(c.dir, "stdout")
}

func (c *container) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

func (c *container) view() runtime.Container {
	c.mu.Lock()
	defer c.mu.Unlock()
	view := runtime.Container{
		ID: c.id, RuntimeID: c.state.runtimeID(), AppName: c.state.AppName, Attempt: c.state.Attempt,
		Labels: maps.Clone(c.state.Labels), Running: c.state.Exit == nil, Ports: slices.Clone(c.state.Ports),
		StartedAt: c.state.StartedAt, FinishedAt: c.state.FinishedAt,
	}
	if view.Running {
		view.Pid = c.state.Pid
		view.Address = "127.0.0.1"
	} else {
		exit := *c.state.Exit
		view.Exit = &exit
	}
	return view
}

// attach takes hold of a process that is there: its descriptor and its output.
func (c *container) attach() (err error) {
	fd, err := unix.PidfdOpen(c.state.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("process %d: %w", c.state.Pid, err)
	}
	c.pidfd = os.NewFile(uintptr(fd), "pidfd")
	if c.log, err = logs.Open(c.runtime.config.LogDir, c.id.String(), 0); err != nil {
		return errors.Join(err, c.pidfd.Close())
	}
	if c.pump, err = openPump(c); err != nil {
		return errors.Join(err, c.log.Close(), c.pidfd.Close())
	}
	return nil
}

// supervise sees a container through to its end, in the background.
func (c *container) supervise() {
	if c.state.DiskBytes > 0 {
		c.runtime.watcher.Add(disk.Subject{ID: c.id, Quota: c.state.DiskBytes, Measure: c.measure, Exceeded: c.exceeded})
	}
	c.runtime.supervisors.Go(c.pump.run)
	c.runtime.supervisors.Go(func() {
		abandoned := c.await() != nil
		if !abandoned {
			c.finish()
		}
		c.pump.stop(!abandoned)
		if !abandoned {
			c.conclude()
		}
		_ = c.pidfd.Close()
		_ = c.log.Close()
	})
}

// await returns when the first process has ended, with an error when the runtime is closed before.
func (c *container) await() error {
	conn, err := c.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		return err == nil && n > 0
	})
}

// abandon ends the supervision, not the process.
func (c *container) abandon() {
	if c.pidfd != nil {
		_ = c.pidfd.Close()
	}
}

// finish takes the exit of the first process and ends the rest of the tree.
func (c *container) finish() {
	exit := runtime.Exit{Code: -1, Message: "it ended while its exit code could not be learned"}
	var status unix.WaitStatus
	// Only the NodeManager that started it is its parent; any other gets ECHILD.
	if pid, err := unix.Wait4(c.state.Pid, &status, unix.WNOHANG, nil); err == nil && pid == c.state.Pid {
		exit = runtime.Exit{Code: status.ExitStatus()}
		if status.Signaled() {
			exit.Code = 128 + int(status.Signal())
		}
	}
	c.settle(exit)
}

// settle kills what is left of the tree and records the exit.
func (c *container) settle(exit runtime.Exit) {
	c.runtime.watcher.Remove(c.id)
	if c.group != nil {
		if kills, err := c.group.OOMKills(); err == nil && kills > 0 && exit.Code != 0 {
			exit.OOM = true
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if c.leave() {
		// The container has ended, and what it has left serves on.
	} else if err := c.kill(ctx); err != nil {
		c.runtime.config.Logger.Error("processes of an ended container cannot be killed", "container", c.id.String(), "error", err)
	}
	if err := c.deleteGroup(); err != nil {
		c.runtime.config.Logger.Warn("control group not deleted", "container", c.id.String(), "error", err)
	}
	c.lastLook()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.overQuota != "" {
		exit.OOM, exit.DiskQuota, exit.Message = false, true, c.overQuota
	}
	c.state.Exit, c.state.FinishedAt = &exit, time.Now()
}

// lastLook measures the files that an ended container has left behind: it may have written them between two looks of
// the watcher. What it printed is in its log by now, or on the way there. Who leaves more files than can be counted soon has written
// for long enough to be found by the watcher.
func (c *container) lastLook() {
	c.mu.Lock()
	settled := c.state.DiskBytes <= 0 || c.overQuota != ""
	c.mu.Unlock()
	if settled {
		return
	}
	if used, err := disk.UsageSoon(c.runtime.workDir(c.id)); err == nil && used > c.state.DiskBytes {
		c.mu.Lock()
		c.overQuota = disk.Exceeded(used, c.state.DiskBytes)
		c.mu.Unlock()
	}
}

// conclude tells everybody. The exit is written down and the output kept by then.
func (c *container) conclude() {
	if err := c.store(); err != nil {
		c.runtime.config.Logger.Error("exit not written down", "container", c.id.String(), "error", err)
	}
	c.runtime.config.Leases.Release(c.id)
	c.mu.Lock()
	exit, at := *c.state.Exit, c.state.FinishedAt
	c.mu.Unlock()
	close(c.ended)
	c.runtime.events.Send(runtime.Event{ID: c.id, Kind: runtime.Ended, Exit: &exit, At: at})
}

// kill kills the whole tree and returns when it is gone. Without control groups that is the process group.
func (c *container) kill(ctx context.Context) error {
	if c.group != nil {
		return c.group.Kill(ctx)
	}
	if err := unix.Kill(-c.state.Pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// end kills what makes it a running container: the whole tree, or in a place the first process alone.
func (c *container) end(ctx context.Context) error {
	if c.state.Place != "" && c.group != nil {
		return c.signal(unix.SIGKILL)
	}
	return c.kill(ctx)
}

func (c *container) deleteGroup() error {
	if c.group == nil {
		return nil
	}
	return c.group.Delete()
}

func (c *container) stop(ctx context.Context, grace time.Duration) error {
	if c.hasEnded() {
		return nil
	}
	if grace > 0 {
		if err := c.signal(unix.Signal(cmp.Or(c.state.StopSignal, int(unix.SIGTERM)))); err != nil {
			c.runtime.config.Logger.Warn("a container cannot be asked to end; it is killed after its grace", "container", c.id.String(), "error", err)
		}
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-c.ended:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
	if err := c.end(ctx); err != nil {
		return err
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// signal sends to the first process.
func (c *container) signal(signal unix.Signal) error {
	conn, err := c.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), signal, nil, 0) })
	if errors.Is(err, os.ErrClosed) || errors.Is(sent, unix.ESRCH) {
		return nil // it has just ended
	}
	return errors.Join(err, sent)
}

// measure is what the container has written: its working directory, the folder of its place, what waits in the spool, and files that it
// has deleted and holds open.
func (c *container) measure(context.Context) (int64, error) {
	written := []string{c.runtime.workDir(c.id), c.spool(false), c.spool(true)}
	if c.state.Place != "" {
		written = append(written, c.runtime.placeDir(c.state.Place))
	}
	used, err := disk.Usage(written...)
	if err != nil || c.group == nil {
		return used, err
	}
	members, err := c.group.Pids()
	return used + disk.Deleted(members), err
}

func (c *container) exceeded(ctx context.Context, used int64) {
	c.mu.Lock()
	c.overQuota = disk.Exceeded(used, c.state.DiskBytes)
	c.mu.Unlock()
	if err := c.kill(ctx); err != nil {
		c.runtime.config.Logger.Error("container over its disk quota cannot be killed", "container", c.id.String(), "error", err)
	}
}
