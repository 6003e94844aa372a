package process

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/signal"
	"github.com/mammoth-os/mammoth/nodemanager/cgroup"
	"github.com/mammoth-os/mammoth/nodemanager/logs"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// defaultPath is the PATH of a process whose spec sets none. The program itself is found by the NodeManager's.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Start implements runtime.Runtime. A process always has the host's network: its ports are leased.
func (r *Runtime) Start(ctx context.Context, spec runtime.Spec) (runtime.Container, error) {
	if err := r.lockStart(ctx, spec.StateDir); err != nil {
		return runtime.Container{}, err
	}
	defer r.starting.Unlock()
	if c := r.find(spec.ID); c != nil {
		return c.view(), nil
	}
	c, err := r.start(spec)
	if err != nil {
		r.config.Leases.Release(spec.ID)
		return runtime.Container{}, errors.Join(err, os.RemoveAll(r.dir(spec.ID)), logs.Delete(r.config.LogDir, spec.ID.String()))
	}
	return c.view(), nil
}

func (r *Runtime) start(spec runtime.Spec) (*container, error) {
	spec.Network = runtime.Host
	program, err := r.program(spec)
	if err != nil {
		return nil, err
	}
	stopSignal := 0
	if spec.StopSignal != "" {
		if stopSignal, err = signal.Number(spec.StopSignal); err != nil {
			return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	owner, err := credential(spec.User)
	if err != nil {
		return nil, err
	}
	if err := r.openStateDir(spec, owner); err != nil {
		return nil, err
	}
	hosts, err := r.config.Leases.Lease(spec.ID, len(spec.Ports))
	if err != nil {
		return nil, err
	}
	ports := slices.Clone(spec.Ports)
	for i := range ports {
		ports[i].Host = hosts[i]
	}
	if err := makeDirs(r.dir(spec.ID), r.workDir(spec.ID), owner); err != nil {
		return nil, err
	}
	c := &container{
		runtime: r, dir: r.dir(spec.ID), ended: make(chan struct{}),
		state: state{
			ID: spec.ID.String(), AppName: spec.AppName, Attempt: spec.Attempt, Labels: maps.Clone(spec.Labels),
			Ports: ports, User: spec.User, StateDir: spec.StateDir, StopSignal: stopSignal, DiskBytes: spec.DiskBytes, WorkingDir: r.workDir(spec.ID),
		},
		id: spec.ID,
	}
	if filepath.IsAbs(spec.WorkingDir) {
		c.state.WorkingDir = spec.WorkingDir
	}
	if r.hierarchy != nil {
		limits := cgroup.Limits{CPUMillis: spec.CPUMillis, MemoryBytes: spec.MemoryBytes, Pids: spec.Pids}
		if c.group, err = r.hierarchy.Create(r.groupPath(spec.ID), limits); err != nil {
			return nil, err
		}
	}
	if err := c.launch(program, spec, owner); err != nil {
		return nil, errors.Join(err, c.deleteGroup())
	}
	c.takeOverProcesses()
	r.mu.Lock()
	r.containers[spec.ID] = c
	r.mu.Unlock()
	r.events.Send(runtime.Event{ID: spec.ID, Kind: runtime.Started, At: c.state.StartedAt})
	c.supervise()
	return c, nil
}

func (r *Runtime) groupPath(container id.Container) string {
	return filepath.Join("mammoth", r.config.Zone, r.config.Node, container.String())
}

// program is the path and the arguments of a spec's program.
func (r *Runtime) program(spec runtime.Spec) ([]string, error) {
	words := append(slices.Clone(spec.Command), spec.Args...)
	switch {
	case len(words) == 0:
		return nil, fmt.Errorf("no command to run: %w", errdefs.ErrInvalidArgument)
	case spec.ReadOnlyRoot:
		return nil, fmt.Errorf("a process cannot have a read-only root: %w", errdefs.ErrInvalidArgument)
	case words[0] == "mammoth" && r.config.Self != "":
		words[0] = r.config.Self
	case strings.HasPrefix(words[0], "./"):
		words[0] = filepath.Join(r.workDir(spec.ID), words[0])
	}
	path, err := exec.LookPath(words[0])
	if err != nil {
		var why *exec.Error
		if errors.As(err, &why) {
			err = why.Err
		}
		return nil, fmt.Errorf("cannot run %s (%w): %w", words[0], err, errdefs.ErrInvalidArgument)
	}
	words[0] = path
	return words, nil
}

// credential resolves "user", "uid" or "uid:gid" on this host; nil is the NodeManager's own.
func credential(name string) (*syscall.Credential, error) {
	if name == "" {
		return nil, nil
	}
	unknown := fmt.Errorf("there is no user %q on this host: %w", name, errdefs.ErrInvalidArgument)
	uid, gid, pair := strings.Cut(name, ":")
	if u, err := user.Lookup(uid); err == nil {
		uid = u.Uid
		if !pair {
			gid = u.Gid
		}
	} else if u, err := user.LookupId(uid); err == nil && !pair {
		gid = u.Gid
	}
	if g, err := user.LookupGroup(gid); err == nil {
		gid = g.Gid
	}
	if gid == "" {
		gid = uid
	}
	u, err := strconv.ParseUint(uid, 10, 32)
	g, err2 := strconv.ParseUint(gid, 10, 32)
	if err != nil || err2 != nil {
		return nil, unknown
	}
	return &syscall.Credential{Uid: uint32(u), Gid: uint32(g)}, nil
}

func makeDirs(dir, work string, owner *syscall.Credential) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if err := os.MkdirAll(work, 0o750); err != nil {
		return err
	}
	if owner == nil {
		return nil
	}
	return os.Chown(work, int(owner.Uid), int(owner.Gid))
}

// launch starts the program, stopped before its first instruction until it is in its group and recorded.
func (c *container) launch(program []string, spec runtime.Spec, owner *syscall.Credential) error {
	files := []*os.File{nil, nil, nil}
	defer func() {
		for _, file := range files {
			if file != nil {
				_ = file.Close()
			}
		}
	}()
	for i, name := range []string{os.DevNull, c.spool(false), c.spool(true)} {
		flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
		if i == 0 {
			flags = os.O_RDONLY
		}
		file, err := os.OpenFile(name, flags, 0o640)
		if err != nil {
			return err
		}
		files[i] = file
	}
	env := runtime.Environment(spec, c.state.Ports)
	if _, ok := spec.Env["PATH"]; !ok {
		env = append(env, "PATH="+defaultPath)
	}
	if spec.StateDir != "" {
		env = append(env, "MAMMOTH_STATE="+c.runtime.stateDir(spec.StateDir))
	}
	attributes := &os.ProcAttr{
		Dir: c.state.WorkingDir, Env: env, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: owner},
	}
	var process *os.Process
	return startTraced(
		func() (pid int, err error) {
			attributes.Sys.Ptrace = true
			if process, err = os.StartProcess(program[0], program, attributes); err != nil {
				return 0, fmt.Errorf("cannot run %s (%w): %w", program[0], err, errdefs.ErrInvalidArgument)
			}
			pid = process.Pid
			return pid, process.Release()
		},
		func(pid int) error {
			if c.group != nil {
				if err := c.group.Add(pid); err != nil {
					return err
				}
			}
			ticks, err := startTicks(pid)
			if err != nil {
				return err
			}
			boot, err := bootID()
			if err != nil {
				return err
			}
			c.state.Pid, c.state.StartTicks, c.state.BootID, c.state.StartedAt = pid, ticks, boot, time.Now()
			if err := c.attach(); err != nil {
				return err
			}
			if err := c.store(); err != nil {
				return errors.Join(err, c.detach())
			}
			return nil
		})
}
