package docker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/logs"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Remove implements runtime.Runtime. The output is copied from the engine first; a partial copy is replaced.
func (r *Runtime) Remove(ctx context.Context, key id.Container) error {
	inspected, err := r.client.ContainerInspect(ctx, r.handle(key))
	if errdefs.IsNotFound(err) {
		return r.forget(key)
	}
	if err != nil {
		return r.failure(ctx, err)
	}
	if inspected.State.Running {
		return fmt.Errorf("container %v is running: %w", key, errdefs.ErrFailedPrecondition)
	}
	// An engine that stopped during a removal has a dead container afterwards, whose output was copied before and does not
	// exist any more.
	dead := inspected.State.Dead || inspected.State.Status == container.StateRemoving
	switch err := r.keepLogs(ctx, key, dead); {
	case err == nil:
	case errors.Is(err, errdefs.ErrDataLoss), errors.Is(err, unix.ENOSPC):
		// No later attempt would keep more, and the container holds the space that is missing.
		r.config.Logger.Warn("some output of an ended container is lost", "container", key.String(), "error", err)
	default:
		return fmt.Errorf("copy the logs of container %v: %w", key, err)
	}
	if err := r.removeEnded(ctx, inspected.ID); err != nil {
		return err
	}
	r.unwatch(key, inspected.ID)
	r.mu.Lock()
	delete(r.ooms, inspected.ID)
	delete(r.lastSignals, inspected.ID)
	r.mu.Unlock()
	return errors.Join(removeFile(r.verdictFile(key)), r.forget(key))
}

const (
	// removalWithin is how long a removal that the engine is busy with already is waited for, removalLook the time between two looks.
	removalWithin = 30 * time.Second
	removalLook   = 50 * time.Millisecond
)

// removeEnded has the engine remove a container that has ended. The engine refuses what it is removing already: for a request whose
// asker has gone, as a node that ended meanwhile. That removal is waited for.
func (r *Runtime) removeEnded(ctx context.Context, runtimeID string) error {
	limit, cancel := context.WithTimeout(ctx, removalWithin)
	defer cancel()
	for {
		err := r.client.ContainerRemove(ctx, runtimeID, container.RemoveOptions{RemoveVolumes: true})
		switch {
		case err == nil, errdefs.IsNotFound(err):
			return nil
		case !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "is already in progress"):
			return r.failure(ctx, err)
		case backoff.Sleep(limit, removalLook) != nil:
			return r.failure(ctx, err)
		}
	}
}

func (r *Runtime) keepLogs(ctx context.Context, key id.Container, dead bool) error {
	if dead {
		return nil
	}
	if err := logs.Delete(r.config.LogDir, key.String()); err != nil {
		return err
	}
	log, err := logs.Open(r.config.LogDir, key.String(), 0)
	if err != nil {
		return err
	}
	var lines []runtime.LogLine
	err = r.engineLogs(ctx, key, runtime.LogOptions{Tail: -1}, func(line runtime.LogLine) error {
		if lines = append(lines, line); len(lines) < 256 {
			return nil
		}
		defer func() { lines = lines[:0] }()
		return log.Append(lines)
	})
	return errors.Join(err, log.Append(lines), log.Close())
}

// Purge implements runtime.Runtime.
func (r *Runtime) Purge(_ context.Context, key id.Container) error {
	return logs.Delete(r.config.LogDir, key.String())
}

// Logs implements runtime.Runtime.
func (r *Runtime) Logs(ctx context.Context, key id.Container, options runtime.LogOptions, line func(runtime.LogLine) error) error {
	err := r.engineLogs(ctx, key, options, line)
	if !errors.Is(err, errNoContainer) {
		return err
	}
	if err := logs.Read(ctx, r.config.LogDir, key.String(), options, line); err != nil {
		return fmt.Errorf("container %v: %w", key, err)
	}
	return nil
}

var errNoContainer = errors.New("the engine has no such container, or only what is left of one")

// engineLogs reads the output of a container that the engine still has.
func (r *Runtime) engineLogs(ctx context.Context, key id.Container, options runtime.LogOptions, line func(runtime.LogLine) error) error {
	request := container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: options.Follow, Tail: "all"}
	if options.Tail >= 0 {
		request.Tail = strconv.Itoa(options.Tail)
	}
	if !options.Since.IsZero() {
		request.Since = fmt.Sprintf("%d.%09d", options.Since.Unix(), options.Since.Nanosecond())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.client.ContainerLogs(ctx, r.handle(key), request)
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) { // a conflict means that it is dead
		return errNoContainer
	}
	if err != nil {
		return r.failure(ctx, err)
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
	return r.failure(ctx, err)
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

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
