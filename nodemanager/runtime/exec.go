package runtime

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// OutputTimeout is how long to wait for more output of a command that has ended, while processes that it left behind hold
// its output. After that they are killed.
const OutputTimeout = 250 * time.Millisecond

// NotRunnable is why a command cannot be run.
type NotRunnable struct {
	// Missing: there is no such program.
	Missing bool
	// Reason follows "cannot run it: ".
	Reason string
}

// Reasons for which no engine can run a program that is there.
const (
	WrongMachine  = "it is not a program for this kind of machine"
	NotExecutable = "it may not be executed"
)

// A command that cannot be run has the exit code of a shell.
const (
	exitNotExecutable = 126
	exitMissing       = 127
)

// CannotRun ends an exec whose command never ran, as a shell would: one sentence on its standard error, and exit code 127
// for a missing program, 126 for one that cannot be executed.
func (e Exec) CannotRun(why NotRunnable) (int, error) {
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

// OutputMonitor observes the output of a command, so that Await knows when no more arrives. The zero value is ready for use.
type OutputMonitor struct {
	mu      sync.Mutex
	writing int
	last    time.Time
}

// To returns a writer that copies to out; nil discards.
func (o *OutputMonitor) To(out io.Writer) io.Writer {
	if out == nil {
		out = io.Discard
	}
	return &monitoredWriter{o, out}
}

type monitoredWriter struct {
	of  *OutputMonitor
	out io.Writer
}

func (w *monitoredWriter) Write(p []byte) (int, error) {
	w.of.begin(1)
	defer w.of.begin(-1)
	return w.out.Write(p)
}

func (o *OutputMonitor) begin(by int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writing += by
	o.last = time.Now()
}

// quiet is the time since the last output; zero while a write is in progress.
func (o *OutputMonitor) quiet() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing > 0 {
		return 0
	}
	return time.Since(o.last)
}

// Await returns when ended is closed, which means that the output is complete, when no output has arrived for the time
// silence, or when ctx ends. A slow reader of the output does not make it return.
func (o *OutputMonitor) Await(ctx context.Context, ended <-chan struct{}, silence time.Duration) {
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
