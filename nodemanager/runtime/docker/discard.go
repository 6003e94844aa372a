package docker

import (
	"context"
	"sync"
)

// discards owns which containers were removed before their start was reported: their end is not reported either.
type discards struct {
	engine *engine

	mu sync.Mutex
	// ids are the engine's.
	ids map[string]bool
}

// discard removes a container that was never reported, also when ctx has ended.
func (d *discards) discard(ctx context.Context, runtimeID string) error {
	d.mu.Lock()
	if len(d.ids) > 1000 { // their events were missed
		clear(d.ids)
	}
	d.ids[runtimeID] = true
	d.mu.Unlock()
	err := d.engine.removeByForce(ctx, runtimeID)
	if err != nil { // It may continue and be adopted; then its end is reported.
		d.take(runtimeID)
	}
	return err
}

// take reports whether a container was discarded, and forgets it.
func (d *discards) take(runtimeID string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	discarded := d.ids[runtimeID]
	delete(d.ids, runtimeID)
	return discarded
}
