package images

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/mammoth-os/mammoth/internal/peer"
)

const (
	// examinedAtOnce is how many images are unpacked and read side by side, and examinedAtOnceOfOne how many of one user:
	// each takes a core for as long as it lasts.
	examinedAtOnce      = 4
	examinedAtOnceOfOne = 2
)

// turns has images examined a few at a time. Whoever waits is served in the order of coming.
type turns struct {
	all *semaphore.Weighted

	mu sync.Mutex
	// users has one entry for each user that was ever here.
	users map[peer.User]*semaphore.Weighted
}

func newTurns() *turns {
	return &turns{all: semaphore.NewWeighted(examinedAtOnce), users: map[peer.User]*semaphore.Weighted{}}
}

// begin waits for the user's turn. The caller calls finish when it is done.
func (t *turns) begin(ctx context.Context, who peer.User) (finish func(), err error) {
	t.mu.Lock()
	mine := t.users[who]
	if mine == nil {
		mine = semaphore.NewWeighted(examinedAtOnceOfOne)
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
