package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// container is a lease: a part of a node for an app.
type container struct {
	id   id.Container
	app  *app
	node *node
	// ask is the id of the ask that it was granted to; group counts it.
	ask   string
	group *group
	// need is what it holds of the node.
	need resource.Vector
	// master is set for an application master.
	master bool
	// service is set when it runs until somebody ends it.
	service bool
	// startedAt is when it was granted; duration is the expected duration in its ask, zero if unknown.
	startedAt time.Time
	duration  time.Duration
	// gang is the gang that it was granted with; nil if none.
	gang *gang
	// checkpoint is until when its work is safe.
	checkpoint time.Time
	// credit is how long earlier containers of the same ask had worked when they were preempted.
	credit time.Duration
	// notice is set while it is preempted; nil is not.
	notice *notice
	// awaitedBy is the reservation that waits for its end; nil is none.
	awaitedBy *nomination

	// These link it in the lists of its app, of its node and, while it has no notice, of its leaf.
	previousOfApp, nextOfApp   *container
	previousOfNode, nextOfNode *container
	previousOfLeaf, nextOfLeaf *container
}

// containers is the containers that are held.
type containers struct {
	byID map[id.Container]*container
	// free is a list of records that are not in use.
	free *container
	// gangs is the number of the last gang.
	gangs int64
}

// find is the container of an id; nil is none.
func (cs *containers) find(name id.Container) *container { return cs.byID[name] }

func (cs *containers) add(ctr *container) { cs.byID[ctr.id] = ctr }

func (cs *containers) remove(ctr *container) { delete(cs.byID, ctr.id) }

// nextGang counts a new gang; lastGang is its number.
func (cs *containers) nextGang() { cs.gangs++ }

func (cs *containers) lastGang() int64 { return cs.gangs }

// rejoin adds a container that is applied again to its gang.
func (cs *containers) rejoin(ctr *container, number int64) {
	cs.gangs = max(cs.gangs, number)
	for other := ctr.app.containers; other != nil; other = other.nextOfApp {
		if other.gang != nil && other.gang.number == number {
			ctr.gang = other.gang
			break
		}
	}
	if ctr.gang == nil {
		ctr.gang = &gang{number: number}
	}
	ctr.gang.members = append(ctr.gang.members, ctr)
}

// take returns an unused record for a container.
func (cs *containers) take() *container {
	if cs.free == nil {
		slab := make([]container, 256)
		for i := range slab[1:] {
			slab[i].nextOfApp = &slab[i+1]
		}
		cs.free = &slab[0]
	}
	ctr := cs.free
	cs.free, ctr.nextOfApp = ctr.nextOfApp, nil
	return ctr
}

// recycle takes back the record of a container that is gone.
func (cs *containers) recycle(ctr *container) {
	*ctr = container{nextOfApp: cs.free}
	cs.free = ctr
}

// gang has the containers that were granted together and are still held, in the order of their grants.
type gang struct {
	number  int64
	members []*container
}

// holdExisting counts a container that exists already.
func (c *Core) holdExisting(in Hold) error {
	switch {
	case in.Container.IsZero():
		return invalid("a container to hold has no id")
	case in.Node == "":
		return invalid("container %s to hold has no node", in.Container)
	}
	if old := c.containers.find(in.Container); old != nil {
		c.forget(old)
	}
	a := c.apps.find(in.Container.App)
	if a == nil {
		a = c.apps.add(in.Container.App)
	}
	if in.Container.Epoch == c.config.Epoch {
		a.lastSeq = max(a.lastSeq, in.Container.Seq)
	}
	ctr := c.containers.take()
	ctr.id, ctr.app, ctr.group, ctr.node, ctr.ask = in.Container, a, a.group(in.Group), c.fleet.named(in.Node), in.Ask
	ctr.need, ctr.master, ctr.startedAt, ctr.duration, ctr.service = in.Resources, in.Master, in.StartedAt, in.Duration, in.Service || in.Master
	if in.Gang > 0 {
		c.containers.rejoin(ctr, in.Gang)
	}
	c.containers.add(ctr)
	c.hold(ctr)
	c.fleet.touch(ctr.node)
	c.lending.noteGrant(a)
	return nil
}

// release ends a container.
func (c *Core) release(name id.Container) {
	ctr := c.containers.find(name)
	if ctr == nil {
		return
	}
	// The capacity of a lost node does not count as returned by the borrower.
	if given := ctr.notice; given != nil && given.contract != nil && !given.stopped && ctr.node.known {
		given.contract.ledger.countReturn()
	}
	c.forget(ctr)
}

// forget ends a container that is gone.
func (c *Core) forget(ctr *container) {
	c.containers.remove(ctr)
	a, n := ctr.app, ctr.node
	c.unhold(ctr)
	c.preemption.drop(ctr)
	if g := ctr.gang; g != nil {
		g.members = slices.DeleteFunc(g.members, func(other *container) bool { return other == ctr })
	}
	c.containers.recycle(ctr)
	if a.removed || a.leaf == nil {
		c.forgetApp(a)
	}
	c.forgetNode(n)
}

// hold counts a container for its node, its app and its queues.
func (c *Core) hold(ctr *container) {
	a := ctr.app
	c.fleet.hold(ctr)
	c.apps.hold(ctr, c.fleet.words())
	if a.name.tracked {
		c.fleet.touch(ctr.node)
	}
	if a.leaf != nil {
		c.chargeContainer(ctr, 1)
	}
}

// unhold is the reverse of hold.
func (c *Core) unhold(ctr *container) {
	a := ctr.app
	if ctr.awaitedBy != nil {
		ctr.awaitedBy.arrived(ctr)
	}
	c.fleet.unhold(ctr)
	c.apps.unhold(ctr)
	if a.name.tracked && a.name.held == 0 && !c.pass.onTrial {
		c.backlog.retry(a.name)
	}
	c.fleet.touch(ctr.node)
	if a.leaf != nil {
		c.chargeContainer(ctr, -1)
	}
}

// chargeContainer counts a container for its app, user and queues; sign is 1 or -1.
func (c *Core) chargeContainer(ctr *container, sign int64) {
	a, leaf := ctr.app, ctr.app.leaf
	for i := range ctr.need {
		a.used[i] += sign * ctr.need[i]
	}
	switch {
	case ctr.notice != nil:
		leaf.addLeaving(&ctr.need, sign)
	case sign > 0:
		leaf.addHeld(ctr)
	default:
		leaf.unlink(ctr)
	}
	if limits := c.tree.charge(ctr, sign); limits && sign < 0 && !c.pass.onTrial {
		c.backlog.liftLimits(leaf)
	}
	if leaf.spec.Fair {
		a.setShare(c.tree.zoneCapacity())
		c.backlog.reorder(a)
	}
}

// checkpoint records until when the work of a container is saved.
func (cs *containers) checkpoint(in Checkpoint) error {
	ctr := cs.find(in.Container)
	if ctr == nil {
		return fmt.Errorf("container %s is not held: %w", in.Container, errdefs.ErrNotFound)
	}
	if in.At.After(ctr.checkpoint) {
		ctr.checkpoint = in.At
	}
	return nil
}
