package scheduler

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/heap"
)

// bucket is the asks of one leaf, user and shape, in the order in which they are served. Masters, asks that outlast a window and asks of unknown
// duration are apart from others. Each gang, and each app of a fair leaf, has a bucket of its own.
type bucket struct {
	key   bucketKey
	leaf  *queue
	shape *shape
	state bucketState
	// index is the bucket's index in the heap of its state.
	index int32
	// asks are its asks in their order.
	asks heap.Heap[queued]
	// missing is how many containers of a gang found no room at the last try, minus how many would fit into the room that came back
	// since.
	missing int64
	// claimAfter is when the bucket may make claims again, after no victims were found.
	claimAfter time.Time
}

// bucketKey is what the asks of a bucket of a shape have in common.
type bucketKey struct {
	leaf   *queue
	user   string
	app    *app
	gang   *ask
	master bool
	// outlasting is true for asks that would outlast the window of a contract. While a window closes, asks of unknown duration are
	// granted nothing of what returns.
	outlasting, unknownDuration bool
}

// bucketState is what a bucket waits for.
type bucketState uint8

const (
	// empty has no asks.
	empty bucketState = iota
	// ready is to be served.
	ready
	// blocked waits for capacity: its shape fits on no node.
	blocked
	// limited waits until the queue whose limit it would exceed holds less.
	limited
)

func (b *bucket) HeapIndex() *int32 { return &b.index }

func (b *bucket) Before(other *bucket) bool {
	k, l := b.asks.Items()[0].ask, other.asks.Items()[0].ask
	if b.leaf.spec.Fair && k.app != l.app {
		if k.app.priority != l.app.priority {
			return k.app.priority > l.app.priority
		}
		if k.app.share != l.app.share {
			return k.app.share < l.app.share
		}
	}
	return b.asks.Items()[0].Before(other.asks.Items()[0])
}

// first is the ask that is served next.
func (b *bucket) first() *ask { return b.asks.Items()[0].ask }

// queueBacklog is the backlog's part of a queue.
type queueBacklog struct {
	// ready are a leaf's buckets that are to be served, in their order.
	ready heap.Heap[*bucket]
	// blocked are a leaf's buckets that wait for capacity.
	blocked heap.Heap[*bucket]
	// limited are the buckets that wait for this queue to hold less.
	limited []*bucket
}

func (q *queueBacklog) hasReady() bool { return len(q.ready.Items()) > 0 }

// first is the ready bucket that is served next.
func (q *queueBacklog) first() *bucket { return q.ready.Items()[0] }

func (q *queueBacklog) hasLimited() bool { return len(q.limited) > 0 }

func (q *queueBacklog) hasBlocked() bool { return len(q.blocked.Items()) > 0 }

// appendBlocked appends the blocked buckets in their order. It does not use the order of the heap, which depends on its history:
// decisions must not.
func (q *queueBacklog) appendBlocked(buckets []*bucket) []*bucket {
	buckets = append(buckets, q.blocked.Items()...)
	slices.SortFunc(buckets, func(x, y *bucket) int {
		if x.Before(y) {
			return -1
		}
		return 1
	})
	return buckets
}

// shapeBacklog is the backlog's part of a shape.
type shapeBacklog struct {
	// blocked is set while no node fits.
	blocked bool
	// watched is set while the shape is among those that are offered nodes, because it has misfits or blocked buckets.
	watched bool
	// blockedBuckets is how many of its buckets are blocked.
	blockedBuckets int
	// buckets are the buckets of its asks, and some empty ones.
	buckets []*bucket
	// asks is how many asks have the shape.
	asks int
}

func (s *shape) bucket(key bucketKey) *bucket {
	for _, b := range s.backlog.buckets {
		if b.key == key {
			return b
		}
	}
	b := &bucket{key: key, leaf: key.leaf, shape: s, index: -1}
	s.backlog.buckets = append(s.backlog.buckets, b)
	if key.app != nil {
		key.app.buckets = append(key.app.buckets, b)
	}
	return b
}
