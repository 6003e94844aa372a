package runtime

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// Silence is how long the output of a command that has ended is waited for when something that it has left holds on to it. After
// that what is left is ended.
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

// Outflow is what the output of a command goes through, so that it is known when nothing comes any more. The zero value is ready
// for use.
type Outflow struct {
	mu      sync.Mutex
	writing int
	last    time.Time
}

// To passes what is written on to out, which may be nil for nowhere.
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

// quiet is for how long nothing has come; zero while something is on its way.
func (o *Outflow) quiet() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing > 0 {
		return 0
	}
	return time.Since(o.last)
}

// Await returns when the output has ended, which closes ended, or nothing has come for so long since the call, or ctx
// has ended. Whoever reads the
// output slowly is waited for.
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
