package disk

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// How often a container is measured: often after a change, seldom when it is idle or large, and always in time
// to stop it within five seconds of what it wrote.
const (
	minInterval = time.Second
	maxInterval = 3 * time.Second
	// answerWithin is how long an engine may take to measure or to end one container: the others wait for it.
	answerWithin = 10 * time.Second
	// share bounds the time spent on measuring one container: a walk of 20 ms is repeated every 400 ms or later.
	share = 20
)

// Subject is one container to hold to its quota.
type Subject struct {
	ID    id.Container
	Quota int64
	// Measure is how much it has written.
	Measure func(ctx context.Context) (int64, error)
	// Exceeded ends it. It is called again, after a while, until the subject is removed.
	Exceeded func(ctx context.Context, used int64)
}

// Watcher measures containers and ends those that are over their quota. Its one goroutine sleeps while there is
// nothing to measure.
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

// Close ends the watcher and waits for it. Nobody is held to a quota by it any more.
func (w *Watcher) Close() {
	w.cancel()
	<-w.done
}

// Add begins to watch a container, or goes on with its new subject.
func (w *Watcher) Add(s Subject) {
	w.mu.Lock()
	w.subjects[s.ID] = &subject{Subject: s, interval: minInterval, due: time.Now().Add(minInterval)}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Remove ends the watch over a container; it may not have been there.
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

// measure looks at one container. Only the watcher's goroutine touches a subject's own fields besides due.
func (w *Watcher) measure(s *subject) {
	began := time.Now()
	measuring, cancel := context.WithTimeout(w.ctx, answerWithin)
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
		ending, cancel := context.WithTimeout(w.ctx, answerWithin)
		s.Exceeded(ending, used)
		cancel()
		s.interval = minInterval
	case used != s.used:
		s.interval = minInterval
	default:
		s.interval = min(s.interval*5/4, maxInterval)
	}
	s.used = used
	s.interval = max(s.interval, min(share*took, maxInterval))
	w.mu.Lock()
	defer w.mu.Unlock()
	s.due = time.Now().Add(s.interval)
}
