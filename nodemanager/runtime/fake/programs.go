package fake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/signal"
	"github.com/mammoth-os/mammoth/nodemanager/disk"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Builtin lists the programs that every fake node has. They report what a real program would do to its quotas:
//
//	exit CODE                 ends at once
//	serve                     runs until SIGTERM, then exits 0
//	signals                   runs until a stop signal, and prints its number
//	ignore-term               runs until SIGKILL
//	lines N, both, env        print and exit 0
//	tick N MILLISECONDS       prints a line at a time
//	sleep DURATION [CODE]     exits after that time
//	until FILE [CODE]         exits once there is such a file
//	memory MIB, memory-child  ends as OOM above the memory quota, else as serve
//	disk MIB, disk-deleted    ends as over quota above the disk quota, else as serve
//	fork N                    prints how many processes the quota permits, then as serve
//	cat, tty                  for Exec
func Builtin() []string {
	return []string{
		"exit", "serve", "signals", "ignore-term", "lines", "both", "env", "tick", "sleep", "until",
		"memory", "memory-child", "disk", "disk-deleted", "fork", "cat", "tty",
	}
}

func (r *Runtime) program(spec runtime.Spec) (Program, error) {
	words := append(slices.Clone(spec.Command), spec.Args...)
	if len(words) == 0 {
		words = []string{"serve"}
	}
	if program, ok := r.config.Programs[words[0]]; ok {
		return program, nil
	}
	if !slices.Contains(Builtin(), words[0]) {
		return nil, fmt.Errorf("no such program: %s: %w", words[0], errdefs.ErrInvalidArgument)
	}
	return func(ctx context.Context, spec runtime.Spec, out io.Writer) int { return builtin(ctx, spec, words, out) }, nil
}

func builtin(ctx context.Context, spec runtime.Spec, words []string, out io.Writer) int {
	number := func(i int) int64 {
		if i >= len(words) {
			return 0
		}
		n, _ := strconv.ParseInt(words[i], 10, 64)
		return n
	}
	errs := out
	o, inContainer := out.(*output)
	if inContainer {
		errs = stderr{o}
	}
	switch words[0] {
	case "exit":
		return int(number(1))
	case "lines":
		for i := range number(1) {
			fmt.Fprintf(out, "line %d\n", i+1)
		}
		return 0
	case "tick":
		for i := range number(1) {
			fmt.Fprintf(out, "line %d\n", i+1)
			if backoff.Sleep(ctx, time.Duration(number(2))*time.Millisecond) != nil {
				return 143
			}
		}
		return 0
	case "both":
		fmt.Fprintln(out, "out")
		fmt.Fprintln(errs, "err")
		return 0
	case "env":
		env := make([]string, 0, len(spec.Env))
		for key, value := range spec.Env {
			env = append(env, key+"="+value)
		}
		slices.Sort(env)
		fmt.Fprintln(out, strings.Join(env, "\n"))
		return 0
	case "sleep":
		d := time.Hour
		if len(words) > 1 {
			d, _ = time.ParseDuration(words[1])
		}
		if backoff.Sleep(ctx, d) != nil {
			return 143
		}
		return int(number(2))
	case "until":
		for len(words) > 1 {
			if _, err := os.Stat(words[1]); err == nil {
				break
			}
			if backoff.Sleep(ctx, 20*time.Millisecond) != nil {
				return 143
			}
		}
		return int(number(2))
	case "signals":
		fmt.Fprintln(out, "waiting")
		<-ctx.Done()
		number, _ := signal.Number(cmp.Or(spec.StopSignal, "TERM"))
		fmt.Fprintf(out, "got %d\n", number)
		return 0
	case "ignore-term":
		fmt.Fprintln(out, "ignoring")
		// SIGKILL ends the container without this function, which must not run for ever.
		<-ctx.Done()
		if inContainer {
			<-o.gone
		}
		return 137
	case "memory", "memory-child":
		if asked := number(1) << 20; inContainer && spec.MemoryBytes > 0 && asked > spec.MemoryBytes {
			return o.setExit(runtime.Exit{Code: 137, OOM: true})
		}
		fmt.Fprintln(out, "allocated")
	case "disk", "disk-deleted":
		if asked := number(1) << 20; inContainer && spec.DiskBytes > 0 && asked > spec.DiskBytes {
			return o.setExit(runtime.Exit{Code: 137, DiskQuota: true, Message: disk.Exceeded(asked, spec.DiskBytes)})
		}
		fmt.Fprintln(out, "filled")
	case "fork":
		forked := number(1)
		if spec.Pids > 0 {
			forked = min(forked, spec.Pids-1)
		}
		fmt.Fprintf(out, "forked %d\n", forked)
	case "serve":
		fmt.Fprintln(out, "serving")
	}
	<-ctx.Done()
	fmt.Fprintln(out, "terminated")
	return 0
}

// exec runs a program for Exec, with its streams.
func (r *Runtime) exec(ctx context.Context, spec runtime.Spec, exec runtime.Exec) (int, error) {
	out, errs := exec.Stdout, exec.Stderr
	if out == nil {
		out = io.Discard
	}
	if errs == nil {
		errs = io.Discard
	}
	if len(exec.Command) == 0 {
		return 0, fmt.Errorf("no command: %w", errdefs.ErrInvalidArgument)
	}
	switch exec.Command[0] {
	case "cat":
		if exec.Stdin == nil {
			return 0, nil
		}
		_, err := io.Copy(out, exec.Stdin)
		return 0, err
	case "both":
		_, err := fmt.Fprintln(out, "out")
		_, err2 := fmt.Fprintln(errs, "err")
		return 0, errors.Join(err, err2)
	case "tty":
		if !exec.TTY {
			return 1, nil
		}
		select {
		case size := <-exec.Resize:
			_, err := fmt.Fprintf(out, "%dx%d\r\n", size.Rows, size.Columns)
			return 0, err
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	program, err := r.program(spec)
	if errors.Is(err, errdefs.ErrInvalidArgument) {
		return exec.CannotRun(runtime.NotRunnable{Missing: true})
	}
	return program(ctx, spec, out), ctx.Err()
}

func environment(spec runtime.Spec, ports []runtime.Port) map[string]string {
	env := make(map[string]string)
	for _, entry := range runtime.Environment(spec, ports) {
		key, value, _ := strings.Cut(entry, "=")
		env[key] = value
	}
	return env
}

func answer(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			request := make([]byte, 4096)
			if _, err := conn.Read(request); err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
			}
		}()
	}
}
