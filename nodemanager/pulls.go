package nodemanager

import "sync"

// pulls tells how many bytes had to be fetched for an image that several containers wait for: each of them waited
// for all that was fetched since the first of them came.
type pulls struct {
	layers Layers // may be nil

	mu       sync.Mutex
	underway map[string]*pull
}

type pull struct {
	before  int64
	waiting int
}

func newPulls(layers Layers) *pulls { return &pulls{layers: layers, underway: map[string]*pull{}} }

// join notes that somebody waits for an image. What it gives must be called once, at the end, and says how many
// bytes were fetched.
func (p *pulls) join(image string) (moved func() int64) {
	if p.layers == nil || image == "" {
		return func() int64 { return 0 }
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.underway[image]
	if one == nil {
		one = &pull{before: p.layers.Moved(image)}
		p.underway[image] = one
	}
	one.waiting++
	return func() int64 {
		p.mu.Lock()
		defer p.mu.Unlock()
		if one.waiting--; one.waiting == 0 {
			delete(p.underway, image)
		}
		return p.layers.Moved(image) - one.before
	}
}
