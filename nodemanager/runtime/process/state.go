package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/notes"
	"github.com/mammoth-os/mammoth/nodemanager/logs"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// state is the record of a container. The environment is not in it: the kernel has it as long as it is needed.
type state struct {
	ID      string            `json:"id"`
	AppName string            `json:"appName"`
	Attempt int32             `json:"attempt"`
	Labels  map[string]string `json:"labels,omitempty"`
	Ports   []runtime.Port    `json:"ports,omitempty"`
	User    string            `json:"user,omitempty"`
	// StateDir is its state directory; may be empty.
	StateDir string `json:"stateDir,omitempty"`
	// StopSignal is the signal of a stop; zero is SIGTERM.
	StopSignal int `json:"stopSignal,omitempty"`
	// DiskBytes is the quota.
	DiskBytes  int64  `json:"diskBytes"`
	WorkingDir string `json:"workingDir"`
	// Pid, StartTicks and BootID together identify one process.
	Pid        int           `json:"pid"`
	StartTicks uint64        `json:"startTicks"`
	BootID     string        `json:"bootId"`
	StartedAt  time.Time     `json:"startedAt"`
	FinishedAt time.Time     `json:"finishedAt,omitzero"`
	Exit       *runtime.Exit `json:"exit,omitempty"`
}

func (s *state) runtimeID() string { return fmt.Sprintf("%d-%d", s.Pid, s.StartTicks) }

// store writes the record atomically.
func (c *container) store() error {
	c.mu.Lock()
	// The monotonic clock is not in the file and must not be compared before either.
	c.state.StartedAt, c.state.FinishedAt = c.state.StartedAt.Round(0), c.state.FinishedAt.Round(0)
	text, err := notes.Seal(&c.state)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	path := filepath.Join(c.dir, "state.json")
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// recover reads every record and takes over what still runs.
func (r *Runtime) recover() error {
	entries, err := os.ReadDir(r.config.Dir)
	if err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	for _, entry := range entries {
		container, err := id.ParseContainer(entry.Name())
		if err != nil {
			continue // not a container
		}
		if err := r.reattach(container, boot); err != nil {
			return fmt.Errorf("container %v: %w", container, err)
		}
	}
	return nil
}

func (r *Runtime) reattach(key id.Container, boot string) error {
	c := &container{runtime: r, id: key, dir: r.dir(key), ended: make(chan struct{})}
	if r.hierarchy != nil {
		c.group = r.hierarchy.Open(r.groupPath(key))
	}
	text, err := os.ReadFile(filepath.Join(c.dir, "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		// It was starting when the NodeManager was killed, and ended with it before its first instruction.
		if err := c.clear(); err != nil {
			return err
		}
		return os.RemoveAll(c.dir)
	}
	if err != nil {
		return err
	}
	r.containers[key] = c
	if notes.Unseal(text, &c.state) != nil {
		// The process is unknown, so everything in its group is ended.
		c.state = state{ID: key.String()}
		return r.recordVanished(c, "its record on the node was damaged")
	}
	if c.state.Exit != nil {
		close(c.ended)
		return nil
	}
	ticks, err := startTicks(c.state.Pid)
	alive := err == nil && ticks == c.state.StartTicks && boot == c.state.BootID
	if alive {
		err := c.attach()
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("take over container %s: %w", key, err)
		}
		alive = err == nil
	}
	if !alive {
		return r.recordVanished(c, "it ended while its NodeManager was not running")
	}
	for _, port := range c.state.Ports {
		r.config.Leases.Hold(key, port.Host)
	}
	c.takeOverProcesses() // the NodeManager may have been killed before that
	c.supervise()
	return nil
}

// clear ends the group of a container that never started.
func (c *container) clear() error {
	if c.group == nil {
		return nil
	}
	return errors.Join(c.group.Kill(context.Background()), c.group.Delete())
}

// recordVanished records the unobserved end of a process.
func (r *Runtime) recordVanished(c *container, why string) error {
	if c.group == nil {
		// Without a control group the process number may belong to another process by now.
		c.state.Pid = 0
	}
	if err := c.drainOutput(); err != nil {
		return err
	}
	if c.group == nil {
		c.state.Exit, c.state.FinishedAt = &runtime.Exit{Code: -1}, time.Now()
	} else {
		c.killRest(runtime.Exit{Code: -1})
	}
	c.state.Exit.Message = why
	c.complete()
	return nil
}

// drainOutput moves a container's last output from its spools to its log.
func (c *container) drainOutput() error {
	log, err := logs.Open(c.runtime.config.LogDir, c.id.String(), 0)
	if err != nil {
		return err
	}
	for _, stderr := range []bool{false, true} {
		spool, open := logs.OpenSpool(c.spool(stderr), stderr)
		if open == nil {
			open = errors.Join(spool.Transfer(log, time.Now(), true), spool.Close())
		}
		err = errors.Join(err, open)
	}
	return errors.Join(err, log.Close())
}

// bootID is different after every boot.
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
}

// startTicks is when a process was started, in clock ticks since boot: the 22nd field of /proc/PID/stat.
func startTicks(pid int) (uint64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return parseStartTicks(text)
}

func parseStartTicks(stat []byte) (uint64, error) {
	// The second field, the name, is in parentheses and may contain anything, also parentheses.
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	if end < 0 || len(fields) < 20 {
		return 0, fmt.Errorf("not a process's stat: %.40q", stat)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
