package nodemanager

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
)

// inbox is the queue of messages to the owner. put never blocks, so that neither the owner nor an edge waits for the other.
type inbox struct {
	mu    sync.Mutex
	queue []func(*owner)
	wake  chan struct{}
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func (i *inbox) put(message func(*owner)) {
	i.mu.Lock()
	i.queue = append(i.queue, message)
	i.mu.Unlock()
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

func (i *inbox) take() []func(*owner) {
	i.mu.Lock()
	defer i.mu.Unlock()
	queue := i.queue
	i.queue = nil
	return queue
}

var errStopped = fmt.Errorf("the NodeManager is shutting down: %w", errdefs.ErrUnavailable)

// ask runs a question in the owner's goroutine.
func ask[T any](ctx context.Context, nm *NodeManager, question func(*owner) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	nm.inbox.put(func(o *owner) {
		value, err := question(o)
		answers <- answer{value, err}
	})
	select {
	case a := <-answers:
		return a.value, a.err
	case <-nm.stopped:
		var none T
		return none, errStopped
	case <-ctx.Done():
		var none T
		return none, errors.Join(ctx.Err(), context.Cause(ctx))
	}
}
