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
	// longestReservation is how long one may last, and how far ahead containers may end for which it waits.
	longestReservation = 5 * time.Minute
	// reservedPercent is how much of the zone all of them may come to, in each resource.
	reservedPercent = 50
	// longestPause is the longest back-off of an app whose reservations came to nothing.
	longestPause = time.Hour
)

// queueReservations is what is reserved for asks of a leaf.
type queueReservations struct {
	// count is how many nominations are reservations.
	count int
	// notBefore is when the leaf may have the next reservation.
	notBefore time.Time
}

// hasReservation reports whether something is reserved for an ask of the leaf.
func (q *queue) hasReservation() bool { return q.reservations.count > 0 }

const (
	// searchesPerPass is for how many asks a pass looks for nodes to reserve. Each search looks at all nodes; where there are
	// manyNodes, a pass makes only one.
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
		due, ok := ns.backlog.patienceEnds()
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
		if k.blockedSince.IsZero() || k.blockedSince.Add(ns.patience).After(ns.pass.now) || len(k.nominations) > 0 {
			continue
		}
		if k.app.leaf.hasReservation() || k.app.leaf.reservations.notBefore.After(ns.pass.now) || k.app.reserveAfter.After(ns.pass.now) {
			continue
		}
		count := 1
		if k.spec.Gang {
			// One gang at a time, so that no two ever hold what the other needs.
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

// mayReserve reports whether so much more is within the bound on all reservations together.
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

// backOff lets an ask's app have no reservation for a while, after one that came to nothing or could not be made.
func (ns *nominations) backOff(k *ask) {
	pause := min(ns.patience<<min(k.app.failedReservations, 16), longestPause)
	k.app.failedReservations++
	k.app.reserveAfter = ns.pass.now.Add(pause)
}

// reserveFor reserves room for so many containers of an ask, or for none, on the nodes that lack the least for them, and on
// which what is lacking will be free. It looks at all nodes once, however many it takes.
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

// reserveOn reserves room for one container of an ask on a node, if there is enough, or will be when the containers there
// have ended that end soon. Until each of these has ended others may use what the reservation does not need yet.
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

// mayAwait reports whether a reservation for an ask may wait for a container to end. One that was granted after the
// reservation began does not count, or others could replace it for ever.
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

// latestEnd orders containers by when they end; those of unknown duration come last.
func (k *container) latestEnd() int64 {
	if k.duration == 0 {
		return math.MaxInt64
	}
	return k.startedAt.Add(k.duration).UnixNano()
}

// arrived gives a reservation the room of a container that has ended and for which it has waited.
func (m *nomination) arrived(k *container) {
	n := m.node
	n.nominated = n.nominated.Sub(m.nominated())
	*m.awaited = m.awaited.Sub(k.need)
	n.nominated = n.nominated.Add(m.nominated())
	k.awaitedBy = nil
}

// endReservation counts out a reservation that was withdrawn.
func (ns *nominations) endReservation(m *nomination) {
	m.reservingLeaf.reservations.count--
	ns.total = ns.total.Sub(m.room)
	for held := m.node.containers; held != nil; held = held.nextOfNode {
		if held.awaitedBy == m {
			held.awaitedBy = nil
		}
	}
}

// yieldTo ends a reservation in favour of an ask that replaces a container that its app has lost, and gives the slot of the
// node where there is room then; -1 if that does not help.
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

// cancelReservation withdraws the reservations for an ask that would break a limit now.
func (ns *nominations) cancelReservation(k *ask) {
	if k.isReserving() {
		ns.withdrawAll(k)
	}
}

// lack is how much a node lacks for one container of an ask, as the sum of its shares of what that needs. It is false of a
// node that is too small, on which room is nominated for others, or where services hold what is lacking.
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

// shortfalls are a heap of them, the least first.
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
