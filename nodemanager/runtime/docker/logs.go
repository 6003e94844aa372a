package docker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/logs"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// output owns the copies of the output of removed containers, and reads that of the others from the engine.
type output struct {
	engine *engine
	ids    *identities
	// dir has the copies.
	dir string
}

// keep copies the output of an ended container from the engine. A partial copy is replaced.
func (o *output) keep(ctx context.Context, key id.Container) error {
	if err := logs.Delete(o.dir, key.String()); err != nil {
		return err
	}
	log, err := logs.Open(o.dir, key.String(), 0)
	if err != nil {
		return err
	}
	var lines []runtime.LogLine
	err = o.ofEngine(ctx, key, runtime.LogOptions{Tail: -1}, func(line runtime.LogLine) error {
		if lines = append(lines, line); len(lines) < 256 {
			return nil
		}
		defer func() { lines = lines[:0] }()
		return log.Append(lines)
	})
	return errors.Join(err, log.Append(lines), log.Close())
}

// purge deletes the copy.
func (o *output) purge(key id.Container) error {
	return logs.Delete(o.dir, key.String())
}

// read reads the output of a container from the engine if that still has it, else the copy.
func (o *output) read(ctx context.Context, key id.Container, options runtime.LogOptions, line func(runtime.LogLine) error) error {
	err := o.ofEngine(ctx, key, options, line)
	if !errors.Is(err, errNoContainer) {
		return err
	}
	if err := logs.Read(ctx, o.dir, key.String(), options, line); err != nil {
		return fmt.Errorf("container %v: %w", key, err)
	}
	return nil
}

var errNoContainer = errors.New("the engine has no such container, or only what is left of one")

// ofEngine reads the output of a container that the engine still has.
func (o *output) ofEngine(ctx context.Context, key id.Container, options runtime.LogOptions, line func(runtime.LogLine) error) error {
	request := container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: options.Follow, Tail: "all"}
	if options.Tail >= 0 {
		request.Tail = strconv.Itoa(options.Tail)
	}
	if !options.Since.IsZero() {
		request.Since = fmt.Sprintf("%d.%09d", options.Since.Unix(), options.Since.Nanosecond())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := o.engine.ContainerLogs(ctx, o.ids.handle(key), request)
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) { // a conflict means that it is dead
		return errNoContainer
	}
	if err != nil {
		return o.engine.failure(ctx, err)
	}
	defer stream.Close()
	// The reader's own error is returned as it is; everything else is the engine's.
	var refused error
	err = readFrames(stream, func(l runtime.LogLine) error {
		refused = line(l)
		return refused
	})
	if refused != nil {
		return refused
	}
	if errors.Is(err, errdefs.ErrDataLoss) {
		return err
	}
	return o.engine.failure(ctx, err)
}

// maxFrame is the longest message of the engine, which splits lines at 16KiB.
const maxFrame = 1 << 20

// readFrames reads the engine's multiplexed output: a header of eight bytes (stream, three zeros, length), then a time, a
// space and the text. A message without a newline at its end continues in the next one of its stream.
func readFrames(stream io.Reader, line func(runtime.LogLine) error) error {
	reader := bufio.NewReader(stream)
	var header [8]byte
	var partial [2]*runtime.LogLine
	for {
		if _, err := io.ReadFull(reader, header[:]); err != nil {
			for _, left := range partial {
				if left != nil && errors.Is(err, io.EOF) {
					if err := line(*left); err != nil {
						return err
					}
				}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		size := binary.BigEndian.Uint32(header[4:])
		if header[0] > 2 || size > maxFrame {
			return fmt.Errorf("the engine's log stream is malformed: %w", errdefs.ErrDataLoss)
		}
		message := make([]byte, size)
		if _, err := io.ReadFull(reader, message); err != nil {
			return err
		}
		which := 0
		if header[0] == 2 {
			which = 1
		}
		stamp, text, _ := bytes.Cut(message, []byte(" "))
		at, err := time.Parse(time.RFC3339Nano, string(stamp))
		if err != nil {
			return fmt.Errorf("the engine's log stream has no times: %w", errdefs.ErrDataLoss)
		}
		whole, ended := bytes.CutSuffix(text, []byte("\n"))
		if partial[which] == nil {
			partial[which] = &runtime.LogLine{Time: at, Stderr: which == 1}
		}
		partial[which].Text += string(whole)
		for len(partial[which].Text) > logs.MaxText {
			long := *partial[which]
			end := logs.Cut(long.Text, logs.MaxText)
			partial[which].Text, long.Text = long.Text[end:], long.Text[:end]
			if err := line(long); err != nil {
				return err
			}
		}
		if !ended {
			continue
		}
		if err := line(*partial[which]); err != nil {
			return err
		}
		partial[which] = nil
	}
}
