package scheduler

import (
	"fmt"
	"slices"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"
)

// verify computes all derived state of a core from the containers alone, and compares. After Schedule it also searches, by a full
// scan, for an ask that should have been granted.
func verify(c *Core, scheduled bool) error {
	c.resolveQueues()
	zone := resource.Vector{}
	for _, n := range c.fleet.nodes {
		zone = zone.Add(n.contribution())
	}
	if c.tree.capacity != zone {
		return fmt.Errorf("the zone counts %v, its nodes add up to %v", c.tree.capacity, zone)
	}
	used := map[*node]resource.Vector{}
	held := map[*queue]resource.Vector{}
	masters := map[*queue]resource.Vector{}
	users := map[*user]resource.Vector{}
	leaving := map[*queue]resource.Vector{}
	gangs := map[*gang]int{}
	for _, ctr := range c.containers.byID {
		used[ctr.node] = used[ctr.node].Add(ctr.need)
		if ctr.gang != nil {
			gangs[ctr.gang]++
		}
		if ctr.app.leaf == nil {
			continue
		}
		users[ctr.app.owner] = users[ctr.app.owner].Add(ctr.need)
		if ctr.master {
			masters[ctr.app.leaf] = masters[ctr.app.leaf].Add(ctr.need)
		}
		for q := ctr.app.leaf; q != nil; q = q.parent {
			held[q] = held[q].Add(ctr.need)
			if ctr.notice != nil {
				leaving[q] = leaving[q].Add(ctr.need)
			}
		}
		if ctr.notice != nil && (ctr.notice.container != ctr || !slices.Contains(c.preemption.notices, ctr.notice)) {
			return fmt.Errorf("container %s has a notice that is not its own or forgotten", ctr.id)
		}
	}
	for g, members := range gangs {
		if len(g.members) != members {
			return fmt.Errorf("gang %d counts %d, there are %d", g.number, len(g.members), members)
		}
	}
	promised, reservations, reserved := map[*queue]resource.Vector{}, map[*queue]int{}, resource.Vector{}
	pending := make([]resource.Vector, len(c.tree.ordered))
	for _, a := range c.apps.byID {
		for _, k := range a.asks {
			for q := a.leaf; q != nil; q = q.parent {
				pending[q.order] = pending[q.order].Add(k.spec.Resources.Scale(int64(k.spec.Pending)))
			}
			claims := 0
			for _, m := range k.nominations {
				if m.reservingLeaf != nil {
					reservations[m.reservingLeaf]++
					reserved = reserved.Add(m.room)
				}
				if !m.isClaim {
					continue
				}
				for _, given := range m.victims {
					if given.claim != m || given.container.notice != given {
						return fmt.Errorf("container %s is a victim of a claim that its notice does not know", given.container.id)
					}
				}
				claims++
				for q := a.leaf; q != nil; q = q.parent {
					promised[q] = promised[q].Add(m.room)
				}
			}
			if k.claims != claims {
				return fmt.Errorf("ask %s of %s says it has %d claims, there are %d", k.spec.ID, a.title(), k.claims, claims)
			}
		}
	}
	if counted := c.backlog.pending(&c.tree.queueSet); !slices.Equal(counted, pending) {
		return fmt.Errorf("the queues wait for %v, their asks add up to %v", counted, pending)
	}
	if c.nominations.total != reserved {
		return fmt.Errorf("%v is said to be reserved, it is %v", c.nominations.total, reserved)
	}
	for i, n := range c.fleet.nodes {
		if n.used != used[n] {
			return fmt.Errorf("node %s says it holds %v, its containers come to %v", n.spec.Name, n.used, used[n])
		}
		nominated := resource.Vector{}
		for _, m := range n.nominations {
			nominated = nominated.Add(m.nominated())
		}
		if err := verifyReservations(n); err != nil {
			return err
		}
		if n.nominated != nominated {
			return fmt.Errorf("node %s says %v is nominated, its nominations come to %v", n.spec.Name, n.nominated, nominated)
		}
		if want := n.spec.Capacity.Sub(n.used).Sub(n.nominated); c.fleet.avail[i] != want {
			return fmt.Errorf("node %s is indexed with %v, it has %v", n.spec.Name, c.fleet.avail[i], want)
		}
		at := grid.Nowhere
		if n.isOpen() {
			at = grid.CellOf(&c.fleet.avail[i])
		}
		if n.at != at {
			return fmt.Errorf("node %s is in cell %v, it belongs in %v", n.spec.Name, n.at, at)
		}
	}
	for _, q := range c.tree.all() {
		if q.used != held[q] || q.masters != masters[q] {
			return fmt.Errorf("queue %s says it holds %v (masters %v), its containers come to %v (%v)", q.spec.Name, q.used, q.masters, held[q], masters[q])
		}
		if len(q.children) > 0 {
			sum := resource.Vector{}
			for _, child := range q.children {
				sum = sum.Add(child.used)
			}
			if sum != q.used {
				return fmt.Errorf("queue %s holds %v, its children %v", q.spec.Name, q.used, sum)
			}
		}
		if q.reclaim.leaving != leaving[q] || q.reclaim.claimed != promised[q] || q.reservations.count != reservations[q] {
			return fmt.Errorf("queue %s says %v leaves, %v is promised, %d are reserved; it is %v, %v, %d", q.spec.Name,
				q.reclaim.leaving, q.reclaim.claimed, q.reservations.count, leaving[q], promised[q], reservations[q])
		}
		for _, u := range q.users {
			if u.used != users[u] {
				return fmt.Errorf("user %s says %v, holds %v", u.name, u.used, users[u])
			}
		}
		if q.turn.index >= 0 != (q.parent != nil && len(q.backlog.ready.Items())+len(q.turn.active.Items()) > 0) {
			return fmt.Errorf("queue %s is wrongly busy or idle", q.spec.Name)
		}
	}
	for _, a := range c.apps.byID {
		for _, g := range a.groups {
			if err := verifyGroup(c, g); err != nil {
				return err
			}
		}
	}
	for _, s := range c.backlog.shapes {
		for i, n := range c.fleet.nodes {
			if s.misfit.Has(int32(i)) && !n.touched && fits(&s.need, &c.fleet.avail[i]) {
				return fmt.Errorf("node %s is thought unfit for %v, it has %v", n.spec.Name, s.need, c.fleet.avail[i])
			}
		}
	}
	if err := verifyConditions(c); err != nil {
		return err
	}
	if err := verifySpreads(c); err != nil {
		return err
	}
	if !scheduled {
		return nil
	}
	if err := verifyNotices(c); err != nil {
		return err
	}
	for _, a := range c.apps.byID {
		for _, k := range a.asks {
			if err := verifyWaiting(c, k); err != nil {
				return err
			}
		}
	}
	return nil
}

