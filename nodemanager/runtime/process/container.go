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

// container is one process tree. Its supervisor owns it until ended is closed; mu guards what List reports of its end.
type container struct {
	runtime *Runtime
	id      id.Container
	dir     string
	// group is nil without control groups.
	group *cgroup.Group
	// pidfd identifies the process even after its number is reused.
	pidfd *os.File
	log   *logs.Log
	pump  *pump
	// ended is closed when the whole tree is gone, its output is stored and its exit is recorded.
	ended chan struct{}

	mu    sync.Mutex
	state state
	// overQuota is the message about the disk quota, once it was exceeded.
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

// attach opens the pidfd and the output of an existing process.
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

// detach closes what attach has opened, if the container is not supervised.
func (c *container) detach() error {
	return errors.Join(c.pump.close(), c.log.Close(), c.pidfd.Close())
}

// supervise waits for the container's end and completes it, in the background.
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
			c.complete()
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

// finish collects the exit of the first process and ends the rest of the tree.
func (c *container) finish() {
	exit := runtime.Exit{Code: -1, Message: "it ended, and its exit code is unknown"}
	var status unix.WaitStatus
	// Only the NodeManager that started it is its parent; for any other wait returns ECHILD.
	if pid, err := unix.Wait4(c.state.Pid, &status, unix.WNOHANG, nil); err == nil && pid == c.state.Pid {
		exit = runtime.Exit{Code: status.ExitStatus()}
		if status.Signaled() {
			exit.Code = 128 + int(status.Signal())
		}
	}
	c.killRest(exit)
}

// killRest kills the rest of the tree and records the exit.
func (c *container) killRest(exit runtime.Exit) {
	c.runtime.watcher.Remove(c.id)
	if c.group != nil {
		if kills, err := c.group.OOMKills(); err == nil && kills > 0 && exit.Code != 0 {
			exit.OOM = true
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if c.handOverProcesses() {
		// The container has ended, and the processes that it left continue.
	} else if err := c.kill(ctx); err != nil {
		c.runtime.config.Logger.Error("cannot kill processes of an ended container", "container", c.id.String(), "error", err)
	}
	if err := c.deleteGroup(); err != nil {
		c.runtime.config.Logger.Warn("cannot delete a control group", "container", c.id.String(), "error", err)
	}
	c.measureAtEnd()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.overQuota != "" {
		exit.OOM, exit.DiskQuota, exit.Message = false, true, c.overQuota
	}
	c.state.Exit, c.state.FinishedAt = &exit, time.Now()
}

// measureAtEnd measures the files of an ended container, which may have exceeded its quota after the watcher's last
// measurement. Its output is in the log, or will be. If there are more files than can be counted soon, the watcher has found them
// earlier.
func (c *container) measureAtEnd() {
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

// complete sends the end to all watchers. The exit is recorded and the output stored by then.
func (c *container) complete() {
	if err := c.store(); err != nil {
		c.runtime.config.Logger.Error("cannot record an exit", "container", c.id.String(), "error", err)
	}
	c.runtime.config.Leases.Release(c.id)
	c.mu.Lock()
	exit, at := *c.state.Exit, c.state.FinishedAt
	c.mu.Unlock()
	close(c.ended)
	c.runtime.events.Send(runtime.Event{ID: c.id, Kind: runtime.Ended, Exit: &exit, At: at})
}

// kill kills the whole tree and returns when it is gone. Without control groups it kills the process group.
func (c *container) kill(ctx context.Context) error {
	if c.group != nil {
		return c.group.Kill(ctx)
	}
	if err := unix.Kill(-c.state.Pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// end kills the whole tree, or with a state directory the first process alone.
func (c *container) end(ctx context.Context) error {
	if c.state.StateDir != "" && c.group != nil {
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
			c.runtime.config.Logger.Warn("cannot send the stop signal to a container; it is killed after its grace", "container", c.id.String(), "error", err)
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

// signal sends a signal to the first process.
func (c *container) signal(signal unix.Signal) error {
	conn, err := c.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), signal, nil, 0) })
	if errors.Is(err, os.ErrClosed) || errors.Is(sent, unix.ESRCH) {
		return nil // it has ended
	}
	return errors.Join(err, sent)
}

// measure is the disk usage of the container: its working directory, its state directory, its spools, and deleted files that
// it has open.
func (c *container) measure(context.Context) (int64, error) {
	written := []string{c.runtime.workDir(c.id), c.spool(false), c.spool(true)}
	if c.state.StateDir != "" {
		written = append(written, c.runtime.stateDir(c.state.StateDir))
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
		c.runtime.config.Logger.Error("cannot kill a container over its disk quota", "container", c.id.String(), "error", err)
	}
}
