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

func (cs *containers) add(k *container) { cs.byID[k.id] = k }

func (cs *containers) remove(k *container) { delete(cs.byID, k.id) }

// nextGang counts a new gang; lastGang is its number.
func (cs *containers) nextGang() { cs.gangs++ }

func (cs *containers) lastGang() int64 { return cs.gangs }

// rejoin adds a container that is applied again to its gang.
func (cs *containers) rejoin(k *container, number int64) {
	cs.gangs = max(cs.gangs, number)
	for other := k.app.containers; other != nil; other = other.nextOfApp {
		if other.gang != nil && other.gang.number == number {
			k.gang = other.gang
			break
		}
	}
	if k.gang == nil {
		k.gang = &gang{number: number}
	}
	k.gang.members = append(k.gang.members, k)
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
	k := cs.free
	cs.free, k.nextOfApp = k.nextOfApp, nil
	return k
}

// recycle takes back the record of a container that is gone.
func (cs *containers) recycle(k *container) {
	*k = container{nextOfApp: cs.free}
	cs.free = k
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
	k := c.containers.take()
	k.id, k.app, k.group, k.node, k.ask = in.Container, a, a.group(in.Group), c.fleet.named(in.Node), in.Ask
	k.need, k.master, k.startedAt, k.duration, k.service = in.Resources, in.Master, in.StartedAt, in.Duration, in.Service || in.Master
	if in.Gang > 0 {
		c.containers.rejoin(k, in.Gang)
	}
	c.containers.add(k)
	c.hold(k)
	c.fleet.touch(k.node)
	c.lending.noteGrant(a)
	return nil
}

// release ends a container.
func (c *Core) release(name id.Container) {
	k := c.containers.find(name)
	if k == nil {
		return
	}
	// The capacity of a lost node does not count as returned by the borrower.
	if given := k.notice; given != nil && given.contract != nil && !given.stopped && k.node.known {
		given.contract.ledger.countReturn()
	}
	c.forget(k)
}

// forget ends a container that is gone.
func (c *Core) forget(k *container) {
	c.containers.remove(k)
	a, n := k.app, k.node
	c.unhold(k)
	c.preemption.drop(k)
	if g := k.gang; g != nil {
		g.members = slices.DeleteFunc(g.members, func(other *container) bool { return other == k })
	}
	c.containers.recycle(k)
	if a.removed || a.leaf == nil {
		c.forgetApp(a)
	}
	c.forgetNode(n)
}

// hold counts a container for its node, its app and its queues.
func (c *Core) hold(k *container) {
	a := k.app
	c.fleet.hold(k)
	c.apps.hold(k, c.fleet.words())
	if a.name.tracked {
		c.fleet.touch(k.node)
	}
	if a.leaf != nil {
		c.chargeContainer(k, 1)
	}
}

// unhold is the reverse of hold.
func (c *Core) unhold(k *container) {
	a := k.app
	if k.awaitedBy != nil {
		k.awaitedBy.arrived(k)
	}
	c.fleet.unhold(k)
	c.apps.unhold(k)
	if a.name.tracked && a.name.held == 0 && !c.pass.onTrial {
		c.backlog.retry(a.name)
	}
	c.fleet.touch(k.node)
	if a.leaf != nil {
		c.chargeContainer(k, -1)
	}
}

// chargeContainer counts a container for its app, user and queues; sign is 1 or -1.
func (c *Core) chargeContainer(k *container, sign int64) {
	a, leaf := k.app, k.app.leaf
	for i := range k.need {
		a.used[i] += sign * k.need[i]
	}
	switch {
	case k.notice != nil:
		leaf.addLeaving(&k.need, sign)
	case sign > 0:
		leaf.addHeld(k)
	default:
		leaf.unlink(k)
	}
	if limits := c.tree.charge(k, sign); limits && sign < 0 && !c.pass.onTrial {
		c.backlog.liftLimits(leaf)
	}
	if leaf.spec.Fair {
		a.setShare(c.tree.zoneCapacity())
		c.backlog.reorder(a)
	}
}

// checkpoint records until when the work of a container is saved.
func (cs *containers) checkpoint(in Checkpoint) error {
	k := cs.find(in.Container)
	if k == nil {
		return fmt.Errorf("container %s is not held: %w", in.Container, errdefs.ErrNotFound)
	}
	if in.At.After(k.checkpoint) {
		k.checkpoint = in.At
	}
	return nil
}
