// Package eventlog keeps the newest events of a zone in memory for any number of readers. One writer adds events. A reader has only
// a position, so a slow reader costs no memory.
//
// A Log owns its events and forgets the oldest. Events that have to outlive the process are in package store.
package eventlog

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Kinds are the kinds of objects that events are about.
var Kinds = []string{"app", "attempt", "balancer", "container", "instance", "lending", "node", "queue", "status", "zone"}

// CheckKind returns an error for a kind that does not exist.
func CheckKind(kind string) error {
	if kind == "" || slices.Contains(Kinds, kind) {
		return nil
	}
	return fmt.Errorf("no event is of the kind %q; the kinds are %s: %w", kind, strings.Join(Kinds, ", "), errdefs.ErrInvalidArgument)
}

// pageSize is how many events Next examines while it holds the lock, and so the most that it returns.
const pageSize = 256

// Log has the newest events, in the order of their sequence numbers. Events must not be changed after Add.
type Log struct {
	keep int

	mu     sync.RWMutex
	events []*apiv1.Event
	// dropped is the sequence number of the newest event that was dropped; zero if none was.
	dropped int64
	// grown is closed at the next Add.
	grown  chan struct{}
	closed error
}

// New returns an empty log that keeps the newest keep events.
func New(keep int) *Log { return &Log{keep: keep, grown: make(chan struct{})} }

// Add appends events whose sequence numbers rise.
func (l *Log) Add(events ...*apiv1.Event) {
	if len(events) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, events...)
	if over := len(l.events) - l.keep; over > l.keep/4 {
		// Readers may still use the old array.
		l.dropped = l.events[over-1].GetSequence()
		l.events = slices.Clone(l.events[over:])
	}
	l.wake()
}

// Close ends every reader with err once it has read all events.
func (l *Log) Close(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = err
	l.wake()
}

func (l *Log) wake() {
	close(l.grown)
	l.grown = make(chan struct{})
}

// Read returns a reader of the events that a request selects. With follow it continues with later ones.
func (l *Log) Read(request *apiv1.WatchEventsRequest) *Reader {
	r := &Reader{log: l, request: request, after: request.GetAfter()}
	l.mu.RLock()
	events := l.events
	l.mu.RUnlock()
	// Events that were dropped before the reader began do not count as missed.
	if len(events) > 0 {
		r.after = max(r.after, events[0].GetSequence()-1)
		r.last = events[len(events)-1].GetSequence()
	}
	switch tail := int(request.GetTail()); {
	case tail > 0:
		r.after = max(r.after, before(events, tail, r.matches))
	case request.Tail != nil:
		r.after = max(r.after, r.last)
	}
	return r
}

// before is the sequence number before the last n events that match.
func before(events []*apiv1.Event, n int, matches func(*apiv1.Event) bool) int64 {
	for _, event := range slices.Backward(events) {
		if matches(event) {
			if n--; n == 0 {
				return event.GetSequence() - 1
			}
		}
	}
	return 0
}

// Reader is one reader's position. One goroutine uses it at a time.
type Reader struct {
	log     *Log
	request *apiv1.WatchEventsRequest
	after   int64
	// last is the newest event at the time of Read.
	last int64
}

// Next returns the next events that match, at most 256. After the last one it waits if the reader follows, else it fails with
// io.EOF. It fails with ErrResourceExhausted if events were dropped that the reader has not seen, with the error of Close, or with
// ctx's cause.
func (r *Reader) Next(ctx context.Context) ([]*apiv1.Event, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		page, grown, err := r.page()
		if err != nil {
			return nil, err
		}
		if len(page) > 0 {
			r.after = page[len(page)-1].GetSequence()
			if found := r.filter(page); len(found) > 0 {
				return found, nil
			}
			continue
		}
		if !r.request.GetFollow() {
			return nil, io.EOF
		}
		select {
		case <-grown:
		case <-ctx.Done():
		}
	}
}

// Close does nothing: a reader has no resources.
func (r *Reader) Close() {}

// page returns the events after the reader's position or, if there are none, a channel that is closed when there are.
func (r *Reader) page() ([]*apiv1.Event, <-chan struct{}, error) {
	l := r.log
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.dropped > r.after {
		return nil, nil, fmt.Errorf("you are more than %d events behind; watch again after the last one you have seen: %w", l.keep, errdefs.ErrResourceExhausted)
	}
	from, _ := slices.BinarySearchFunc(l.events, r.after+1, func(e *apiv1.Event, sequence int64) int {
		return int(min(1, max(-1, e.GetSequence()-sequence)))
	})
	page := l.events[from:min(len(l.events), from+pageSize)]
	if !r.request.GetFollow() {
		page = page[:len(page)-beyond(page, r.last)]
	}
	if len(page) == 0 && l.closed != nil {
		return nil, nil, l.closed
	}
	return page, l.grown, nil
}

// beyond counts the events at the end of a page that are newer than last.
func beyond(page []*apiv1.Event, last int64) int {
	n := 0
	for _, event := range slices.Backward(page) {
		if event.GetSequence() <= last {
			break
		}
		n++
	}
	return n
}

func (r *Reader) filter(page []*apiv1.Event) []*apiv1.Event {
	var found []*apiv1.Event
	for _, event := range page {
		if r.matches(event) {
			found = append(found, event)
		}
	}
	return found
}

func (r *Reader) matches(event *apiv1.Event) bool {
	return (r.request.GetApp() == "" || r.request.GetApp() == event.GetApp()) &&
		(r.request.GetNode() == "" || r.request.GetNode() == event.GetNode()) &&
		(r.request.GetKind() == "" || r.request.GetKind() == event.GetKind())
}
