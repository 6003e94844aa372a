package scheduler

import (
	"fmt"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// limitKind is what keeps an ask back though nodes may have room.
type limitKind uint8

const (
	noLimit limitKind = iota
	stoppedLimit
	maximumLimit
	userLimit
	masterLimit
	lendingLimit
)

// limit finds the first limit that need more would break for an ask, the queue that has it, and the place.
func (t *tree) limit(k *ask, need *resource.Vector) (limitKind, *queue, int) {
	leaf := k.app.leaf
	if place := exceeds(&k.app.owner.used, need, &k.app.owner.limit); place >= 0 {
		return userLimit, leaf, place
	}
	// The first of a queue may always have its master: without one no app could ever start there.
	if k.spec.Master && !leaf.masters.IsZero() {
		if place := exceeds(&leaf.masters, need, &leaf.masterLimit); place >= 0 {
			return masterLimit, leaf, place
		}
	}
	for q := leaf; q != nil; q = q.parent {
		if q.spec.State == QueueStopped {
			return stoppedLimit, q, 0
		}
		if !q.capped {
			continue
		}
		if place := exceeds(&q.used, need, &q.maximum); place >= 0 {
			return maximumLimit, q, place
		}
	}
	if t.lending.reserves(k, need) != nil {
		return lendingLimit, t.root(), 0
	}
	return noLimit, nil, -1
}

// limitSentence says which limit stands in an ask's way, if one does.
func (c *Core) limitSentence(k *ask, need *resource.Vector) string {
	kind, q, place := c.tree.limit(k, need)
	of := func(n int64) string { return amount(c.config.Schema, place, n) }
	switch kind {
	case stoppedLimit:
		return fmt.Sprintf("queue %s is stopped and grants nothing", q.spec.Name)
	case userLimit:
		return fmt.Sprintf("user %s holds %s in queue %s, where one user may hold %s; %s more are asked",
			quoteIfEmpty(k.app.user), of(k.app.owner.used[place]), q.spec.Name, of(k.app.owner.limit[place]), of(need[place]))
	case masterLimit:
		return fmt.Sprintf("application masters hold %s in queue %s, where they may hold %s; %s more are asked",
			of(q.masters[place]), q.spec.Name, of(q.masterLimit[place]), of(need[place]))
	case lendingLimit:
		lent := c.lending.reserves(k, need)
		if lent.phase != phaseGuard && c.lending.outlasts(k, lent) {
			return fmt.Sprintf("a container that runs for %s would outlast the window of contract %s, which closes at %s",
				k.spec.Duration, lent.spec.Name, lent.window.Close.UTC().Format(time.RFC3339))
		}
		return fmt.Sprintf("contract %s keeps what is left for queue %s", lent.spec.Name, lent.spec.Lender)
	case maximumLimit:
		return fmt.Sprintf("queue %s holds %s of its maximum of %s; %s more are asked",
			q.spec.Name, of(q.used[place]), of(q.maximum[place]), of(need[place]))
	}
	return ""
}

func quoteIfEmpty(name string) string {
	if name == "" {
		return `""`
	}
	return name
}
