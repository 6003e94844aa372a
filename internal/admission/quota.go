// Package admission limits how many things each caller, and all callers together, may have open that cost memory or file
// descriptors: connections, streams, requests in progress.
//
// It owns the counts. A Listener counts connections, a Quota anything else; who is over the limit is refused, and never waits.
package admission

import (
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
)

// Quota limits how many of a thing may be open at once. It may be used by many goroutines.
type Quota struct {
	what             string
	perCaller, inAll int
	mu               sync.Mutex
	callers          map[string]int
	total            int
}

// NewQuota returns a quota for each caller and in all; what is the counted thing, a noun in the plural.
func NewQuota(what string, perCaller, inAll int) *Quota {
	return &Quota{what: what, perCaller: perCaller, inAll: inAll, callers: map[string]int{}}
}

// Take counts one more for a caller until release is called. At a limit it fails with errdefs.ErrResourceExhausted.
func (q *Quota) Take(caller string) (release func(), err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.callers[caller] >= q.perCaller:
		return nil, fmt.Errorf("you have %d %s open, and one caller may not have more; close some of them first: %w", q.callers[caller], q.what, errdefs.ErrResourceExhausted)
	case q.total >= q.inAll:
		return nil, fmt.Errorf("%d %s are open, and there cannot be more at once; try again later: %w", q.total, q.what, errdefs.ErrResourceExhausted)
	}
	q.callers[caller]++
	q.total++
	return sync.OnceFunc(func() { q.giveBack(caller) }), nil
}

func (q *Quota) giveBack(caller string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total--
	if q.callers[caller]--; q.callers[caller] == 0 {
		delete(q.callers, caller)
	}
}
