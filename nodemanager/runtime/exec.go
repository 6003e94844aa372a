package runtime

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// Silence is how long to wait for more output of a command that has ended, while processes that it left behind hold its output. After
// that they are killed.
const Silence = 250 * time.Millisecond

// WhyNot is why a command cannot be run.
type WhyNot struct {
	// Missing: there is no such program.
	Missing bool
	// Reason goes behind "cannot run it: ".
	Reason string
}

// The exit codes of a command that cannot be run are a shell's.
const (
	exitNotExecutable = 126
	exitMissing       = 127
)

// CannotRun ends an exec whose command never ran, as a shell would: one sentence where its errors go, and exit code 127 for a
// program that is missing, 126 for one that cannot be executed.
func (e Exec) CannotRun(why WhyNot) (int, error) {
	out, end := e.Stderr, "\n"
	if e.TTY {
		out, end = e.Stdout, "\r\n"
	}
	if out == nil {
		out = io.Discard
	}
	code := exitNotExecutable
	if why.Missing {
		code, why.Reason = exitMissing, "there is no such program in the container"
	}
	_, err := fmt.Fprintf(out, "mammoth: cannot run %s: %s%s", e.Command[0], why.Reason, end)
	return code, err
}

// Outflow observes the output of a command, so that Await can tell when no more comes. The zero value is ready for use.
type Outflow struct {
	mu      sync.Mutex
	writing int
	last    time.Time
}

// To returns a writer that passes its input on to out; nil discards it.
func (o *Outflow) To(out io.Writer) io.Writer {
	if out == nil {
		out = io.Discard
	}
	return &outflow{o, out}
}

type outflow struct {
	of  *Outflow
	out io.Writer
}

func (w *outflow) Write(p []byte) (int, error) {
	w.of.begin(1)
	defer w.of.begin(-1)
	return w.out.Write(p)
}

func (o *Outflow) begin(by int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writing += by
	o.last = time.Now()
}

// quiet is the time since the last output; zero while a write is in progress.
func (o *Outflow) quiet() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing > 0 {
		return 0
	}
	return time.Since(o.last)
}

// Await returns when ended is closed, which means that the output has ended, when no output has come for silence since the call, or
// when ctx ends. A slow reader of the output does not make it return.
func (o *Outflow) Await(ctx context.Context, ended <-chan struct{}, silence time.Duration) {
	o.begin(0)
	for {
		left := silence - o.quiet()
		if left <= 0 {
			return
		}
		timer := time.NewTimer(left)
		select {
		case <-ended:
			timer.Stop()
			return
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}
