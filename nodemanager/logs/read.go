package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Read calls line for each stored line that the options select, oldest first. It fails with ErrNotFound if there is no such
// log.
func Read(ctx context.Context, dir, name string, options runtime.LogOptions, line func(runtime.LogLine) error) error {
	r := &reader{path: path(dir, name), options: options, line: line}
	defer r.close()
	if err := r.catchUp(ctx); err != nil {
		return err
	}
	return r.flushTail()
}

// Follow is Read that continues with appended lines until ended is closed and everything was read.
func (l *Log) Follow(ctx context.Context, ended <-chan struct{}, options runtime.LogOptions, line func(runtime.LogLine) error) error {
	r := &reader{path: l.path, options: options, line: line}
	defer r.close()
	for first := true; ; first = false {
		// Both are checked before the read, so that later lines are seen in the next round.
		changed := l.wait()
		last := false
		select {
		case <-ended:
			last = true
		default:
		}
		if err := r.catchUp(ctx); err != nil {
			return err
		}
		if first {
			if err := r.flushTail(); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ended:
		case <-changed:
		}
	}
}

// reader reads a log's files in the order in which they were written, also while they are rotated.
type reader struct {
	path    string
	options runtime.LogOptions
	line    func(runtime.LogLine) error

	file   *os.File
	lines  *bufio.Reader
	rest   []byte
	live   bool
	tailed []runtime.LogLine
}

func (r *reader) close() {
	if r.file != nil {
		_ = r.file.Close()
	}
}

// catchUp reads everything that was written.
func (r *reader) catchUp(ctx context.Context) error {
	for {
		current, previous, err := r.stat()
		if err != nil {
			return err
		}
		var mine os.FileInfo
		if r.file != nil {
			if mine, err = r.file.Stat(); err != nil {
				return err
			}
			// A file that was rotated before this point is complete.
			if err := r.drain(ctx); err != nil {
				return err
			}
		}
		next := r.path
		switch {
		case mine == nil || !os.SameFile(mine, current) && (previous == nil || !os.SameFile(mine, previous)):
			if previous != nil {
				next += ".1"
			}
		case os.SameFile(mine, current):
			return nil
		}
		file, err := os.Open(next)
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated or deleted in between
		}
		if err != nil {
			return err
		}
		r.close()
		r.file, r.lines, r.rest = file, bufio.NewReaderSize(file, 32<<10), nil
	}
}

func (r *reader) stat() (current, previous os.FileInfo, err error) {
	for range 3 {
		current, err = os.Stat(r.path)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("there are no logs: %w", errdefs.ErrNotFound)
	}
	if previous, err = os.Stat(r.path + ".1"); err != nil {
		previous = nil
	}
	return current, previous, nil
}

func (r *reader) drain(ctx context.Context) error {
	for {
		piece, err := r.lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			r.rest = append(r.rest, piece...)
			return nil
		}
		if err != nil {
			return err
		}
		if r.rest != nil {
			piece, r.rest = append(r.rest, piece...), nil
		}
		parsed, err := parseLine(piece[:len(piece)-1])
		if err != nil {
			continue // a record that a full disk has truncated
		}
		if parsed.Time.Before(r.options.Since) {
			continue
		}
		if err := r.deliver(ctx, parsed); err != nil {
			return err
		}
	}
}

func (r *reader) deliver(ctx context.Context, line runtime.LogLine) error {
	if r.live || r.options.Tail < 0 {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		return r.line(line)
	}
	if r.options.Tail == 0 {
		return nil
	}
	if len(r.tailed) >= 2*r.options.Tail {
		r.tailed = append(r.tailed[:0], r.tailed[len(r.tailed)-r.options.Tail+1:]...)
	}
	r.tailed = append(r.tailed, line)
	return nil
}

// flushTail delivers the lines kept for Tail; later ones are delivered at once.
func (r *reader) flushTail() error {
	r.live = true
	if excess := len(r.tailed) - r.options.Tail; excess > 0 && r.options.Tail >= 0 {
		r.tailed = r.tailed[excess:]
	}
	for _, line := range r.tailed {
		if err := r.line(line); err != nil {
			return err
		}
	}
	r.tailed = nil
	return nil
}
