package zk

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/go-zookeeper/zk"
)

// Watch follows one node or its children. It returns the newest state, not every state in between, and misses none: it reads
// after every event and after every new connection. One goroutine uses it at a time.
type Watch[T any] struct {
	client *Client
	name   string
	// Reads the present state, and returns the event of its next change.
	arm  func(full string) (T, <-chan zk.Event, error)
	read func(full string) (T, error)
	same func(a, b T) bool

	events     <-chan zk.Event
	connection int64
	last       T
	returned   bool
}

// Watch follows a node's data. The node need not exist.
func (c *Client) Watch(name string) *Watch[Node] {
	return &Watch[Node]{
		client: c, name: name,
		arm: func(full string) (Node, <-chan zk.Event, error) {
			data, stat, events, err := c.conn.GetW(full)
			if err == nil {
				return nodeOf(data, stat), events, nil
			}
			if !errors.Is(err, zk.ErrNoNode) {
				return Node{}, nil, err
			}
			exists, _, events, err := c.conn.ExistsW(full)
			if err == nil && exists {
				// It was created in between: read it.
				return Node{}, closedEvents(), errAgain
			}
			return Node{}, events, err
		},
		read: func(full string) (Node, error) {
			data, stat, err := c.conn.Get(full)
			if errors.Is(err, zk.ErrNoNode) {
				return Node{}, nil
			}
			if err != nil {
				return Node{}, err
			}
			return nodeOf(data, stat), nil
		},
		same: func(a, b Node) bool { return a.Exists == b.Exists && a.made == b.made && a.changed == b.changed },
	}
}

// WatchChildren follows the sorted names of a node's children. A node that does not exist has none.
func (c *Client) WatchChildren(name string) *Watch[[]string] {
	return &Watch[[]string]{
		client: c, name: name,
		arm: func(full string) ([]string, <-chan zk.Event, error) {
			names, _, events, err := c.conn.ChildrenW(full)
			if errors.Is(err, zk.ErrNoNode) {
				var exists bool
				exists, _, events, err = c.conn.ExistsW(full)
				if err == nil && exists {
					return nil, closedEvents(), errAgain
				}
			}
			slices.Sort(names)
			return names, events, err
		},
		read: func(full string) ([]string, error) {
			names, _, err := c.conn.Children(full)
			if errors.Is(err, zk.ErrNoNode) {
				return nil, nil
			}
			slices.Sort(names)
			return names, err
		},
		same: slices.Equal[[]string],
	}
}

// errAgain makes Next read again at once.
var errAgain = errors.New("it changed while it was read")

func closedEvents() <-chan zk.Event {
	events := make(chan zk.Event)
	close(events)
	return events
}

// Next returns the present state the first time, and then waits for a different one. It waits for a connection. It fails
// when ctx ends, when the client is closed, and when the node may not be read.
func (w *Watch[T]) Next(ctx context.Context) (T, error) {
	for {
		state, err := w.client.AwaitConnected(ctx)
		if err != nil {
			return w.last, err
		}
		now, err := w.look(ctx, state)
		switch {
		case errors.Is(err, errAgain):
			continue
		case errors.Is(err, errdefs.ErrUnavailable) && ctx.Err() == nil && w.client.ended.Err() == nil:
			pause(ctx, 5*time.Millisecond)
			continue
		case err != nil:
			return w.last, err
		case !w.returned || !w.same(w.last, now):
			w.last, w.returned = now, true
			return now, nil
		}
		if err := w.wait(ctx); err != nil {
			return w.last, err
		}
	}
}

// look reads the state. An existing watch is kept: the library sets it again on a new connection.
func (w *Watch[T]) look(ctx context.Context, state State) (T, error) {
	w.connection = state.Connection
	if w.events != nil {
		return call(ctx, w.client, "watching", w.name, w.read)
	}
	type armed struct {
		value  T
		events <-chan zk.Event
	}
	result, err := call(ctx, w.client, "watching", w.name, func(full string) (armed, error) {
		value, events, err := w.arm(full)
		return armed{value, events}, err
	})
	if err == nil {
		w.events = result.events
	}
	return result.value, err
}

// wait returns when there may be something new.
func (w *Watch[T]) wait(ctx context.Context) error {
	for {
		state, changed := w.client.State()
		if state.Connected && state.Connection != w.connection {
			return nil
		}
		select {
		case <-w.events:
			w.events = nil
			return nil
		case <-changed:
		case <-w.client.ended.Done():
			return errClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
