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
	// name is what its instances' names start with.
	name    string
	attempt int32
	wanted  Wanted
	slots   map[int]*slot
	nodes   map[id.Node]*node
	// fenced containers were released on a lost node and replaced; they have not been seen gone.
	fenced  map[id.Container]bool
	rollout rollout
	// restored says that an earlier master has left its memo.
	restored bool
	// doubted are the failures of late.
	doubted []doubted
	// serial makes the ids of this attempt's asks unique.
	serial int
	// due are actions that a fact called for at once.
	due []Action
	// waits says why instances are not there, in the words of somebody else.
	waits string
}

// slot is one instance.
type slot struct {
	number  int
	version int32
	// leaving never becomes false again.
	leaving bool
	// dark slots are kept ready and do not serve yet.
	dark    bool
	current *container
	// ask is the id of the outstanding ask, empty if none.
	ask     string
	askedAt time.Time
	// choosy: the outstanding ask avoids nodes. Once patience ends, indifferent makes the next one avoid none.
	choosy, indifferent bool

	failures  []time.Time
	notBefore time.Time
	// shunned is the node to blame for the last failure, ofNode that it alone was.
	shunned id.Node
	ofNode  bool
	// ran: it has been started before, so that the next start is a restart.
	ran      bool
	restarts int
	reason   string
}

// container is what a slot has on a node.
type container struct {
	id        id.Container
	node      id.Node
	grantedAt time.Time
	// started: somebody may have sent a start. adopted: that was an earlier master.
	started, adopted bool
	// seen: its node has spoken of it.
	seen   bool
	status Status
	// goodSince is since when it has been healthy without a break, by the master's clock where the master saw it become so.
	goodSince time.Time
	// unanswered: its node did not answer the start.
	unanswered bool
	// failed: its failure has been counted.
	failed    bool
	preemptBy time.Time
	// outAt is when it was last reported out of service, withdrawnAt when nothing routed to it any more.
	outAt time.Time
	// outBefore: the master before had it taken out, and nothing routes to it any more. served: this master has had it routed to.
	outBefore   bool
	served      bool
	withdrawn   bool
	withdrawnAt time.Time
	released    bool
}

type node struct {
	state NodeState
	// unseen: nothing is heard from it at present.
	unseen bool
	// failures that the node is to blame for, since the last success.
	failures []time.Time
}

// New makes the plan of a role whose instances are called name-1, name-2, …. The attempt goes into the ids of asks, so
// that no two masters of an app ever use the same.
func New(name string, attempt int32) *Role {
	return &Role{name: name, attempt: attempt, slots: map[int]*slot{}, nodes: map[id.Node]*node{}, fenced: map[id.Container]bool{}}
}

// Want takes what people want.
func (r *Role) Want(wanted Wanted, now time.Time) {
	if wanted.Update.MaxSurge <= 0 && wanted.Update.MaxUnavailable <= 0 {
		wanted.Update.MaxSurge = 1
	}
	r.wanted = wanted
	r.rollout.want(wanted, now)
}

// Rename says that a version is the wanted one under another number: their specs do not differ.
func (r *Role) Rename(from, to int32) {
	for _, s := range r.slots {
		if s.version == from {
			s.version = to
		}
	}
	if r.rollout.base == from {
		r.rollout.base = to
	}
}

// Adopt takes over a container that an earlier master started. Of two for one slot the newer counts: it was only started
// because the older one had been given up.
func (r *Role) Adopt(adopted Adopted) {
	s, ok := r.slots[adopted.Number]
	if !ok {
		s = r.open(adopted.Number, adopted.Version)
		// The master before had let go of it, on a node that was lost for instance.
		s.leaving = r.restored && adopted.Version != r.wanted.Version
	}
	if s.current != nil && adopted.Container.Compare(s.current.id) < 0 {
		r.due = append(r.due, Release{Container: adopted.Container})
		r.fenced[adopted.Container] = true
		return
	}
	if s.current != nil {
		r.fence(s)
	}
	if !ok || s.version != adopted.Version {
		// The number may have gone over to another version since it began.
		course := r.course()
		s.dark = adopted.Version == r.wanted.Version && (course == preparing || course == closing)
	}
	s.version = adopted.Version
	s.ran = true
	s.current = &container{id: adopted.Container, node: adopted.Node, grantedAt: adopted.GrantedAt, started: true, adopted: true}
	r.node(adopted.Node)
}

// Granted takes a container in answer to an ask. What no slot needs any more is given back.
func (r *Role) Granted(grant Grant) {
	r.node(grant.Node)
	s := r.asker(grant)
	if s != nil && s.ask != "" {
		if s.ask != grant.Ask {
			r.due = append(r.due, Unask{ID: s.ask})
		}
		s.ask = ""
	}
	if s == nil || s.current != nil && !r.lost(s.current) {
		r.due = append(r.due, Release{Container: grant.Container})
		return
	}
	if s.current != nil {
		r.fence(s)
	}
	s.current = &container{id: grant.Container, node: grant.Node, grantedAt: grant.At}
}

// asker is the slot that can use a grant.
func (r *Role) asker(grant Grant) *slot {
	for _, s := range r.slots {
		if s.ask != "" && s.ask == grant.Ask {
			return s
		}
	}
	s, ok := r.slots[r.askNumber(grant.Ask)]
	if !ok || s.leaving || s.version != grant.Version || s.current != nil && !r.lost(s.current) {
		return nil
	}
	return s
}

