// Package zone runs real zones for tests and benchmarks: the built binary, in processes of its own, on loopback
// ports and folders of its own, ended when its owner says so.
package zone

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mammoth-os/mammoth/internal/testenv"
)

// Programs are the binaries that tests run, built once.
type Programs struct {
	// Mammoth is the one binary.
	Mammoth string
	// Hello and Hello2 are the example app in versions 1 and 2, packed.
	Hello, Hello2 string
	// HelloBinary is the example app as a program.
	HelloBinary string
}

// Build builds everything into dir from the repository at root.
func Build(ctx context.Context, root, dir string) (Programs, error) {
	p := Programs{
		Mammoth:     filepath.Join(dir, "mammoth"),
		Hello:       filepath.Join(dir, "hello.image"),
		Hello2:      filepath.Join(dir, "hello2.image"),
		HelloBinary: filepath.Join(dir, "hello"),
	}
	build := func(out, pkg, ldflags string) error {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", ldflags, "-o", out, pkg)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", pkg, err, text)
		}
		return nil
	}
	if err := build(p.Mammoth, "./cmd/mammoth", "-s -w"); err != nil {
		return p, err
	}
	for version, image := range map[string]string{"1": p.Hello, "2": p.Hello2} {
		folder := filepath.Join(dir, "v"+version)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return p, err
		}
		binary := filepath.Join(folder, "hello")
		if err := build(binary, "./examples/hello", "-s -w -X main.version="+version); err != nil {
			return p, err
		}
		if text, err := exec.CommandContext(ctx, p.Mammoth, "image", "pack", binary, "-o", image, "--port", "8080").CombinedOutput(); err != nil {
			return p, fmt.Errorf("pack %s: %w: %s", binary, err, text)
		}
	}
	p.HelloBinary = filepath.Join(dir, "v1", "hello")
	return p, nil
}

// Options say how a zone is started.
type Options struct {
	// Dir keeps the zone's state over restarts.
	Dir string
	// Listen is host:port; empty is a free loopback port, kept over restarts.
	Listen string
	// Nodes is how many NodeManagers `mammoth up` runs.
	Nodes int
	// Args are further arguments of `mammoth up`.
	Args []string
	// Enter is a command prefix, for example nsenter into a network namespace.
	Enter []string
	// Output receives what the daemons say.
	Output io.Writer
}

// Zone is a running `mammoth up`.
type Zone struct {
	Programs Programs
	Options  Options
	Address  string
	process  *exec.Cmd
	// done has how the process ended, for whoever asks.
	done chan error
}

// Start runs `mammoth up` and returns when it is ready.
func Start(ctx context.Context, programs Programs, options Options) (*Zone, error) {
	if options.Listen == "" {
		address, err := testenv.FreeAddress()
		if err != nil {
			return nil, err
		}
		options.Listen = address
	}
	if options.Nodes == 0 {
		options.Nodes = 1
	}
	z := &Zone{Programs: programs, Options: options, Address: options.Listen}
	return z, z.Restart(ctx)
}

// Restart runs `mammoth up` again on the same folder and address.
func (z *Zone) Restart(ctx context.Context) error {
	args := append([]string{"up", "--dir", z.Options.Dir, "--listen", z.Address, "--nodes", fmt.Sprint(z.Options.Nodes)}, z.Options.Args...)
	z.process = Command(z.Options.Enter, z.Programs.Mammoth, args...)
	z.process.Stdout, z.process.Stderr = z.Options.Output, z.Options.Output
	if err := z.process.Start(); err != nil {
		return fmt.Errorf("start a zone: %w", err)
	}
	z.done = make(chan error, 1)
	go func(process *exec.Cmd, done chan error) { done <- process.Wait() }(z.process, z.done)
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		select {
		case err := <-z.done:
			z.done <- err
			return fmt.Errorf("the zone ended before it was ready: %v", err)
		case <-ctx.Done():
			return errors.New("the zone was not ready within 60 seconds")
		case <-time.After(20 * time.Millisecond):
		}
		if z.ready(ctx) {
			return nil
		}
	}
}

func (z *Zone) ready(ctx context.Context) bool {
	if len(z.Options.Enter) > 0 {
		out, err := z.CLI(ctx, "node", "ls", "-o", "json")
		return err == nil && strings.Count(out, `"READY"`) >= z.Options.Nodes
	}
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+z.Address+"/v1/nodes", nil)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return bytes.Count(body, []byte(`"READY"`)) >= z.Options.Nodes
}

// Kill ends the zone's process as a crash would; its masters and instances stay.
func (z *Zone) Kill() {
	_ = z.process.Process.Kill()
	_ = ended(z.done)
}