// verifyReservations checks the containers on a node that end by themselves, and those that reservations wait for.
func verifyReservations(n *node) error {
	ending, coming := resource.Vector{}, map[*nomination]resource.Vector{}
	for held := n.containers; held != nil; held = held.nextOfNode {
		if !held.service {
			ending = ending.Add(held.need)
		}
		if held.awaitedBy != nil {
			coming[held.awaitedBy] = coming[held.awaitedBy].Add(held.need)
		}
		if held.awaitedBy != nil && (held.service || !slices.Contains(n.nominations, held.awaitedBy)) {
			return fmt.Errorf("container %s is waited for by a reservation that is none, or never ends", held.id)
		}
	}
	if n.ending != ending {
		return fmt.Errorf("node %s says %v ends, it is %v", n.spec.Name, n.ending, ending)
	}
	for _, m := range n.nominations {
		if m.reservingLeaf != nil && *m.awaited != coming[m] {
			return fmt.Errorf("a reservation on node %s says it waits for %v, it is %v", n.spec.Name, *m.awaited, coming[m])
		}
	}
	return nil
}

func verifyGroup(c *Core, g *group) error {
	counts := map[int32]int{}
	for ctr := g.app.containers; ctr != nil; ctr = ctr.nextOfApp {
		if ctr.group == g {
			counts[ctr.node.slot]++
		}
	}
	for slot := range int32(len(c.fleet.nodes)) {
		if got := g.count(slot); g.tracked && got != counts[slot] {
			return fmt.Errorf("group %q counts %d on node %d, there are %d", g.name, got, slot, counts[slot])
		}
	}
	for _, t := range g.tallies {
		byValue := make([]int32, len(t.label.nodes))
		for slot, n := range counts {
			byValue[t.label.of[slot]] += int32(n)
		}
		t.grow()
		for value := range byValue {
			if byValue[value] != t.counts[value] {
				return fmt.Errorf("group %q counts %d at value %d, there are %d", g.name, t.counts[value], value, byValue[value])
			}
		}
	}
	return nil
}

