package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Role is the state of one role. It belongs to one goroutine.
type Role struct {
	// name is the prefix of its instances' names.
	name string
	// attempt is the number of the master's attempt, a part of the ids of asks.
	attempt int32
	desired Desired
	slots   map[int]*slot
	nodes   map[id.Node]*node
	// replaced holds the containers on lost nodes that were released and replaced, and have not been seen gone.
	replaced map[id.Container]bool
	rollout  rollout
	// restored is true if a memo of an earlier master was restored.
	restored bool
	// provisional are the latest failures of the desired version, which may turn out to be a node's.
	provisional []provisionalFailure
	// serial is the number of this attempt's last ask.
	serial int
	// pending are actions that Next returns first.
	pending []Action
	// comesAfter is why the desired version is not begun with: a sentence about the roles that it comes after. It is empty once they
	// are ready.
	comesAfter string
	// deferred is true while the desired version waits for other roles: it is not begun with, and what runs of other versions stays.
	// ready is true while the role is as desired. Both are as of the last Next.
	deferred, ready bool
	// waiting is the ResourceManager's reason why instances are missing, empty if it gave none.
	waiting string
}

// slot is a numbered place for an instance.
type slot struct {
	number int
	// version is the one that the slot runs, or is to run.
	version int32
	// leaving is true once the slot is to be emptied and forgotten. It never becomes false again.
	leaving bool
	// notRouted is true while the instance is to be ready without receiving requests.
	notRouted bool
	// container is nil while the slot has none.
	container *container
	// ask is the id of the open ask, empty if there is none.
	ask string
	// askedAt is when the open ask was made.
	askedAt time.Time
	// askAvoids is true if the open ask avoids nodes, avoidNone if the next one is to avoid none because that one was not
	// granted in time.
	askAvoids, avoidNone bool

	// failures are the instants of the failures within the restart window.
	failures []time.Time
	// notBefore is the end of the back-off.
	notBefore time.Time
	// avoidNode is the node that the last failure counts against, empty if none. nodeAtFault is true if it counts against
	// the node alone.
	avoidNode   id.Node
	nodeAtFault bool
	// hasRun is true if the slot has had a started container: the next start is a restart.
	hasRun   bool
	restarts int
	// lastFailure is the reason of the last failure, one sentence.
	lastFailure string
}

// container is the container of a slot.
type container struct {
	id        id.Container
	node      id.Node
	grantedAt time.Time
	// started is true if a start may have been sent, adopted if an earlier master sent it.
	started, adopted bool
	// reported is true once its node has reported it. status is the newest report.
	reported bool
	status   Status
	// healthySince is since when it has been healthy without a break; see setHealthySince.
	healthySince time.Time
	// startUnanswered is true if the node did not answer the start.
	startUnanswered bool
	// failureCounted is true once its failure was counted, so that its end does not count again.
	failureCounted bool
	// preemptBy is the deadline of the preemption notice, zero if there is none.
	preemptBy time.Time
	// withdrawRequestedAt is when its withdrawal was last requested, zero if it is not to be withdrawn. withdrawnAt is when
	// that was confirmed; it stays zero if nothing was routed to it.
	withdrawRequestedAt time.Time
	// confirmedEarly is true if the withdrawal that an earlier master requested was confirmed before this master's first decision.
	// hasServed is true once this master has put it in service.
	confirmedEarly bool
	hasServed      bool
	withdrawn      bool
	withdrawnAt    time.Time
	// released is true once it was given back. It stays until it is seen gone.
	released bool
}

type node struct {
	state NodeState
	// disconnected is true while the node's reports do not arrive.
	disconnected bool
	// failures are the instants of failures that count against the node, since a container was last healthy on it.
	failures []time.Time
}

// New returns the plan of a role whose instances are called name-1, name-2, …. The attempt is a part of the ids of asks, so
// that two masters of an app never use the same id.
func New(name string, attempt int32) *Role {
	return &Role{name: name, attempt: attempt, slots: map[int]*slot{}, nodes: map[id.Node]*node{}, replaced: map[id.Container]bool{}}
}

