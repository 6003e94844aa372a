package runtime

import (
	"context"
	"sync"
)

// Events sends events to any number of watchers, none of which can block the sender. The zero value is ready for use.
type Events struct {
	mu       sync.Mutex
	watchers map[*watcher]struct{}
}

type watcher struct {
	// queue is what was not delivered yet; guarded by Events.mu.
	queue []Event
	wake  chan struct{}
	// cancel ends the watch from this side.
	cancel context.CancelFunc
}

// Send queues an event for every watcher.
func (e *Events) Send(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for w := range e.watchers {
		w.queue = append(w.queue, event)
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Watch delivers every event sent after the call, in order, until ctx ends or Disconnect is called. Then the channel is
// closed.
func (e *Events) Watch(ctx context.Context) <-chan Event {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{wake: make(chan struct{}, 1), cancel: cancel}
	e.mu.Lock()
	if e.watchers == nil {
		e.watchers = make(map[*watcher]struct{})
	}
	e.watchers[w] = struct{}{}
	e.mu.Unlock()

	events := make(chan Event)
	go func() {
		defer close(events)
		defer func() {
			e.mu.Lock()
			delete(e.watchers, w)
			e.mu.Unlock()
			cancel()
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			}
			e.mu.Lock()
			queue := w.queue
			w.queue = nil
			e.mu.Unlock()
			for _, event := range queue {
				select {
				case <-ctx.Done():
					return
				case events <- event:
				}
			}
		}
	}()
	return events
}

// Disconnect ends every watch, as the loss of an engine does.
func (e *Events) Disconnect() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for w := range e.watchers {
		w.cancel()
	}
}
