package fake

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// maxLines is how many lines are kept of one container; a simulation has thousands of containers.
const maxLines = 4096

// output is what a container prints, by line.
type output struct {
	mu      sync.Mutex
	lines   []runtime.LogLine
	dropped int
	partial []byte
	ended   bool
	gone    chan struct{}
	changed chan struct{}
	// exit is the exit that a scripted program has chosen.
	exit *runtime.Exit
}

func newOutput() *output { return &output{changed: make(chan struct{}), gone: make(chan struct{})} }

// Write appends to standard output.
func (o *output) Write(p []byte) (int, error) { return len(p), o.write(p, false) }

// stderr appends to standard error.
type stderr struct{ *output }

func (s stderr) Write(p []byte) (int, error) { return len(p), s.write(p, true) }

func (o *output) write(p []byte, errs bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return nil
	}
	o.partial = append(o.partial, p...)
	for {
		line, rest, ok := bytes.Cut(o.partial, []byte("\n"))
		if !ok {
			return nil
		}
		o.add(string(line), errs)
		o.partial = rest
	}
}

func (o *output) add(text string, errs bool) {
	o.lines = append(o.lines, runtime.LogLine{Time: time.Now(), Stderr: errs, Text: text})
	if excess := len(o.lines) - maxLines; excess > maxLines/4 {
		o.lines = append([]runtime.LogLine(nil), o.lines[excess:]...)
		o.dropped += excess
	}
	o.wake()
}

func (o *output) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.partial) > 0 {
		o.add(string(o.partial), false)
		o.partial = nil
	}
	o.ended = true
	close(o.gone)
	o.wake()
}

// reopen is the output of a container that was started again.
func (o *output) reopen() *output {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended, o.exit, o.gone = false, nil, make(chan struct{})
	return o
}

// setExit sets more of the exit than a code.
func (o *output) setExit(exit runtime.Exit) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.exit = &exit
	return exit.Code
}

func (o *output) exitFor(code int) runtime.Exit {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.exit != nil {
		return *o.exit
	}
	return runtime.Exit{Code: code}
}

func (o *output) read(ctx context.Context, options runtime.LogOptions, line func(runtime.LogLine) error) error {
	next := 0
	for first := true; ; first = false {
		o.mu.Lock()
		if next < o.dropped {
			next = o.dropped
		}
		var lines []runtime.LogLine
		for _, l := range o.lines[next-o.dropped:] {
			if !l.Time.Before(options.Since) {
				lines = append(lines, l)
			}
		}
		next = o.dropped + len(o.lines)
		ended, changed := o.ended, o.changed
		o.mu.Unlock()
		if first && options.Tail >= 0 && len(lines) > options.Tail {
			lines = lines[len(lines)-options.Tail:]
		}
		for _, l := range lines {
			if err := line(l); err != nil {
				return err
			}
		}
		if ended || !options.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}