// verifyWaiting checks that there is a reason why an ask still waits after Schedule.
func verifyWaiting(c *Core, k *ask) error {
	if k.spec.Gang {
		return nil
	}
	if c.tree.limit(k, &k.spec.Resources).kind != noLimit {
		return nil
	}
	for _, n := range c.fleet.nodes {
		if n.known && c.fleet.failureOn(n, k).rule == noRule && fits(&k.spec.Resources, &c.fleet.avail[n.slot]) {
			return fmt.Errorf("ask %s of %s waits (%v), though node %s has room for it", k.spec.ID, k.app.title(), k.bucket.state, n.spec.Name)
		}
	}
	return nil
}

// verifyConditions computes from specs and containers which nodes break the conditions of each shape, and compares.
func verifyConditions(c *Core) error {
	for _, s := range c.backlog.shapes {
		for _, n := range c.fleet.nodes {
			if s.backlog.asks == 0 || !n.known {
				continue
			}
			ofGroup, names := 0, map[*appName]bool{}
			for held := n.containers; held != nil; held = held.nextOfNode {
				names[held.app.name] = true
				if held.group == s.group {
					ofGroup++
				}
			}
			allows := (s.filter == nil || s.filter.allows(n)) && (s.group == nil || ofGroup < s.maxPerNode)
			for _, m := range s.affinity {
				allows = allows && (names[m] || m == s.self && m.held == 0)
			}
			apart := slices.Clone(s.antiAffinity)
			if s.self != nil {
				apart = append(apart, s.self.repelledBy...)
			}
			for _, m := range apart {
				allows = allows && !names[m]
			}
			if s.allows(n) != allows {
				return fmt.Errorf("node %s breaks rule %d for a shape, which allows it: %v", n.spec.Name, s.broken(n.slot).rule, allows)
			}
		}
	}
	return nil
}

// verifySpreads searches for a node that a cached result of a search by spread would wrongly skip.
func verifySpreads(c *Core) error {
	for _, s := range c.backlog.shapes {
		for _, known := range s.lastSpreads {
			if known.group == nil || known.changes != c.fleet.changes {
				continue
			}
			for _, n := range c.fleet.nodes {
				if n.isOpen() && !n.touched && known.group.count(n.slot) < known.level && s.allows(n) && fits(&s.need, &c.fleet.avail[n.slot]) {
					return fmt.Errorf("node %s has fewer than %d containers of group %q and is thought to have as many", n.spec.Name, known.level, known.group.name)
				}
			}
		}
	}
	return nil
}

// verifyNotices searches for expired notices that are neither stopped nor cancelled, and for claims that wait although no container
// ends for them.
func verifyNotices(c *Core) error {
	for _, given := range c.preemption.notices {
		if !given.stopped && !given.deadline.After(c.pass.now) {
			return fmt.Errorf("the notice of container %s has run out, and it is neither stopped nor was its preemption cancelled", given.container.id)
		}
	}
	for _, n := range c.fleet.nodes {
		room := n.roomAfterNotices(&c.fleet.avail[n.slot])
		for _, m := range n.nominations {
			for i := range m.room {
				if m.isClaim && m.room[i] > 0 && room[i] < 0 {
					return fmt.Errorf("an ask of %s waits for %v on node %s, where %v are left when all under notice are gone", m.ask.app.title(), m.room, n.spec.Name, room)
				}
			}
		}
	}
	for _, a := range c.apps.byID {
		for _, k := range a.asks {
			if k.bucket != nil && k.bucket.state == limited && k.bucket.first() == k && len(k.nominations) > 0 && k.nominations[0].reservingLeaf != nil {
				return fmt.Errorf("%d nodes are kept for ask %s of %s, which is over a limit", len(k.nominations), k.spec.ID, a.title())
			}
		}
	}
	return nil
}
