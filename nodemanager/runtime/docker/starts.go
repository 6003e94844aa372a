package docker

import (
	"context"
	"sync"

	"github.com/mammoth-os/mammoth/internal/id"
)

// starts owns which containers are being started: one start of a container at a time, and a limited number of all.
type starts struct {
	slots chan struct{}

	mu sync.Mutex
	// running has the containers with a start in progress; the channel is closed at its end.
	running map[id.Container]chan struct{}
}

func newStarts(most int) *starts {
	return &starts{slots: make(chan struct{}, most), running: make(map[id.Container]chan struct{})}
}

// acquire serialises the starts of one container, and limits those of all.
func (s *starts) acquire(ctx context.Context, key id.Container) (done func(), err error) {
	for {
		s.mu.Lock()
		other := s.running[key]
		if other == nil {
			break
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	mine := make(chan struct{})
	s.running[key] = mine
	s.mu.Unlock()
	finish := func() {
		s.mu.Lock()
		delete(s.running, key)
		s.mu.Unlock()
		close(mine)
	}
	if ctx.Err() == nil {
		select {
		case s.slots <- struct{}{}:
			return func() { <-s.slots; finish() }, nil
		case <-ctx.Done():
		}
	}
	finish()
	return nil, context.Cause(ctx)
}
