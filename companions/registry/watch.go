package registry

import (
	"context"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Watch follows one service. No change between the first state and the next ones is missed. One goroutine uses a Watch at a
// time.
type Watch struct {
	registry *Registry
	name     string
	entry    *service
	seen     int64
	started  bool
}

// Watch starts to follow a service that may or may not exist. Next returns once the service's index is above after; with a
// negative after the first Next returns at once.
func (r *Registry) Watch(name string, after int64) *Watch {
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := r.entry(name)
	entry.watches++
	return &Watch{registry: r, name: name, entry: entry, seen: after, started: after >= 0}
}

// Next waits for a newer state than the last returned one, and returns the newest. A service that does not exist has no
// endpoints, and exists is false. The answer must not be changed. When ctx ends, Next returns the present state and the
// cause.
func (w *Watch) Next(ctx context.Context) (current *apiv1.Service, exists bool, err error) {
	for {
		w.registry.mu.Lock()
		current, exists := w.registry.state(w.name, w.entry)
		if !w.started || current.GetIndex() > w.seen {
			w.registry.mu.Unlock()
			w.started = true
			w.seen = current.GetIndex()
			return current, exists, nil
		}
		if w.entry.changed == nil {
			w.entry.changed = make(chan struct{})
		}
		changed := w.entry.changed
		w.registry.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return current, exists, context.Cause(ctx)
		}
	}
}

// Close ends the watch.
func (w *Watch) Close() {
	w.registry.mu.Lock()
	defer w.registry.mu.Unlock()
	w.entry.watches--
	w.registry.discard(w.name, w.entry)
}

// Changes are the changes of a set of services.
type Changes struct {
	// Services that are new or changed.
	Changed []*apiv1.Service
	// Names of services that were removed.
	Removed []string
}

// WatchAll follows every service of the zone. One goroutine uses it at a time.
type WatchAll struct {
	registry *Registry
	known    map[string]int64
	started  bool
}

// WatchAll starts to follow every service.
func (r *Registry) WatchAll() *WatchAll {
	return &WatchAll{registry: r, known: map[string]int64{}}
}

// Next returns the difference to the last call: the first time everything, at once; later it waits for a change. When ctx
// ends it returns the cause.
func (w *WatchAll) Next(ctx context.Context) (Changes, error) {
	for {
		changes, changed := w.poll()
		if changed == nil {
			w.started = true
			return changes, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Changes{}, context.Cause(ctx)
		}
	}
}

// poll returns what is new, or else a channel that is closed when something is.
func (w *WatchAll) poll() (Changes, <-chan struct{}) {
	r := w.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held {
		return Changes{}, r.change()
	}
	changes := Changes{}
	for name, entry := range r.services {
		if entry.current != nil && entry.current.GetIndex() != w.known[name] {
			w.known[name] = entry.current.GetIndex()
			changes.Changed = append(changes.Changed, entry.current)
		}
	}
	for name := range w.known {
		if entry := r.services[name]; entry == nil || entry.current == nil {
			delete(w.known, name)
			changes.Removed = append(changes.Removed, name)
		}
	}
	if !w.started || len(changes.Changed)+len(changes.Removed) > 0 {
		return changes, nil
	}
	return Changes{}, r.change()
}

// change is a channel that is closed at the next change. Callers hold the lock.
func (r *Registry) change() <-chan struct{} {
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}
