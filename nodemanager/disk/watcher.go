package disk

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// A container is measured often after a change, and seldom when it is idle or large, but in time to stop it within five seconds of exceeding
// its quota, unless the engine is slow.
const (
	minInterval = time.Second
	maxInterval = 3 * time.Second
	// callTimeout is how long an engine may take to measure or to stop one container, while the others wait.
	callTimeout = 10 * time.Second
	// pauseFactor limits the time spent on one container: after a walk of 100 ms the next one begins 2 s later. It is between the two
	// intervals in any case.
	pauseFactor = 20
)

// Subject is a container whose quota is enforced.
type Subject struct {
	ID    id.Container
	Quota int64
	// Measure returns how much it has written.
	Measure func(ctx context.Context) (int64, error)
	// Exceeded stops it. It is called again, after a while, until the subject is removed.
	Exceeded func(ctx context.Context, used int64)
}

// Watcher measures containers and has those over their quota stopped. Its goroutine sleeps while there are none.
type Watcher struct {
	logger *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	wake   chan struct{}

	mu       sync.Mutex
	subjects map[id.Container]*subject
}

type subject struct {
	Subject
	used     int64
	interval time.Duration
	due      time.Time
}

// NewWatcher starts a watcher; Close ends it.
func NewWatcher(logger *slog.Logger) *Watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watcher{
		logger: logger, ctx: ctx, cancel: cancel,
		done: make(chan struct{}), wake: make(chan struct{}, 1), subjects: make(map[id.Container]*subject),
	}
	go w.run()
	return w
}

// Close ends the watcher and waits for it. It enforces no quota any more.
func (w *Watcher) Close() {
	w.cancel()
	<-w.done
}

// Add starts to watch a container, or replaces its subject.
func (w *Watcher) Add(s Subject) {
	w.mu.Lock()
	w.subjects[s.ID] = &subject{Subject: s, interval: minInterval, due: time.Now().Add(minInterval)}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Remove ends the watch of a container. It may be repeated.
func (w *Watcher) Remove(container id.Container) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.subjects, container)
}

func (w *Watcher) run() {
	defer close(w.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if next, any := w.next(); any {
			timer.Reset(time.Until(next))
		} else {
			timer.Stop()
		}
		select {
		case <-w.ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		for _, s := range w.dueNow(time.Now()) {
			w.measure(s)
		}
	}
}

func (w *Watcher) next() (next time.Time, any bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.subjects {
		if !any || s.due.Before(next) {
			next, any = s.due, true
		}
	}
	return next, any
}

func (w *Watcher) dueNow(now time.Time) []*subject {
	w.mu.Lock()
	defer w.mu.Unlock()
	var due []*subject
	for _, s := range w.subjects {
		if !s.due.After(now) {
			due = append(due, s)
		}
	}
	return due
}

// measure measures one container. Only the watcher's goroutine uses a subject's own fields, except due.
func (w *Watcher) measure(s *subject) {
	began := time.Now()
	measuring, cancel := context.WithTimeout(w.ctx, callTimeout)
	used, err := s.Measure(measuring)
	cancel()
	took := time.Since(began)
	switch {
	case w.ctx.Err() != nil:
		return
	case err != nil:
		w.logger.Debug("disk usage not measured", "container", s.ID.String(), "error", err)
	case used > s.Quota:
		w.logger.Info("disk quota exceeded", "container", s.ID.String(), "used", used, "quota", s.Quota)
		ending, cancel := context.WithTimeout(w.ctx, callTimeout)
		s.Exceeded(ending, used)
		cancel()
		s.interval = minInterval
	case used != s.used:
		s.interval = minInterval
	default:
		s.interval = min(s.interval*5/4, maxInterval)
	}
	s.used = used
	s.interval = max(s.interval, min(pauseFactor*took, maxInterval))
	w.mu.Lock()
	defer w.mu.Unlock()
	s.due = time.Now().Add(s.interval)
}