// SetDesired sets the state that the role is to reach.
func (r *Role) SetDesired(desired Desired, now time.Time) {
	if desired.Update.MaxSurge <= 0 && desired.Update.MaxUnavailable <= 0 {
		desired.Update.MaxSurge = 1
	}
	r.desired = desired
	r.rollout.setDesired(desired, now)
}

// MergeVersion makes slots of one version count as slots of another whose spec does not differ.
func (r *Role) MergeVersion(from, to int32) {
	for _, s := range r.slots {
		if s.version == from {
			s.version = to
		}
	}
	if r.rollout.base == from {
		r.rollout.base = to
	}
}

// Adopt takes over a container that an earlier master has started. Of two containers for one slot the newer is kept, since
// it was granted to replace the older.
func (r *Role) Adopt(adopted Adopted) {
	s, ok := r.slots[adopted.Number]
	if !ok {
		s = r.openSlot(adopted.Number, adopted.Version)
		// The earlier master had forgotten the slot, for example because its node was lost.
		s.leaving = r.restored && adopted.Version != r.desired.Version
	}
	if s.container != nil && adopted.Container.Compare(s.container.id) < 0 {
		r.pending = append(r.pending, Release{Container: adopted.Container, Reason: "another container has taken its place"})
		r.replaced[adopted.Container] = true
		return
	}
	if s.container != nil {
		r.replaceContainer(s)
	}
	if !ok || s.version != adopted.Version {
		// The slot may have changed its version after the container was started.
		mode := r.mode()
		s.notRouted = adopted.Version == r.desired.Version && (mode == modePrepare || mode == modeExclusive)
	}
	s.version = adopted.Version
	s.hasRun = true
	s.container = &container{id: adopted.Container, node: adopted.Node, grantedAt: adopted.GrantedAt, started: true, adopted: true}
	r.node(adopted.Node)
}

// Granted gives a container to the slot that asked for it. A container that no slot needs is released.
func (r *Role) Granted(grant Grant) {
	r.node(grant.Node)
	s := r.slotFor(grant)
	if s != nil && s.ask != "" {
		if s.ask != grant.Ask {
			r.pending = append(r.pending, WithdrawAsk{ID: s.ask})
		}
		s.ask = ""
	}
	if s == nil || s.container != nil && !r.lost(s.container) {
		r.pending = append(r.pending, Release{Container: grant.Container, Reason: "no instance needs it any more"})
		return
	}
	if s.container != nil {
		r.replaceContainer(s)
	}
	s.container = &container{id: grant.Container, node: grant.Node, grantedAt: grant.At}
}

// slotFor is the slot that can use a grant, nil if there is none.
func (r *Role) slotFor(grant Grant) *slot {
	for _, s := range r.slots {
		if s.ask != "" && s.ask == grant.Ask {
			return s
		}
	}
	s, ok := r.slots[r.slotNumber(grant.Ask)]
	if !ok || s.leaving || s.version != grant.Version || s.container != nil && !r.lost(s.container) {
		return nil
	}
	return s
}

// StartFailed records that a node did not accept a start. After StartUnanswered the container may run and serve, so it is
// withdrawn and drained before it is released.
func (r *Role) StartFailed(container id.Container, reason string, failure StartError, now time.Time) {
	s := r.slotHolding(container)
	if s == nil || s.container.failureCounted || s.container.reported {
		return
	}
	blame := BlameNode
	if failure == StartInvalid {
		blame = BlameEither
	}
	r.fail(s, Exit{Blame: blame, Reason: reason}, now)
	if failure == StartUnanswered {
		s.container.startUnanswered = true
		return
	}
	s.container.withdrawRequestedAt, s.container.withdrawn = now, true
}

// Observe records what a node reports of a container.
func (r *Role) Observe(status Status, now time.Time) {
	s := r.slotHolding(status.Container)
	if s == nil {
		return
	}
	s.container.setHealthySince(status, now)
	s.container.reported, s.container.started, s.container.status = true, true, status
	if status.Stage == StageRunning && status.Health == Healthy {
		s.avoidNode, s.nodeAtFault = "", false
		r.node(s.container.node).failures = nil
	}
}

