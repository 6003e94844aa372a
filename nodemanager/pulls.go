package nodemanager

import "sync"

// pulls counts the bytes that were fetched for an image while several containers waited for it: each of them counts
// everything since the first began to wait.
type pulls struct {
	layers Layers // may be nil

	mu     sync.Mutex
	active map[string]*pull
}

type pull struct {
	before  int64
	waiting int
}

func newPulls(layers Layers) *pulls { return &pulls{layers: layers, active: map[string]*pull{}} }

// join begins to wait for an image. The result must be called once, at the end, and returns how many bytes were fetched.
func (p *pulls) join(image string) (moved func() int64) {
	if p.layers == nil || image == "" {
		return func() int64 { return 0 }
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.active[image]
	if one == nil {
		one = &pull{before: p.layers.Fetched(image)}
		p.active[image] = one
	}
	one.waiting++
	return func() int64 {
		p.mu.Lock()
		defer p.mu.Unlock()
		if one.waiting--; one.waiting == 0 {
			delete(p.active, image)
		}
		return p.layers.Fetched(image) - one.before
	}
}
