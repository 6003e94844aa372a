package zone

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/mammoth-os/mammoth/internal/testenv"
)

// Split is a zone whose ResourceManager and NodeManager are processes of their own, as on several machines.
type Split struct {
	// Zone gives the command line; its own process is not used.
	Zone
	ResourceManager, NodeManager *Daemon
}

// Daemon is one `mammoth …` process that can be ended and run again.
type Daemon struct {
	args    []string
	options Options
	program string
	process *exec.Cmd
	done    chan error
}

// StartSplit runs a ResourceManager and one NodeManager and returns when the node is ready.
func StartSplit(ctx context.Context, programs Programs, options Options) (*Split, error) {
	address, err := testenv.FreeAddress()
	if err != nil {
		return nil, err
	}
	options.Listen, options.Nodes = address, 1
	s := &Split{Zone: Zone{Programs: programs, Options: options, Address: address}}
	s.ResourceManager = &Daemon{program: programs.Mammoth, options: options, args: []string{
		"resourcemanager", "--dir", filepath.Join(options.Dir, "resourcemanager"), "--listen", address,
	}}
	// Host network is allowed by the zone and by the node.
	if slices.Contains(options.Args, "--allow-host-network") {
		s.ResourceManager.args = append(s.ResourceManager.args, "--allow-host-network")
	}
	s.NodeManager = &Daemon{program: programs.Mammoth, options: options, args: append([]string{
		"nodemanager", "--dir", filepath.Join(options.Dir, "node-1"), "--resourcemanager", address, "--node-id", "node-1",
	}, options.Args...)}
	if err := s.ResourceManager.Start(); err != nil {
		return nil, err
	}
	if err := s.NodeManager.Start(); err != nil {
		return nil, err
	}
	return s, s.AwaitReady(ctx)
}

// AwaitReady returns when the ResourceManager answers and its node is ready.
func (z *Zone) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for !z.ready(ctx) {
		select {
		case <-ctx.Done():
			return errors.New("the zone was not ready within 60 seconds")
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// Start runs the daemon.
func (d *Daemon) Start() error {
	d.process = Command(d.options.Enter, d.program, d.args...)
	d.process.Stdout, d.process.Stderr = d.options.Output, d.options.Output
	if err := d.process.Start(); err != nil {
		return fmt.Errorf("start mammoth %s: %w", d.args[0], err)
	}
	d.done = make(chan error, 1)
	go func(process *exec.Cmd, done chan error) { done <- process.Wait() }(d.process, d.done)
	return nil
}

// Pid is the daemon's process.
func (d *Daemon) Pid() int { return d.process.Process.Pid }

// Kill ends the daemon as a crash would.
func (d *Daemon) Kill() {
	_ = d.process.Process.Kill()
	_ = ended(d.done)
}

// Interrupt ends the daemon as ctrl-C would.
func (d *Daemon) Interrupt() {
	_ = d.process.Process.Signal(syscall.SIGINT)
	select {
	case err := <-d.done:
		d.done <- err
	case <-time.After(30 * time.Second):
		d.Kill()
	}
}

// Purge ends the zone and everything that it left on the machine.
func (s *Split) Purge() error {
	s.NodeManager.Interrupt()
	s.ResourceManager.Interrupt()
	if out, err := Command(s.Options.Enter, s.Programs.Mammoth, "down", "--dir", s.Options.Dir, "--purge").CombinedOutput(); err != nil {
		return fmt.Errorf("mammoth down: %w: %s", err, out)
	}
	return nil
}
