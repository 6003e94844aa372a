package nodemanager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// tokenKey is the metadata key of Exec's token.
const tokenKey = "mammoth-token-bin"

type execStream = grpc.BidiStreamingServer[corev1.ExecInput, corev1.ExecOutput]

func (s *service) Exec(stream execStream) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	stop := context.AfterFunc(s.nm.edges, cancel)
	defer stop()
	signed, err := execToken(ctx)
	if err != nil {
		return wire.Status(err)
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil || len(start.GetCommand()) == 0 {
		return wire.Status(fmt.Errorf("the first message of an exec must name a command: %w", errdefs.ErrInvalidArgument))
	}
	h, err := ask(ctx, s.nm, func(o *owner) (accessible, error) {
		return o.entryForAccess(signed, start.GetContainerId(), true)
	})
	if err != nil {
		return wire.Status(err)
	}
	var sending sync.Mutex
	exec := runtime.Exec{
		Command: start.GetCommand(), Env: start.GetEnv(), TTY: start.GetTty(),
		Stdout: &execWriter{stream, &sending, func(p []byte) *corev1.ExecOutput {
			return &corev1.ExecOutput{Output: &corev1.ExecOutput_Stdout{Stdout: p}}
		}},
		Stderr: &execWriter{stream, &sending, func(p []byte) *corev1.ExecOutput {
			return &corev1.ExecOutput{Output: &corev1.ExecOutput_Stderr{Stderr: p}}
		}},
	}
	stdin, input := io.Pipe()
	if start.GetStdin() {
		exec.Stdin = stdin
	}
	resize := make(chan runtime.WindowSize, 1)
	exec.Resize = resize
	if window := start.GetWindow(); window != nil {
		resize <- windowSize(window)
	}
	// The reader ends with the stream, when this call returns. Closing the pipe ends a write to a command that does not
	// read.
	go readExec(stream, input, resize, cancel)
	code, err := h.runtime.Exec(ctx, h.id, exec)
	_ = stdin.CloseWithError(io.ErrClosedPipe)
	if err != nil {
		return wire.Status(err)
	}
	sending.Lock()
	defer sending.Unlock()
	return stream.Send(&corev1.ExecOutput{Output: &corev1.ExecOutput_ExitCode{ExitCode: int32(code)}})
}

func execToken(ctx context.Context) (*corev1.ContainerToken, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get(tokenKey)
	if len(values) == 0 {
		return nil, fmt.Errorf("an exec needs a container token in %s: %w", tokenKey, errdefs.ErrUnauthenticated)
	}
	signed := &corev1.ContainerToken{}
	if err := proto.Unmarshal([]byte(values[0]), signed); err != nil {
		return nil, fmt.Errorf("decode the container token in %s: %w", tokenKey, errdefs.ErrUnauthenticated)
	}
	return signed, nil
}

// readExec copies the client's input until the client closes its side or disconnects, which ends the command.
func readExec(stream execStream, input *io.PipeWriter, resize chan runtime.WindowSize, gone context.CancelFunc) {
	defer close(resize)
	for {
		message, err := stream.Recv()
		if err != nil {
			_ = input.Close()
			if !errors.Is(err, io.EOF) {
				gone()
			}
			return
		}
		switch in := message.GetInput().(type) {
		case *corev1.ExecInput_Stdin:
			_, _ = input.Write(in.Stdin) // a command may close its input
		case *corev1.ExecInput_StdinClosed:
			_ = input.Close()
		case *corev1.ExecInput_Resize:
			select {
			case <-resize: // drop an older size
			default:
			}
			resize <- windowSize(in.Resize)
		}
	}
}

func windowSize(size *corev1.ExecInput_WindowSize) runtime.WindowSize {
	return runtime.WindowSize{Rows: uint(size.GetRows()), Columns: uint(size.GetColumns())}
}

type execWriter struct {
	stream  execStream
	sending *sync.Mutex
	wrap    func([]byte) *corev1.ExecOutput
}

func (w *execWriter) Write(p []byte) (int, error) {
	w.sending.Lock()
	defer w.sending.Unlock()
	if err := w.stream.Send(w.wrap(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}