// ended waits for the end of a process, and leaves how it ended to the next who asks.
func ended(done chan error) error {
	err := <-done
	done <- err
	return err
}

// Interrupt ends the zone's process as ctrl-C would, and waits for it.
func (z *Zone) Interrupt() error {
	_ = z.process.Process.Signal(syscall.SIGINT)
	select {
	case err := <-z.done:
		z.done <- err
		return err
	case <-time.After(60 * time.Second):
		z.Kill()
		return errors.New("the zone did not end within 60 seconds of an interrupt")
	}
}

// Purge ends the zone and everything that it left on the machine.
func (z *Zone) Purge() error {
	_ = z.Interrupt()
	cmd := Command(z.Options.Enter, z.Programs.Mammoth, append([]string{"down", "--dir", z.Options.Dir, "--purge"}, z.dockerHost()...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mammoth down: %w: %s", err, out)
	}
	return nil
}

// dockerHost is the engine option that the zone was started with, since cleaning up talks to the same engine.
func (z *Zone) dockerHost() []string {
	for i, arg := range z.Options.Args {
		if arg == "--docker-host" && i+1 < len(z.Options.Args) {
			return []string{arg, z.Options.Args[i+1]}
		}
	}
	return nil
}

// CLI runs a mammoth command against the zone and gives its standard output. A failure carries its standard error.
func (z *Zone) CLI(ctx context.Context, args ...string) (string, error) {
	return z.CLIWithInput(ctx, nil, args...)
}

// CLIWithInput is CLI with a standard input.
func (z *Zone) CLIWithInput(ctx context.Context, input io.Reader, args ...string) (string, error) {
	cmd := CommandContext(ctx, z.Options.Enter, z.Programs.Mammoth, args...)
	cmd.Env = append(os.Environ(), "MAMMOTH_SERVER="+z.Address)
	cmd.Stdin = input
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), &CommandError{Args: args, Stderr: stderr.String(), Err: err}
	}
	return stdout.String(), nil
}

// CommandError is a command that did not exit with 0.
type CommandError struct {
	Args   []string
	Stderr string
	Err    error
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("mammoth %s: %v: %s", strings.Join(e.Args, " "), e.Err, e.Stderr)
}

func (e *CommandError) Unwrap() error { return e.Err }

// ExitCode is the command's, or -1.
func (e *CommandError) ExitCode() int {
	var exit *exec.ExitError
	if errors.As(e.Err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// App is the part of `mammoth app show -o json` that tests look at.
type App struct {
	Name    string
	State   string
	Wanted  int
	Running int
	Version int
	Reason  string
	Master  struct {
		Attempt     int
		ContainerID string
	}
	Instances []Instance
	// Status is what the application master says; its detail is the rollout.
	Status struct {
		Detail struct{ State, Reason string }
	}
}

// Instance is one instance of an App.
type Instance struct {
	ID, ContainerID, Node, State, Address, Reason, RuntimeID string

	Port, Version, Restarts int
	Phases                  []Phase
	StartedAt               time.Time
}

// Phase is one step of an instance on its way to running.
type Phase struct {
	Name       string
	StartedAt  time.Time
	DurationMs int
	Bytes      string
}

// App shows an app.
func (z *Zone) App(ctx context.Context, name string) (App, error) {
	var app App
	out, err := z.CLI(ctx, "app", "show", name, "-o", "json")
	if err != nil {
		return app, err
	}
	if err := json.Unmarshal([]byte(out), &app); err != nil {
		return app, fmt.Errorf("read %q: %w", out, err)
	}
	return app, nil
}

// Endpoint is one entry of `mammoth registry get -o json`.
type Endpoint struct {
	ID, Address, State string
	Port, Weight       int
}

// Endpoints gives a service's endpoints; none if the service is unknown.
func (z *Zone) Endpoints(ctx context.Context, name string) ([]Endpoint, error) {
	var service struct{ Endpoints []Endpoint }
	out, err := z.CLI(ctx, "registry", "get", name, "-o", "json")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(out), &service); err != nil {
		return nil, fmt.Errorf("read %q: %w", out, err)
	}
	return service.Endpoints, nil
}

// Command is exec.Command behind a prefix.
func Command(enter []string, program string, args ...string) *exec.Cmd {
	return CommandContext(context.Background(), enter, program, args...)
}

// CommandContext is exec.CommandContext behind a prefix.
func CommandContext(ctx context.Context, enter []string, program string, args ...string) *exec.Cmd {
	line := append(append(append([]string{}, enter...), program), args...)
	return exec.CommandContext(ctx, line[0], line[1:]...)
}
