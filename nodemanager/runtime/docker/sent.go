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
)

const (
	// endsWithin is how long after a signal that asks a program to end its end is the signal's doing: it may have requests
	// to finish first.
	endsWithin = time.Minute
	// diesWithin is that time for every other signal, which most programs survive: what they end of later is their own doing.
	diesWithin = 2 * time.Second
	// recallWithin is how long the engine is asked for what it has sent before.
	recallWithin = 5 * time.Second
	sigkill      = int(unix.SIGKILL)
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
	ctx, cancel := context.WithTimeout(ctx, recallWithin)
	defer cancel()
	messages, failed := r.client.Events(ctx, events.ListOptions{
		Since: stamp(l.earliest()), Until: stamp(time.Now()),
		Filters: filters.NewArgs(
			filters.Arg("type", string(events.ContainerEventType)), filters.Arg("event", string(events.ActionKill)),
			filters.Arg("container", l.runtimeID),
		),
	})
	var last sent
	for {
		select {
		case message := <-messages:
			last = sentBy(message)
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return last, nil
			}
			return sent{}, r.failure(ctx, err)
		}
	}
}

// stamp is a time as the engine reads it.
func stamp(at time.Time) string { return fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond()) }
