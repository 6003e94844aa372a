package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// execCommands run commands inside instances, with the streams and the terminal of this process.
type execCommands struct {
	client
	in  io.Reader
	env func(string) string
}

func (c *execCommands) appExecCommand() *cobra.Command {
	var instance string
	var stdin, tty bool
	cmd := &cobra.Command{
		Use:   "exec NAME [flags] -- COMMAND [ARGUMENT...]",
		Short: "Run a command inside an instance",
		Long: `Exec runs a command inside a running instance and ends with the command's own exit code,
or with 127 when there is no such program in the container, 126 when it may not be executed.`,
		Example: "  mammoth app exec web -- /hello --version\n  mammoth app exec web --instance web-2 -it -- /bin/sh",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("`%s` needs the name of an app and, behind --, a command; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
			}
			return appName()(cmd, args[:1])
		},
		ValidArgsFunction: firstArgument(c.completeApps),
		RunE: func(cmd *cobra.Command, args []string) error {
			start := &corev1.ExecInput_Start{Command: args[1:], Tty: tty, Stdin: stdin}
			if tty && !stdin {
				return usagef("-t needs -i: a terminal needs input")
			}
			if err := spec.CheckWords(start.GetCommand()); err != nil {
				return usagef("%s", wire.Sentence(err))
			}
			return c.with(cmd.Context(), func(z *zone) error {
				return c.exec(cmd.Context(), z, execTarget{app: args[0], instance: instance}, start)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&instance, "instance", "", "the instance (default: any that runs)")
	flags.BoolVarP(&stdin, "stdin", "i", false, "pass standard input on")
	flags.BoolVarP(&tty, "tty", "t", false, "give the command a terminal")
	must(cmd.RegisterFlagCompletionFunc("instance", c.completeInstances))
	return cmd
}

type execTarget struct{ app, instance string }

// exec runs one command and copies its streams.
func (c *execCommands) exec(ctx context.Context, z *zone, target execTarget, start *corev1.ExecInput_Start) error {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "mammoth-app", target.app, "mammoth-instance", target.instance))
	defer cancel()
	stream, err := z.apps.Exec(ctx)
	if err != nil {
		return err
	}
	input := &execInput{stream: stream}
	if start.GetTty() {
		restore, err := c.takeTerminal(ctx, start, input)
		if err != nil {
			return err
		}
		defer restore()
	}
	if err := input.send(&corev1.ExecInput{Input: &corev1.ExecInput_Start_{Start: start}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if start.GetStdin() {
		// It ends with the process: a read of standard input cannot be cancelled.
		go input.copy(c.in)
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the command in %q ended and its exit code could not be learned", target.app)
		}
		if err != nil {
			return err
		}
		switch output := message.GetOutput().(type) {
		case *corev1.ExecOutput_Stdout:
			_, err = c.out.Write(output.Stdout)
		case *corev1.ExecOutput_Stderr:
			_, err = c.err.Write(output.Stderr)
		case *corev1.ExecOutput_ExitCode:
			if output.ExitCode == 0 {
				return nil
			}
			return exitError(output.ExitCode)
		}
		if err != nil {
			return err
		}
	}
}

// execInput lets several senders share a stream.
type execInput struct {
	mu     sync.Mutex
	stream grpc.BidiStreamingClient[corev1.ExecInput, corev1.ExecOutput]
}

func (e *execInput) send(message *corev1.ExecInput) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stream.Send(message)
}

func (e *execInput) copy(in io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := in.Read(buffer)
		if n > 0 {
			if e.send(&corev1.ExecInput{Input: &corev1.ExecInput_Stdin{Stdin: buffer[:n]}}) != nil {
				return
			}
		}
		if err != nil {
			_ = e.send(&corev1.ExecInput{Input: &corev1.ExecInput_StdinClosed{StdinClosed: true}})
			return
		}
	}
}

// takeTerminal puts the terminal into raw mode, sends its size and every change of it, and returns a function that restores
// it.
func (c *execCommands) takeTerminal(ctx context.Context, start *corev1.ExecInput_Start, input *execInput) (restore func(), err error) {
	file, ok := c.in.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil, usagef("-t needs a terminal, and standard input is none; leave it out")
	}
	fd := int(file.Fd())
	window := func() *corev1.ExecInput_WindowSize {
		columns, rows, err := term.GetSize(fd)
		if err != nil {
			return nil
		}
		return &corev1.ExecInput_WindowSize{Rows: uint32(rows), Columns: uint32(columns)}
	}
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("put the terminal into raw mode: %w", err)
	}
	start.Window = window()
	if name := c.env("TERM"); name != "" {
		start.Env = map[string]string{"TERM": name}
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	ctx, cancel := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-resized:
				if size := window(); size != nil {
					_ = input.send(&corev1.ExecInput{Input: &corev1.ExecInput_Resize{Resize: size}})
				}
			}
		}
	})
	return func() {
		signal.Stop(resized)
		cancel()
		watcher.Wait()
		_ = term.Restore(fd, state)
	}, nil
}
