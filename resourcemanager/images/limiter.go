package images

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/mammoth-os/mammoth/internal/peer"
)

const (
	// maxExaminations is how many images are examined at the same time, maxUserExaminations how many of one user: each
	// occupies a core.
	maxExaminations     = 4
	maxUserExaminations = 2
)

// limiter limits the examinations at the same time. Waiting ones are served in order.
type limiter struct {
	all *semaphore.Weighted

	mu sync.Mutex
	// users has an entry for every user so far.
	users map[peer.User]*semaphore.Weighted
}

func newLimiter() *limiter {
	return &limiter{all: semaphore.NewWeighted(maxExaminations), users: map[peer.User]*semaphore.Weighted{}}
}

// acquire waits for a free slot of the user. The caller calls finish when it is done.
func (t *limiter) acquire(ctx context.Context, who peer.User) (finish func(), err error) {
	t.mu.Lock()
	mine := t.users[who]
	if mine == nil {
		mine = semaphore.NewWeighted(maxUserExaminations)
		t.users[who] = mine
	}
	t.mu.Unlock()
	if err := mine.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	if err := t.all.Acquire(ctx, 1); err != nil {
		mine.Release(1)
		return nil, err
	}
	return func() { t.all.Release(1); mine.Release(1) }, nil
}
