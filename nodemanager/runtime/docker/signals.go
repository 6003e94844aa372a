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
	// stopSignalTime is how long after a stop signal an end counts as its effect: the program may finish requests first.
	stopSignalTime = time.Minute
	// otherSignalTime is that time for all other signals, which most programs survive.
	otherSignalTime = 2 * time.Second
	// recallTimeout is how long the engine may take to return earlier events.
	recallTimeout = 5 * time.Second
	// oomTimeout is how long an end by SIGKILL from an unknown sender waits for the engine's event about the memory quota.
	oomTimeout = 500 * time.Millisecond
	sigkill    = int(unix.SIGKILL)
)

// sentSignal is a signal that the engine was asked to send to a container, by "docker kill", "stop", "restart" or "rm -f" or
// by the node itself. The engine does not see signals of the kernel or of programs.
type sentSignal struct {
	signal int
	at     time.Time
}

func sentBy(message events.Message) sentSignal {
	number, _ := strconv.Atoi(message.Actor.Attributes["signal"])
	return sentSignal{signal: number, at: time.Unix(0, message.TimeNano)}
}

// runPeriod is the last time that a container ran. started is zero and stopSignal is empty if unknown.
type runPeriod struct {
	runtimeID, stopSignal string
	started, ended        time.Time
}

func runPeriodOf(c container.InspectResponse) runPeriod {
	l := runPeriod{runtimeID: c.ID, stopSignal: c.Config.StopSignal}
	l.started, l.ended = times(c.State)
	return l
}

// earliest is the earliest time of a signal that it ended by.
func (l runPeriod) earliest() time.Time {
	earliest := l.ended.Add(-stopSignalTime)
	if l.started.After(earliest) {
		return l.started
	}
	return earliest
}

// endedOf reports whether a container's end is the effect of a signal. The engine records a signal after sending it, so the
// end may be slightly earlier.
func (l runPeriod) endedOf(s sentSignal) bool {
	own, err := signal.Number(l.stopSignal)
	within := otherSignalTime
	if isStopSignal(s.signal) || err == nil && own == s.signal {
		within = stopSignalTime
	}
	return s.signal > 0 && !s.at.Before(l.started) && l.ended.Sub(s.at) <= within
}

// isStopSignal reports whether programs usually end on a signal.
func isStopSignal(number int) bool {
	switch unix.Signal(number) {
	case unix.SIGKILL, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT:
		return true
	}
	return false
}

// sentOtherSignal reports whether the last signal that was sent to a container is a stop signal only if it is the
// container's own.
func (r *Runtime) sentOtherSignal(runtimeID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.lastSignals[runtimeID]
	return last.signal > 0 && !isStopSignal(last.signal)
}

// endedOf is the signal that a container has ended by; zero if the engine was asked to send none. Earlier events are
// requested from the engine if some may have been missed. The engine keeps only the last few hundred.
func (r *Runtime) endedOf(ctx context.Context, l runPeriod, missed bool) int {
	r.mu.Lock()
	last, known := r.lastSignals[l.runtimeID]
	r.mu.Unlock()
	settled := known && (last.signal == 0 || l.endedOf(last))
	if missed && !settled {
		recalled, err := r.recall(ctx, l)
		if err != nil {
			r.config.Logger.Warn("cannot learn which signals a container was sent", "container", l.runtimeID, "error", err)
			return 0
		}
		last = recalled
		r.mu.Lock()
		r.lastSignals[l.runtimeID] = last
		r.mu.Unlock()
	}
	if !l.endedOf(last) {
		return 0
	}
	return last.signal
}

// recall requests the last signal that a container was sent while it last ran.
func (r *Runtime) recall(ctx context.Context, l runPeriod) (sentSignal, error) {
	var last sentSignal
	err := r.queryEvents(ctx, l.runtimeID, events.ActionKill, l.earliest(), time.Now(), func(message events.Message) bool {
		last = sentBy(message)
		return true
	})
	return last, err
}

// askForOOM asks the engine whether a container that was killed by an unknown sender was killed at its memory quota. A busy
// engine reports that after the end, and its state of the container does not have it by then.
func (r *Runtime) askForOOM(ctx context.Context, exit *runtime.Exit, l runPeriod) {
	r.mu.Lock()
	_, asked := r.ooms[l.runtimeID]
	r.mu.Unlock()
	if asked || exit.Code != 128+sigkill || exit.Signal != 0 || exit.OOM || exit.DiskQuota {
		return
	}
	// A start is reported after the fact, so the kill may precede it.
	err := r.queryEvents(ctx, l.runtimeID, events.ActionOOM, l.ended.Add(-stopSignalTime), l.ended.Add(oomTimeout), func(events.Message) bool {
		exit.OOM = true
		return false
	})
	if err != nil {
		r.config.Logger.Warn("cannot learn whether a container was killed at its memory quota", "container", l.runtimeID, "error", err)
		return
	}
	r.mu.Lock()
	r.ooms[l.runtimeID] = r.ooms[l.runtimeID] || exit.OOM
	r.mu.Unlock()
}

// queryEvents passes the engine's events of one kind of a container between two times to next, until next returns false.
func (r *Runtime) queryEvents(
	ctx context.Context, runtimeID string, kind events.Action, since, until time.Time, next func(events.Message) bool,
) error {
	ctx, cancel := context.WithTimeout(ctx, recallTimeout)
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

// stamp formats a time for the engine.
func stamp(at time.Time) string { return fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond()) }