// StartFailed says that a node did not accept a start. If it only did not answer, the container may run all the same, and
// serve: it is then taken away in order.
func (r *Role) StartFailed(container id.Container, reason string, refusal Refusal, now time.Time) {
	s := r.holder(container)
	if s == nil || s.current.failed || s.current.seen {
		return
	}
	blame := Node
	if refusal == RefusedSpec {
		blame = Either
	}
	r.fail(s, Exit{Blame: blame, Reason: reason}, now)
	if refusal == Unanswered {
		s.current.unanswered = true
		return
	}
	s.current.outAt, s.current.withdrawn = now, true
}

// Observe takes a node's word on a container.
func (r *Role) Observe(status Status, now time.Time) {
	s := r.holder(status.Container)
	if s == nil {
		return
	}
	s.current.good(status, now)
	s.current.seen, s.current.started, s.current.status = true, true, status
	if status.Stage == Running && status.Health == Good {
		s.shunned, s.ofNode = "", false
		r.node(s.current.node).failures = nil
	}
}

// good notes since when a container has been healthy. What became so while this master watched is timed by its own clock, for
// the node's may be wrong; of what was healthy before only the node can tell.
func (c *container) good(status Status, now time.Time) {
	switch {
	case status.Stage != Running || status.Health != Good:
		c.goodSince = time.Time{}
	case !c.seen && c.adopted && !status.GoodSince.IsZero() && status.GoodSince.Before(now):
		c.goodSince = status.GoodSince
	case c.goodSince.IsZero() || !status.GoodSince.Equal(c.status.GoodSince):
		c.goodSince = now
	}
}

// Ended says that a container was seen gone.
func (r *Role) Ended(container id.Container, exit Exit, now time.Time) {
	delete(r.fenced, container)
	s := r.holder(container)
	if s == nil {
		return
	}
	c := s.current
	if !c.failed && !c.released && c.outAt.IsZero() {
		r.fail(s, exit, now)
	}
	s.current = nil
}

// Withdrawn says that nothing routes to an instance any more. Of one that the master before was taking out that may be told before this
// one has decided anything, and only then.
func (r *Role) Withdrawn(instance string, now time.Time) {
	for _, s := range r.slots {
		c := s.current
		switch {
		case c == nil || c.withdrawn || r.instance(s) != instance:
		case !c.outAt.IsZero():
			c.withdrawn, c.withdrawnAt = true, now
		default:
			c.outBefore = c.adopted && !c.served
		}
	}
}

// SetNode takes what the ResourceManager thinks of a node.
func (r *Role) SetNode(name id.Node, state NodeState) { r.node(name).state = state }

// SetSeen says whether a node's word on its containers is heard.
func (r *Role) SetSeen(name id.Node, seen bool) { r.node(name).unseen = !seen }

// Preempted says that a container will be taken away at the deadline.
func (r *Role) Preempted(container id.Container, deadline time.Time) {
	if s := r.holder(container); s != nil {
		s.current.preemptBy = deadline
	}
}

// Empty reports whether no instance is left. Containers that were fenced on a lost node may be.
func (r *Role) Empty() bool { return len(r.slots) == 0 }

func (r *Role) node(name id.Node) *node {
	n, ok := r.nodes[name]
	if !ok {
		n = &node{}
		r.nodes[name] = n
	}
	return n
}

func (r *Role) holder(container id.Container) *slot {
	for _, s := range r.slots {
		if s.current != nil && s.current.id == container {
			return s
		}
	}
	return nil
}

func (r *Role) lost(c *container) bool { return r.node(c.node).state == Lost }

// fence gives back a container that another takes the place of.
func (r *Role) fence(s *slot) {
	if !s.current.released {
		r.due = append(r.due, Release{Container: s.current.id})
	}
	r.fenced[s.current.id] = true
	s.current = nil
}

func (r *Role) open(number int, version int32) *slot {
	s := &slot{number: number, version: version}
	r.slots[number] = s
	return s
}

func (r *Role) instance(s *slot) string { return r.name + "-" + strconv.Itoa(s.number) }

func (r *Role) newAsk(s *slot) string {
	r.serial++
	return fmt.Sprintf("%s/%d.%d", r.instance(s), r.attempt, r.serial)
}

// askNumber is the slot that an ask was made for, zero if it was for none of this role.
func (r *Role) askNumber(ask string) int {
	instance, _, _ := strings.Cut(ask, "/")
	return r.Number(instance)
}

// Number is the number in an instance's name, zero if it is not one of this role.
func (r *Role) Number(instance string) int {
	text, ok := strings.CutPrefix(instance, r.name+"-")
	number, err := strconv.Atoi(text)
	if !ok || err != nil || number < 1 || strconv.Itoa(number) != text {
		return 0
	}
	return number
}

// sorted are the slots by number: decisions never follow the order of a map.
func (r *Role) sorted() []*slot {
	numbers := slices.Sorted(maps.Keys(r.slots))
	slots := make([]*slot, len(numbers))
	for i, number := range numbers {
		slots[i] = r.slots[number]
	}
	return slots
}
