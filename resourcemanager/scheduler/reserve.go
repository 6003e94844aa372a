package scheduler

import (
	"cmp"
	stdheap "container/heap"
	"math"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// A reservation is bounded: an ask that cannot be met must not take the zone from all others.
const (
	// longestReservation is how long a reservation may last. It waits only for containers that end within this time,
	// or of which nobody knows when they end.
	longestReservation = 5 * time.Minute
	// reservedPercent is how much of the zone all reservations together may take, for each resource.
	reservedPercent = 50
	// longestPause is the longest back-off of an app whose reservations have failed.
	longestPause = time.Hour
)

// queueReservations counts the reservations for asks of a leaf.
type queueReservations struct {
	// count is how many nominations are reservations.
	count int
	// notBefore is when the leaf may have the next reservation.
	notBefore time.Time
}

// hasReservation reports whether something is reserved for an ask of the leaf.
func (q *queue) hasReservation() bool { return q.reservations.count > 0 }

const (
	// searchesPerPass is for how many asks a pass searches nodes to reserve. Each search examines all nodes, so that with manyNodes
	// a pass makes only one.
	searchesPerPass = 4
	manyNodes       = 20_000
)

// reserve reserves room for asks that have been blocked for too long, for one of each leaf at a time.
func (ns *nominations) reserve() {
	searches := searchesPerPass
	if len(ns.fleet.records()) > manyNodes {
		searches = 1
	}
	for {
		due, ok := ns.backlog.nextAgingAt()
		if !ok {
			return
		}
		if due.After(ns.pass.now) {
			ns.pass.nextBy(due)
			return
		}
		if searches == 0 {
			ns.pass.nextBy(ns.pass.now)
			return
		}
		k := ns.backlog.nextAged()
		if k == nil {
			continue
		}
		if k.blockedSince.IsZero() || k.blockedSince.Add(ns.reserveAfter).After(ns.pass.now) || len(k.nominations) > 0 {
			continue
		}
		if k.app.leaf.hasReservation() || k.app.leaf.reservations.notBefore.After(ns.pass.now) || k.app.noReserveBefore.After(ns.pass.now) {
			continue
		}
		count := 1
		if k.spec.Gang {
			// Only one gang has reservations at a time. Two gangs could each hold what the other needs.
			if ns.gangReserving != nil && ns.gangReserving.bucket != nil && len(ns.gangReserving.nominations) > 0 {
				continue
			}
			count = k.spec.Pending
		}
		whole := k.spec.Resources.Scale(int64(count))
		if ns.tree.limit(k, &whole).kind != noLimit || !ns.mayReserve(&whole) {
			continue
		}
		searches--
		k.reservedAt = ns.pass.now
		if !ns.reserveFor(k, count) {
			ns.backOff(k)
			continue
		}
		ns.reserving = append(ns.reserving, k)
		if k.spec.Gang {
			ns.gangReserving = k
		}
		ns.pass.nextBy(ns.pass.now.Add(longestReservation))
	}
}

// mayReserve reports whether more is within the limit of all reservations together.
func (ns *nominations) mayReserve(more *resource.Vector) bool {
	limit := ns.tree.zoneCapacity().Percent(reservedPercent)
	return exceeds(&ns.total, more, &limit) < 0
}

// endReservations ends the reservations that have lasted too long.
func (ns *nominations) endReservations() {
	ns.reserving = slices.DeleteFunc(ns.reserving, func(k *ask) bool {
		if !k.isReserving() {
			return true
		}
		if until := k.reservedAt.Add(longestReservation); until.After(ns.pass.now) {
			ns.pass.nextBy(until)
			return false
		}
		k.app.leaf.reservations.notBefore = ns.pass.now.Add(longestReservation)
		ns.withdrawAll(k)
		ns.backOff(k)
		return true
	})
}

// isReserving reports whether an ask has a reservation.
func (k *ask) isReserving() bool {
	return len(k.nominations) > 0 && k.nominations[0].reservingLeaf != nil
}

// backOff prevents reservations of an ask's app for a while, after one has failed or could not be made.
func (ns *nominations) backOff(k *ask) {
	pause := min(ns.reserveAfter<<min(k.app.failedReservations, 16), longestPause)
	k.app.failedReservations++
	k.app.noReserveBefore = ns.pass.now.Add(pause)
}

// reserveFor reserves room for count containers of an ask, or for none. It chooses the nodes that lack the least and on which that
// will become free. It examines all nodes once.
func (ns *nominations) reserveFor(k *ask, count int) bool {
	near := &ns.near
	*near = slices.Grow((*near)[:0], len(ns.fleet.records()))
	for _, n := range ns.fleet.records() {
		if lack, ok := ns.lack(k, n); ok {
			*near = append(*near, shortfall{n.slot, lack})
		}
	}
	stdheap.Init(near)
	for count > 0 {
		if len(*near) == 0 {
			ns.withdrawAll(k)
			return false
		}
		n := ns.fleet.at((*near)[0].slot)
		times := max(1, int(timesIn(&k.spec.Resources, ns.fleet.left(n))))
		if k.spec.MaxPerNode > 0 {
			times = min(times, k.spec.MaxPerNode-k.group.count(n.slot)-len(n.nominations))
		}
		if k.shape.repels(k.app.name) {
			times = 1
		}
		had := count
		for ; times > 0 && count > 0 && ns.reserveOn(k, n); times-- {
			count--
		}
		if lack, ok := ns.lack(k, n); ok && count < had {
			(*near)[0].lack = lack
			stdheap.Fix(near, 0)
		} else {
			stdheap.Pop(near)
		}
	}
	return true
}

// reserveOn reserves room for one container of an ask on a node, if there is enough, or will be once containers that end soon have
// ended. Until they have ended, others may use as much as they hold.
func (ns *nominations) reserveOn(k *ask, n *node) bool {
	need := &k.spec.Resources
	ns.awaited = ns.awaited[:0]
	room := *ns.fleet.left(n)
	for held := n.containers; held != nil && !fits(need, &room); held = held.nextOfNode {
		if ns.mayAwait(held, k) {
			ns.awaited = append(ns.awaited, held)
		}
	}
	slices.SortFunc(ns.awaited, func(x, y *container) int {
		return cmp.Or(cmp.Compare(x.latestEnd(), y.latestEnd()), x.startedAt.Compare(y.startedAt), x.id.Compare(y.id))
	})
	awaited := ns.awaited[:0]
	for _, held := range ns.awaited {
		lacking := need.Sub(room).Max(resource.Vector{})
		if helps(&held.need, &lacking) {
			awaited = append(awaited, held)
			room = room.Add(held.need)
		}
	}
	if !fits(need, &room) {
		return false
	}
	m := &nomination{ask: k, node: n, room: *need, reservingLeaf: k.app.leaf, awaited: &resource.Vector{}}
	for _, held := range awaited {
		held.awaitedBy, *m.awaited = m, m.awaited.Add(held.need)
	}
	m.reservingLeaf.reservations.count++
	ns.total = ns.total.Add(m.room)
	ns.add(m)
	return true
}

// mayAwait reports whether a reservation for an ask may wait for the end of a container. The container must have been granted
// before the reservation began: otherwise the reservation could wait for one new container after another.
func (ns *nominations) mayAwait(held *container, k *ask) bool {
	if held.service || held.awaitedBy != nil || held.startedAt.After(k.reservedAt) {
		return false
	}
	if held.notice != nil && held.notice.claim != nil {
		return false
	}
	end := held.startedAt.Add(held.duration)
	return held.duration == 0 || end.After(ns.pass.now) && !end.After(k.reservedAt.Add(longestReservation))
}

// latestEnd is when a container is expected to end, as a sort key; one of unknown duration comes last.
func (ctr *container) latestEnd() int64 {
	if ctr.duration == 0 {
		return math.MaxInt64
	}
	return ctr.startedAt.Add(ctr.duration).UnixNano()
}

// arrived gives a reservation the room of a container whose end it has waited for.
func (m *nomination) arrived(ctr *container) {
	n := m.node
	n.nominated = n.nominated.Sub(m.nominated())
	*m.awaited = m.awaited.Sub(ctr.need)
	n.nominated = n.nominated.Add(m.nominated())
	ctr.awaitedBy = nil
}

// endReservation updates the counts after a reservation was withdrawn.
func (ns *nominations) endReservation(m *nomination) {
	m.reservingLeaf.reservations.count--
	ns.total = ns.total.Sub(m.room)
	for held := m.node.containers; held != nil; held = held.nextOfNode {
		if held.awaitedBy == m {
			held.awaitedBy = nil
		}
	}
}

// yieldTo ends a reservation in favour of an ask that replaces a lost container, and returns the slot of the node that has room
// then; -1 if none helps.
func (ns *nominations) yieldTo(k *ask) int32 {
	for _, other := range ns.reserving {
		for _, m := range other.nominations {
			n, free := m.node, ns.fleet.left(m.node).Add(m.nominated())
			if m.reservingLeaf == nil || !n.isOpen() || !fits(&k.spec.Resources, &free) || !k.shape.allows(n) {
				continue
			}
			ns.withdrawAll(other)
			ns.backOff(other)
			k.shape.refit(n.slot)
			return n.slot
		}
	}
	return -1
}

// cancelReservation withdraws the reservations of an ask that would exceed a limit now.
func (ns *nominations) cancelReservation(k *ask) {
	if k.isReserving() {
		ns.withdrawAll(k)
	}
}

// lack is how much a node lacks for one container of an ask: the sum of the lacking shares of each needed resource. It is false for
// a node that is too small, has nominations for others, or on which services hold what is lacking.
func (ns *nominations) lack(k *ask, n *node) (float64, bool) {
	if !n.isOpen() || len(n.nominations) > 0 && n.nominations[0].ask != k || !k.shape.allows(n) {
		return 0, false
	}
	if k.spec.MaxPerNode > 0 && k.group.count(n.slot)+len(n.nominations) >= k.spec.MaxPerNode {
		return 0, false
	}
	if len(n.nominations) > 0 && k.shape.repels(k.app.name) {
		return 0, false
	}
	if room := ns.fleet.left(n).Add(n.ending); !fits(&k.spec.Resources, &room) {
		return 0, false
	}
	lack := 0.0
	for i := range k.spec.Resources {
		if short := k.spec.Resources[i] - ns.fleet.left(n)[i]; short > 0 && k.spec.Resources[i] > 0 {
			lack += float64(short) / float64(k.spec.Resources[i])
		}
	}
	return lack, true
}

// shortfall is how much the node of a slot lacks.
type shortfall struct {
	slot int32
	lack float64
}

// shortfalls is a heap of shortfalls, the smallest first.
type shortfalls []shortfall

func (s shortfalls) Len() int { return len(s) }

func (s shortfalls) Less(i, j int) bool {
	return s[i].lack < s[j].lack || s[i].lack == s[j].lack && s[i].slot < s[j].slot
}

func (s shortfalls) Swap(i, j int) { s[i], s[j] = s[j], s[i] }

func (s *shortfalls) Push(x any) { *s = append(*s, x.(shortfall)) }

func (s *shortfalls) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	*s = (*s)[:last]
	return x
}