// setHealthySince sets since when a container has been healthy. The master's own clock decides, since a node's clock may be
// wrong; the node's is used only for a container that was healthy before this master began.
func (c *container) setHealthySince(status Status, now time.Time) {
	switch {
	case status.Stage != StageRunning || status.Health != Healthy:
		c.healthySince = time.Time{}
	case !c.reported && c.adopted && !status.HealthySince.IsZero() && status.HealthySince.Before(now):
		c.healthySince = status.HealthySince
	case c.healthySince.IsZero() || !status.HealthySince.Equal(c.status.HealthySince):
		c.healthySince = now
	}
}

// Ended records that a node has seen the container gone.
func (r *Role) Ended(container id.Container, exit Exit, now time.Time) {
	delete(r.replaced, container)
	s := r.slotHolding(container)
	if s == nil {
		return
	}
	c := s.container
	if !c.failureCounted && !c.released && c.withdrawRequestedAt.IsZero() {
		r.fail(s, exit, now)
	}
	s.container = nil
}

// Withdrawn records that no balancer routes to an instance any more. For a withdrawal that an earlier master requested, this counts
// only before this master's first decision.
func (r *Role) Withdrawn(instance string, now time.Time) {
	for _, s := range r.slots {
		c := s.container
		switch {
		case c == nil || c.withdrawn || r.instance(s) != instance:
		case !c.withdrawRequestedAt.IsZero():
			c.withdrawn, c.withdrawnAt = true, now
		default:
			c.confirmedEarly = c.adopted && !c.hasServed
		}
	}
}

// SetNode records the state of a node.
func (r *Role) SetNode(name id.Node, state NodeState) { r.node(name).state = state }

// SetConnected records whether a node's reports arrive.
func (r *Role) SetConnected(name id.Node, seen bool) { r.node(name).disconnected = !seen }

// SetPreemption records the deadline of a preemption notice. A zero deadline cancels the preemption.
func (r *Role) SetPreemption(container id.Container, deadline time.Time) {
	if s := r.slotHolding(container); s != nil {
		s.container.preemptBy = deadline
	}
}

// Empty reports whether no instance is left. Replaced containers may still exist on lost nodes.
func (r *Role) Empty() bool { return len(r.slots) == 0 }

func (r *Role) node(name id.Node) *node {
	n, ok := r.nodes[name]
	if !ok {
		n = &node{}
		r.nodes[name] = n
	}
	return n
}

func (r *Role) slotHolding(container id.Container) *slot {
	for _, s := range r.slots {
		if s.container != nil && s.container.id == container {
			return s
		}
	}
	return nil
}

func (r *Role) lost(c *container) bool { return r.node(c.node).state == NodeLost }

// replaceContainer releases the container of a slot that another one is to fill.
func (r *Role) replaceContainer(s *slot) {
	if !s.container.released {
		r.pending = append(r.pending, Release{Container: s.container.id, Reason: "another container has taken its place"})
	}
	r.replaced[s.container.id] = true
	s.container = nil
}

func (r *Role) openSlot(number int, version int32) *slot {
	s := &slot{number: number, version: version}
	r.slots[number] = s
	return s
}

func (r *Role) instance(s *slot) string { return r.name + "-" + strconv.Itoa(s.number) }

func (r *Role) newAsk(s *slot) string {
	r.serial++
	return fmt.Sprintf("%s/%d.%d", r.instance(s), r.attempt, r.serial)
}

// slotNumber is the number of the slot that made an ask, zero if no slot of this role did.
func (r *Role) slotNumber(ask string) int {
	instance, _, _ := strings.Cut(ask, "/")
	return r.Number(instance)
}

// Number is the number in an instance's name, zero if the name is not one of this role.
func (r *Role) Number(instance string) int {
	text, ok := strings.CutPrefix(instance, r.name+"-")
	number, err := strconv.Atoi(text)
	if !ok || err != nil || number < 1 || strconv.Itoa(number) != text {
		return 0
	}
	return number
}

// sorted returns the slots by number, so that no decision depends on the order of a map.
func (r *Role) sorted() []*slot {
	numbers := slices.Sorted(maps.Keys(r.slots))
	slots := make([]*slot, len(numbers))
	for i, number := range numbers {
		slots[i] = r.slots[number]
	}
	return slots
}
