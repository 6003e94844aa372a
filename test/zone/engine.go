package zone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mammoth-os/mammoth/internal/testenv"
)

// Engine is a Docker Engine of its own, in a network namespace of its own, beside whatever the machine runs. Tests
// stop it, start it and give it a file system that enforces quotas.
type Engine struct {
	// Socket is its unix socket.
	Socket string
	// Enter is the command prefix into its network namespace: nothing outside reaches its ports.
	Enter   []string
	dir     string
	name    string
	mounted string
	process *exec.Cmd
	done    chan error
	output  io.Writer
}

// NewEngine makes the namespace and a folder; with btrfs, the engine's data lies on a loop-mounted btrfs of 2 GiB, on
// which the engine enforces disk quotas itself.
func NewEngine(btrfs bool, output io.Writer) (*Engine, error) {
	// Not a test's own folder: the engine's sockets lie below it, and a socket's path has at most 107 bytes.
	dir, err := os.MkdirTemp("", "engine-")
	if err != nil {
		return nil, err
	}
	e := &Engine{dir: dir, name: fmt.Sprintf("mammoth-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6), output: output}
	e.Socket = filepath.Join(dir, "docker.sock")
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o755); err != nil {
		return nil, err
	}
	if btrfs {
		data := filepath.Join(dir, "data")
		if err := testenv.MountBtrfs(filepath.Join(dir, "btrfs.img"), "2G", data); err != nil {
			return nil, err
		}
		e.mounted = data
	}
	if err := run("ip", "netns", "add", e.name); err != nil {
		return nil, errors.Join(err, e.unmount())
	}
	// `ip netns exec` would hide the cgroup mounts; nsenter into the network namespace alone does not.
	e.Enter = []string{"nsenter", "--net=/var/run/netns/" + e.name}
	if err := e.In("ip", "link", "set", "lo", "up"); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// In runs a command in the engine's network namespace.
func (e *Engine) In(program string, args ...string) error {
	if out, err := Command(e.Enter, program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return nil
}

// Start starts the engine and returns when it answers.
func (e *Engine) Start(ctx context.Context) error {
	e.process = Command(e.Enter, "dockerd",
		"--host", "unix://"+e.Socket,
		"--data-root", filepath.Join(e.dir, "data"),
		"--exec-root", filepath.Join(e.dir, "exec"),
		"--pidfile", filepath.Join(e.dir, "docker.pid"),
		"--cgroup-parent", "/"+e.name)
	e.process.Stdout, e.process.Stderr = e.output, e.output
	if err := e.process.Start(); err != nil {
		return fmt.Errorf("start an engine: %w", err)
	}
	e.done = make(chan error, 1)
	go func(process *exec.Cmd, done chan error) { done <- process.Wait() }(e.process, e.done)
	for range 600 {
		select {
		case err := <-e.done:
			e.done <- err
			return fmt.Errorf("the engine ended before it answered: %v", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
		if conn, err := net.Dial("unix", e.Socket); err == nil {
			_ = conn.Close()
			if Command(nil, "docker", "--host", "unix://"+e.Socket, "info").Run() == nil {
				return nil
			}
		}
	}
	return errors.New("the engine did not answer within 30 seconds")
}

// Stop ends the engine, and with it its containers.
func (e *Engine) Stop() {
	if e.process == nil {
		return
	}
	_ = e.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.done:
	case <-time.After(30 * time.Second):
		_ = e.process.Process.Kill()
		<-e.done
	}
	e.process = nil
}

// Close ends the engine and takes away everything that NewEngine made.
func (e *Engine) Close() error {
	e.Stop()
	err := errors.Join(testenv.EndShims(e.dir), run("ip", "netns", "del", e.name), e.unmount(), testenv.RemoveGroups(e.name))
	if err != nil {
		return err
	}
	return errors.Join(e.unmountBelow(), os.RemoveAll(e.dir))
}

// unmountBelow takes away what is still mounted below the folder: an engine that ends in the removal of a container leaves the
// container's file system there.
func (e *Engine) unmountBelow() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if words := strings.Fields(line); len(words) > 1 && strings.HasPrefix(words[1], e.dir+"/") {
			err = errors.Join(err, run("umount", "-l", words[1]))
		}
	}
	return err
}

func (e *Engine) unmount() error {
	if e.mounted == "" {
		return nil
	}
	return run("umount", "-l", e.mounted)
}

func run(program string, args ...string) error {
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return nil
}
