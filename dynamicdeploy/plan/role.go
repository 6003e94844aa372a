package plan

import (
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Role is the state of one role. It wires its parts: each owns its state, and no part selects a field of another. It belongs to one
// goroutine.
type Role struct {
	desired Desired
	names   names
	slots   slots
	nodes   nodes
	rollout rollout
	order   order
	// provisional are the latest failures, which may turn out to be a node's.
	provisional provisional
	// restored is true if a memo of an earlier master was restored.
	restored bool
	// pending are actions that Next returns first.
	pending []Action
	// waiting is the ResourceManager's reason why instances are missing, empty if it gave none.
	waiting string
}

// New returns the plan of a role whose instances are called name-1, name-2, …. The attempt is a part of the ids of asks, so
// that two masters of an app never use the same id.
func New(name string, attempt int32) *Role {
	return &Role{
		names: names{role: name, attempt: attempt}, slots: slots{byNumber: map[int]*slot{}}, nodes: nodes{byName: map[id.Node]*node{}},
	}
}

// SetDesired sets the state that the role is to reach.
func (r *Role) SetDesired(desired Desired, now time.Time) {
	if desired.Update.MaxSurge <= 0 && desired.Update.MaxUnavailable <= 0 {
		desired.Update.MaxSurge = 1
	}
	r.desired = desired
	r.rollout.setDesired(desired, now)
}

// ContinueAs makes the desired version count as another one that changes nothing of the role, before that is set with SetDesired: the
// rollout goes on as it is. It reports whether it does; it begins anew if it has failed, or was not begun.
func (r *Role) ContinueAs(version int32) bool {
	from := r.desired.Version
	if !r.rollout.continueAs(version) {
		return false
	}
	r.slots.merge(from, version)
	r.desired.Version = version
	return true
}

// SetCanRevert sets Desired.CanRevert alone.
func (r *Role) SetCanRevert(can bool) { r.desired.CanRevert = can }

// Before is the last version that had come up completely when the desired one was set; zero if none had.
func (r *Role) Before() int32 { return r.rollout.lastBefore() }

// Deferred reports whether the desired version was not begun with in the last Next, since the role comes after others.
func (r *Role) Deferred() bool {
	_, deferred := r.order.waits()
	return deferred
}

// Over reports whether no rollout is under way, nor has failed.
func (r *Role) Over() bool { return r.rollout.over() }

// SetComesAfter sets why the desired version is not to be begun with yet, one sentence; empty if it may be. A version that was begun
// with goes on.
func (r *Role) SetComesAfter(reason string) { r.order.setComesAfter(reason) }

// Ready reports whether the role was as desired in the last Next, so that the roles behind it may begin.
func (r *Role) Ready() bool { return r.order.isReady() }

// SetWaiting sets the ResourceManager's reason why instances are missing, empty if none are.
func (r *Role) SetWaiting(reason string) { r.waiting = reason }

// MergeVersion makes slots of one version count as slots of another whose spec does not differ.
func (r *Role) MergeVersion(from, to int32) {
	r.slots.merge(from, to)
	r.rollout.mergeVersion(from, to)
}

// Adopt takes over a container that an earlier master has started. Of two containers for one slot the newer is kept, since
// it was granted to replace the older.
func (r *Role) Adopt(adopted Adopted) {
	s := r.slots.at(adopted.Number)
	opened := s == nil
	if opened {
		s = r.slots.open(adopted.Number, adopted.Version)
		if r.restored && adopted.Version != r.desired.Version {
			// The earlier master had forgotten the slot, for example because its node was lost.
			s.leave()
		}
	}
	if s.container != nil && adopted.Container.Compare(s.container.id) < 0 {
		r.pending = append(r.pending, Release{Container: adopted.Container, Reason: "another container has taken its place"})
		return
	}
	if s.container != nil {
		r.replaceContainer(s)
	}
	if opened || s.version != adopted.Version {
		// The slot may have changed its version after the container was started.
		mode := r.chooser(time.Time{}).mode()
		s.setRouted(adopted.Version != r.desired.Version || mode != modePrepare && mode != modeExclusive)
	}
	s.adopt(adopted)
	r.nodes.at(adopted.Node)
}

// Granted gives a container to the slot that asked for it. A container that no slot needs is released.
func (r *Role) Granted(grant Grant) {
	r.nodes.at(grant.Node)
	s := r.slotFor(grant)
	if s != nil && s.ask != "" {
		if ask := s.endAsk(); ask != grant.Ask {
			r.pending = append(r.pending, WithdrawAsk{ID: ask})
		}
	}
	if s == nil || s.container != nil && !r.nodes.lost(s.container.node) {
		r.pending = append(r.pending, Release{Container: grant.Container, Reason: "no instance needs it any more"})
		return
	}
	if s.container != nil {
		r.replaceContainer(s)
	}
	s.fill(grant)
}

// slotFor is the slot that can use a grant, nil if there is none.
func (r *Role) slotFor(grant Grant) *slot {
	if s := r.slots.asking(grant.Ask); s != nil {
		return s
	}
	s := r.slots.at(r.names.slotOf(grant.Ask))
	if s == nil || s.leaving || s.version != grant.Version || s.container != nil && !r.nodes.lost(s.container.node) {
		return nil
	}
	return s
}

// StartFailed records that a node did not accept a start. After StartUnanswered the container may run and serve, so it is
// withdrawn and drained before it is released.
func (r *Role) StartFailed(container id.Container, reason string, failure StartError, now time.Time) {
	s := r.slots.holding(container)
	if s == nil || s.container.failureCounted || s.container.reported {
		return
	}
	blame := BlameNode
	if failure == StartInvalid {
		blame = BlameEither
	}
	r.fail(s, Exit{Blame: blame, Reason: reason}, now)
	s.container.startFailed(failure, now)
}

// Observe records what a node reports of a container.
func (r *Role) Observe(status Status, now time.Time) {
	s := r.slots.holding(status.Container)
	if s == nil {
		return
	}
	s.container.observe(status, now)
	if status.Stage == StageRunning && status.Health == Healthy {
		s.recover()
		r.nodes.forgive(s.container.node)
	}
}

// Ended records that a node has seen the container gone.
func (r *Role) Ended(container id.Container, exit Exit, now time.Time) {
	s := r.slots.holding(container)
	if s == nil {
		return
	}
	if c := s.container; !c.failureCounted && !c.released && c.withdrawRequestedAt.IsZero() {
		r.fail(s, exit, now)
	}
	s.clear()
}

// Withdrawn records that no balancer routes to an instance any more. For a withdrawal that an earlier master requested, this counts
// only until this master has put the container in service.
func (r *Role) Withdrawn(instance string, now time.Time) {
	if s := r.slots.at(r.names.number(instance)); s != nil && s.container != nil {
		s.container.confirmWithdrawal(now)
	}
}

// SetNode records the state of a node.
func (r *Role) SetNode(name id.Node, state NodeState) { r.nodes.setState(name, state) }

// SetConnected records whether a node's reports arrive.
func (r *Role) SetConnected(name id.Node, seen bool) { r.nodes.setConnected(name, seen) }

// SetPreemption records the deadline of a preemption notice. A zero deadline cancels the preemption.
func (r *Role) SetPreemption(container id.Container, deadline time.Time) {
	if s := r.slots.holding(container); s != nil {
		s.container.setPreemption(deadline)
	}
}

// AddTraffic adds what balancers have counted for an instance since the last call. Requests soon after a start may belong to
// the container before, and are left out.
func (r *Role) AddTraffic(instance string, requests, errors int64, now time.Time) {
	s := r.slots.at(r.names.number(instance))
	if s == nil || s.version != r.desired.Version || s.container == nil || r.desired.Update.MaxErrorPercent <= 0 {
		return
	}
	status := s.container.status
	if status.Stage != StageRunning || now.Before(status.RunningSince.Add(trafficDelay)) {
		return
	}
	r.rollout.addTraffic(requests, errors)
}

// trafficDelay is how long after a start a balancer may still count for the container before.
const trafficDelay = 3 * time.Second

// Empty reports whether no instance is left. Replaced containers may still exist on lost nodes.
func (r *Role) Empty() bool { return r.slots.len() == 0 }

// Number is the number in an instance's name, zero if the name is not one of this role.
func (r *Role) Number(instance string) int { return r.names.number(instance) }

// fail counts the failure of a slot's container and sets the back-off.
func (r *Role) fail(s *slot, exit Exit, now time.Time) {
	policy := r.desired.Restart
	s.fail(exit, policy, now)
	if exit.Blame.onNode() {
		r.nodes.addFailure(s.container.node, policy, now)
	}
	if !exit.Blame.onVersion() {
		return
	}
	f := provisionalFailure{at: now, node: s.container.node, slot: s.number, ofDesired: s.version == r.desired.Version}
	if f.ofDesired {
		r.rollout.addFailure(r.desired, exit.Reason, now)
	}
	r.provisional.add(f)
}

// reattribute moves failures from the version and the instance to their node if that has become unhealthy or lost since. What was done
// to the instance must not delay it once the node is back.
func (r *Role) reattribute(now time.Time) {
	for _, f := range r.provisional.settle(r.nodes.down, now) {
		r.rollout.forgive(f)
		if s := r.slots.at(f.slot); s != nil {
			s.forgive(f, r.desired.Restart)
		}
	}
}

// replaceContainer releases the container of a slot that another one is to fill.
func (r *Role) replaceContainer(s *slot) {
	if !s.container.released {
		r.pending = append(r.pending, Release{Container: s.container.id, Reason: "another container has taken its place"})
	}
	s.clear()
}

// view judges the slots at an instant.
func (r *Role) view(now time.Time) *view {
	_, deferred := r.order.waits()
	return &view{desired: r.desired, nodes: &r.nodes, deferred: deferred, now: now}
}

func (r *Role) chooser(now time.Time) *chooser { return r.chooserAt(r.view(now)) }

func (r *Role) chooserAt(at *view) *chooser {
	_, deferred := r.order.waits()
	return &chooser{desired: r.desired, deferred: deferred, at: at, slots: &r.slots, rollout: &r.rollout}
}

func (r *Role) report(at *view) *report {
	why, deferred := r.order.waits()
	return &report{desired: r.desired, at: at, names: &r.names, nodes: &r.nodes, rollout: &r.rollout, deferred: deferred, comesAfter: why}
}
