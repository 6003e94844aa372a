package docker

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/signal"
)

const (
	// stopSignalTime is how long after a stop signal an end counts as its effect: the program may finish requests first.
	stopSignalTime = time.Minute
	// otherSignalTime is that time for all other signals, which most programs survive.
	otherSignalTime = 2 * time.Second
	sigkill         = int(unix.SIGKILL)
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

// signals owns what is known of the signals that containers were sent through the engine.
type signals struct {
	engine *engine
	logger *slog.Logger

	mu sync.Mutex
	// last has, by the engine's id, the last signal that each container was sent through the engine. An ended container without one
	// has the zero value once the engine was asked.
	last map[string]sentSignal
}

// sent records the engine's report of a signal.
func (s *signals) sent(runtimeID string, last sentSignal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[runtimeID] = last
}

// forget forgets the signals of a container that was started again or removed.
func (s *signals) forget(runtimeID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.last, runtimeID)
}

// needsStopSignal reports whether the last signal that was sent to a container is none by which programs usually end: it counts as a stop only
// if it is the container's own stop signal.
func (s *signals) needsStopSignal(runtimeID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last[runtimeID]
	return last.signal > 0 && !isStopSignal(last.signal)
}

// endedOf is the signal that a container has ended by; zero if the engine was asked to send none. Earlier events are
// requested from the engine if some may have been missed. The engine keeps only the last few hundred.
func (s *signals) endedOf(ctx context.Context, l runPeriod, missed bool) int {
	s.mu.Lock()
	last, known := s.last[l.runtimeID]
	s.mu.Unlock()
	settled := known && (last.signal == 0 || l.endedOf(last))
	if missed && !settled {
		recalled, err := s.recall(ctx, l)
		if err != nil {
			s.logger.Warn("cannot learn which signals a container was sent", "container", l.runtimeID, "error", err)
			return 0
		}
		last = recalled
		s.mu.Lock()
		s.last[l.runtimeID] = last
		s.mu.Unlock()
	}
	if !l.endedOf(last) {
		return 0
	}
	return last.signal
}

// recall requests the last signal that a container was sent while it last ran.
func (s *signals) recall(ctx context.Context, l runPeriod) (sentSignal, error) {
	var last sentSignal
	err := s.engine.queryEvents(ctx, l.runtimeID, events.ActionKill, l.earliest(), time.Now(), func(message events.Message) bool {
		last = sentBy(message)
		return true
	})
	return last, err
}
