package zktest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/go-zookeeper/zk"
)

// Watch follows one node or its children. It returns the newest state, not every state in between. One goroutine uses it at a time.
type Watch[T any] struct {
	// Reads the present state, and returns the event of its next change.
	arm  func() (T, <-chan zk.Event, error)
	same func(a, b T) bool

	events <-chan zk.Event
	last   T
	known  bool
}

// Node is the content of a node.
type Node struct {
	Exists bool
	Data   []byte
	// The transactions that made the node and changed it last.
	made, changed int64
}

// Watch follows a node's data. The node need not exist.
func (s *Server) Watch(name string) *Watch[Node] {
	return &Watch[Node]{
		arm: func() (Node, <-chan zk.Event, error) {
			conn := s.connection()
			data, stat, events, err := conn.GetW(name)
			if err == nil {
				return Node{true, data, stat.Czxid, stat.Mzxid}, events, nil
			}
			if !errors.Is(err, zk.ErrNoNode) {
				return Node{}, nil, err
			}
			events, err = absent(conn, name)
			return Node{}, events, err
		},
		same: func(a, b Node) bool { return a.Exists == b.Exists && a.made == b.made && a.changed == b.changed },
	}
}

// WatchChildren follows the sorted names of a node's children. A node that does not exist has none.
func (s *Server) WatchChildren(name string) *Watch[[]string] {
	return &Watch[[]string]{
		arm: func() ([]string, <-chan zk.Event, error) {
			conn := s.connection()
			names, _, events, err := conn.ChildrenW(name)
			if errors.Is(err, zk.ErrNoNode) {
				events, err = absent(conn, name)
			}
			slices.Sort(names)
			return names, events, err
		},
		same: slices.Equal[[]string],
	}
}

var errMade = errors.New("it was made meanwhile")

// absent returns the event by which a node is made.
func absent(conn *zk.Conn, name string) (<-chan zk.Event, error) {
	exists, _, events, err := conn.ExistsW(name)
	if err == nil && exists {
		err = errMade
	}
	return events, err
}

// Next returns the present state the first time, and then waits for a different one. It fails when ctx ends.
func (w *Watch[T]) Next(ctx context.Context) (T, error) {
	for {
		if w.events != nil {
			select {
			case <-w.events:
			case <-ctx.Done():
				return w.last, context.Cause(ctx)
			}
		}
		now, events, err := w.arm()
		if err != nil {
			// Without a connection, for example.
			w.events = nil
			if pause(ctx, 5*time.Millisecond); ctx.Err() != nil {
				return w.last, errors.Join(context.Cause(ctx), err)
			}
			continue
		}
		w.events = events
		if !w.known || !w.same(w.last, now) {
			w.last, w.known = now, true
			return now, nil
		}
	}
}

// connection is the server's own client, which all watches share.
func (s *Server) connection() *zk.Conn {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		conn, _, err := zk.Connect([]string{s.Address}, time.Minute, zk.WithLogInfo(false), zk.WithLogger(silent{}))
		if err != nil {
			s.t.Fatal(err)
		}
		s.conn = conn
		s.t.Cleanup(conn.Close)
	}
	return s.conn
}

// disconnect closes the client, which ends all watches that are armed. A client that connects again sets them again by itself, and reads the
// last transaction for that while it writes it.
func (s *Server) disconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

type silent struct{}

func (silent) Printf(string, ...any) {}
