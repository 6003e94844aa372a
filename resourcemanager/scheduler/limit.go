package scheduler

import (
	"fmt"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// limit is a limit that an ask would exceed, although nodes may have room. The zero limit is none.
type limit struct {
	kind limitKind
	// queue is the queue with the limit, which has to hold less.
	queue *queue
	// dim is the resource that would exceed the limit.
	dim int
	// contract is the contract that reserves the room for its lender.
	contract *contract
}

type limitKind uint8

const (
	noLimit limitKind = iota
	// stoppedLimit: the queue is stopped.
	stoppedLimit
	// maximumLimit: the queue would hold more than its maximum.
	maximumLimit
	// userLimit: the user would hold more in the leaf than one may.
	userLimit
	// masterLimit: application masters would hold more in the leaf than they may.
	masterLimit
	// lendingLimit: a contract reserves the room.
	lendingLimit
)

// limit is the first limit that an ask would exceed with need more.
func (t *tree) limit(k *ask, need *resource.Vector) limit {
	leaf := k.app.leaf
	if dim := exceeds(&k.app.owner.used, need, &k.app.owner.limit); dim >= 0 {
		return limit{kind: userLimit, queue: leaf, dim: dim}
	}
	// A queue may always have one master: without it no app could start there.
	if k.spec.Master && !leaf.masters.IsZero() {
		if dim := exceeds(&leaf.masters, need, &leaf.masterLimit); dim >= 0 {
			return limit{kind: masterLimit, queue: leaf, dim: dim}
		}
	}
	for q := leaf; q != nil; q = q.parent {
		if q.spec.State == QueueStopped {
			return limit{kind: stoppedLimit, queue: q}
		}
		if !q.capped {
			continue
		}
		if dim := exceeds(&q.used, need, &q.maximum); dim >= 0 {
			return limit{kind: maximumLimit, queue: q, dim: dim}
		}
	}
	if reserving := t.lending.reserves(k, need); reserving != nil {
		return limit{kind: lendingLimit, queue: t.root(), contract: reserving}
	}
	return limit{}
}

// sentence describes how an ask would exceed the limit with need more; empty if there is no limit.
func (l *limit) sentence(schema resource.Schema, k *ask, need *resource.Vector, now time.Time) string {
	q, dim := l.queue, l.dim
	of := func(n int64) string { return amount(schema, dim, n) }
	switch l.kind {
	case stoppedLimit:
		return fmt.Sprintf("queue %s is stopped and grants nothing", q.spec.Name)
	case userLimit:
		return fmt.Sprintf("user %s holds %s in queue %s, where one user may hold %s; %s more are requested",
			quoteIfEmpty(k.app.user), of(k.app.owner.used[dim]), q.spec.Name, of(k.app.owner.limit[dim]), of(need[dim]))
	case masterLimit:
		return fmt.Sprintf("application masters hold %s in queue %s, where they may hold %s; %s more are requested",
			of(q.masters[dim]), q.spec.Name, of(q.masterLimit[dim]), of(need[dim]))
	case lendingLimit:
		if l.contract.phase != phaseGuarded && l.contract.isOutlastedBy(k, now) {
			return fmt.Sprintf("a container that runs for %s would outlast the window of contract %s, which closes at %s",
				k.spec.Duration, l.contract.spec.Name, l.contract.window.Close.UTC().Format(time.RFC3339))
		}
		return fmt.Sprintf("contract %s keeps what is left for queue %s", l.contract.spec.Name, l.contract.spec.Lender)
	case maximumLimit:
		return fmt.Sprintf("queue %s holds %s of its maximum of %s; %s more are requested",
			q.spec.Name, of(q.used[dim]), of(q.maximum[dim]), of(need[dim]))
	}
	return ""
}

// help is a sentence about a change after which need would not exceed the limit.
func (l *limit) help(schema resource.Schema, need *resource.Vector) string {
	q, dim := l.queue, l.dim
	switch l.kind {
	case maximumLimit:
		text := fmt.Sprintf("a maximum of queue %s of %s would be enough", q.spec.Name, amount(schema, dim, q.used[dim]+need[dim]))
		if left := q.maximum[dim] - q.used[dim]; left > 0 {
			text += fmt.Sprintf(", or asking for %s", amount(schema, dim, left))
		}
		return text
	case userLimit:
		return fmt.Sprintf("a larger userLimitPercent of queue %s would help, or ending something of the same user", q.spec.Name)
	case masterLimit:
		return fmt.Sprintf("a larger maxMasterPercent of queue %s would help, or ending another app there", q.spec.Name)
	case stoppedLimit:
		return fmt.Sprintf("start queue %s with \"mammoth queue set\"", q.spec.Name)
	}
	return ""
}

func quoteIfEmpty(name string) string {
	if name == "" {
		return `""`
	}
	return name
}
