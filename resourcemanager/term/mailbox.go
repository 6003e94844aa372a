package term

import (
	"context"
	"sync"
)

// mailbox hands values to one reader. Putting never waits, so that the loop can do it; the reader takes all that
// has gathered. All that others want of the zone comes through one.
type mailbox[T any] struct {
	mu     sync.Mutex
	items  []T
	closed bool
	err    error
	// wake holds one token while there is something to take or the mailbox is closed.
	wake chan struct{}
}

func newMailbox[T any]() *mailbox[T] {
	return &mailbox[T]{wake: make(chan struct{}, 1)}
}

// put reports how many values wait now; a closed mailbox drops them and says -1.
func (m *mailbox[T]) put(item T) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return -1
	}
	m.items = append(m.items, item)
	m.signal()
	return len(m.items)
}

// close lets the reader take what waits and then tells it err.
func (m *mailbox[T]) close(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.closed, m.err = true, err
	m.signal()
}

func (m *mailbox[T]) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take gives what waits, without waiting itself.
func (m *mailbox[T]) take() ([]T, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items = nil
	if !m.closed {
		return items, nil
	}
	m.signal() // the end is there to be taken for ever
	if len(items) > 0 {
		return items, nil
	}
	return nil, m.err
}

// Next waits for values and gives all that have gathered. It fails with what the mailbox was closed with, or
// with ctx's cause.
func (m *mailbox[T]) Next(ctx context.Context) ([]T, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-m.wake:
		}
		if items, err := m.take(); len(items) > 0 || err != nil {
			return items, err
		}
	}
}
