package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/signal"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

const (
	// endsWithin is how long after a signal that asks a program to end its end is the signal's doing: it may have requests
	// to finish first.
	endsWithin = time.Minute
	// diesWithin is that time for every other signal, which most programs survive: what they end of later is their own doing.
	diesWithin = 2 * time.Second
	// recallWithin is how long the engine is asked for what it has sent before.
	recallWithin = 5 * time.Second
	// oomWithin is how long an end by SIGKILL that nobody is known to have sent waits for the engine to tell of the memory quota.
	oomWithin = 500 * time.Millisecond
	sigkill   = int(unix.SIGKILL)
)

// sent is a signal that the engine was asked to send to a container, by "docker kill", "stop", "restart" or "rm -f" or by
// the node itself. What the kernel or a program sends passes the engine by.
type sent struct {
	signal int
	at     time.Time
}

func sentBy(message events.Message) sent {
	number, _ := strconv.Atoi(message.Actor.Attributes["signal"])
	return sent{signal: number, at: time.Unix(0, message.TimeNano)}
}

// life is the last time that a container ran. started is zero and stopSignal is empty if they are not known.
type life struct {
	runtimeID, stopSignal string
	started, ended        time.Time
}

func lifeOf(c container.InspectResponse) life {
	l := life{runtimeID: c.ID, stopSignal: c.Config.StopSignal}
	l.started, l.ended = times(c.State)
	return l
}

// earliest is when a signal that it ended of can have been sent at the earliest.
func (l life) earliest() time.Time {
	earliest := l.ended.Add(-endsWithin)
	if l.started.After(earliest) {
		return l.started
	}
	return earliest
}

// endedOf reports whether a container's end is a signal's doing. The engine notes a signal when it was sent, and the end may be
// a little older than that.
func (l life) endedOf(s sent) bool {
	own, err := signal.Number(l.stopSignal)
	within := diesWithin
	if asksToEnd(s.signal) || err == nil && own == s.signal {
		within = endsWithin
	}
	return s.signal > 0 && !s.at.Before(l.started) && l.ended.Sub(s.at) <= within
}

// asksToEnd says of a signal that programs take it for a wish that they end, whatever they were made for.
func asksToEnd(number int) bool {
	switch unix.Signal(number) {
	case unix.SIGKILL, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT:
		return true
	}
	return false
}

// sentAnother reports whether the last signal that was sent to a container means an end only if it is the container's own.
func (r *Runtime) sentAnother(runtimeID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.sent[runtimeID]
	return last.signal > 0 && !asksToEnd(last.signal)
}

// endedOf is the signal that a container has ended of; zero if it has ended of none that the engine was asked to send. The
// engine is asked for what it has sent before if its events may have been missed. It keeps only the last few hundred of them.
func (r *Runtime) endedOf(ctx context.Context, l life, missed bool) int {
	r.mu.Lock()
	last, known := r.sent[l.runtimeID]
	r.mu.Unlock()
	settled := known && (last.signal == 0 || l.endedOf(last))
	if missed && !settled {
		recalled, err := r.recall(ctx, l)
		if err != nil {
			r.config.Logger.Warn("the engine does not say what signals a container was sent", "container", l.runtimeID, "error", err)
			return 0
		}
		last = recalled
		r.mu.Lock()
		r.sent[l.runtimeID] = last
		r.mu.Unlock()
	}
	if !l.endedOf(last) {
		return 0
	}
	return last.signal
}

// recall asks the engine for the last signal that a container was sent in its last life.
func (r *Runtime) recall(ctx context.Context, l life) (sent, error) {
	var last sent
	err := r.told(ctx, l.runtimeID, events.ActionKill, l.earliest(), time.Now(), func(message events.Message) bool {
		last = sentBy(message)
		return true
	})
	return last, err
}

// askForOOM asks the engine whether a container that was killed, and nobody knows by whom, was killed at its memory quota. A busy
// engine tells of that after it has told of the end, and its state of the container does not say it then.
func (r *Runtime) askForOOM(ctx context.Context, exit *runtime.Exit, l life) {
	r.mu.Lock()
	_, asked := r.ooms[l.runtimeID]
	r.mu.Unlock()
	if asked || exit.Code != 128+sigkill || exit.Signal != 0 || exit.OOM || exit.DiskQuota {
		return
	}
	// A start is told after the fact, so that the kill may have come before it.
	err := r.told(ctx, l.runtimeID, events.ActionOOM, l.ended.Add(-endsWithin), l.ended.Add(oomWithin), func(events.Message) bool {
		exit.OOM = true
		return false
	})
	if err != nil {
		r.config.Logger.Warn("the engine does not say whether a container was killed at its memory quota", "container", l.runtimeID, "error", err)
		return
	}
	r.mu.Lock()
	r.ooms[l.runtimeID] = r.ooms[l.runtimeID] || exit.OOM
	r.mu.Unlock()
}

// told passes on what the engine tells of one kind of event of a container between two times, until next says that it is enough.
func (r *Runtime) told(
	ctx context.Context, runtimeID string, kind events.Action, since, until time.Time, next func(events.Message) bool,
) error {
	ctx, cancel := context.WithTimeout(ctx, recallWithin)
	defer cancel()
	messages, failed := r.client.Events(ctx, events.ListOptions{
		Since: stamp(since), Until: stamp(until),
		Filters: filters.NewArgs(
			filters.Arg("type", string(events.ContainerEventType)), filters.Arg("event", string(kind)),
			filters.Arg("container", runtimeID),
		),
	})
	for {
		select {
		case message := <-messages:
			if !next(message) {
				return nil
			}
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return r.failure(ctx, err)
		}
	}
}

// stamp is a time as the engine reads it.
func stamp(at time.Time) string { return fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond()) }
