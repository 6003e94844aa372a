package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"
)

// Core is the scheduler. It wires the parts, and has the operations that involve several of them. It is not safe for concurrent
// use.
type Core struct {
	config      Config
	pass        pass
	fleet       fleet
	apps        apps
	containers  containers
	tree        tree
	backlog     backlog
	nominations nominations
	preemption  preemption
	lending     lending
	explainer   explainer
}

var _ Interface = (*Core)(nil)

// New returns a Core with DefaultQueues.
func New(config Config) *Core {
	if config.Notice == 0 {
		config.Notice = 10 * time.Second
	}
	if config.ReserveAfter == 0 {
		config.ReserveAfter = 10 * time.Second
	}
	c := &Core{
		config:     config,
		pass:       pass{grantsPerPass: grantsPerPass, looksPerPass: looksPerPass},
		containers: containers{byID: make(map[id.Container]*container)},
	}
	c.fleet = newFleet(&c.pass)
	c.apps = newApps(&c.fleet)
	c.tree = tree{lending: &c.lending}
	c.backlog = backlog{pass: &c.pass, fleet: &c.fleet, apps: &c.apps, reserveAfter: config.ReserveAfter, byKey: make(map[shapeKey]*shape)}
	c.nominations = nominations{
		pass: &c.pass, fleet: &c.fleet, tree: &c.tree, backlog: &c.backlog, preemption: &c.preemption, reserveAfter: config.ReserveAfter,
	}
	c.preemption = preemption{
		pass: &c.pass, fleet: &c.fleet, tree: &c.tree, containers: &c.containers, lending: &c.lending, nominations: &c.nominations,
		notice: config.Notice,
	}
	c.explainer = explainer{pass: &c.pass, fleet: &c.fleet, tree: &c.tree, schema: config.Schema, master: config.Master}
	c.lending = lending{pass: &c.pass, tree: &c.tree, backlog: &c.backlog, preemption: &c.preemption}
	if err := c.setQueues(SetQueues{Queues: DefaultQueues()}); err != nil {
		panic("the default queues are refused: " + err.Error())
	}
	return c
}

// Apply implements Interface.
func (c *Core) Apply(input Input) error {
	switch in := input.(type) {
	case SetQueues:
		return c.setQueues(in)
	case SetSchema:
		c.config.Schema = in.Schema
		c.explainer.setSchema(in.Schema)
		return nil
	case SetNode:
		return c.setNode(in.Node)
	case RemoveNode:
		return c.removeNode(in.Node)
	case AddApp:
		return c.addApp(in)
	case RemoveApp:
		return c.removeApp(in.App)
	case SetAsk:
		return c.setAsk(in)
	case Checkpoint:
		return c.containers.checkpoint(in)
	case SetContracts:
		return c.lending.set(in.Contracts)
	case Hold:
		return c.holdExisting(in)
	case Release:
		c.release(in.Container)
		return nil
	}
	return invalid("%T is not an input of the scheduler", input)
}

// setNode adds a node, or changes it.
func (c *Core) setNode(spec NodeSpec) error {
	if spec.Name == "" {
		return invalid("a node has no name")
	}
	for i, amountOf := range spec.Capacity {
		if amountOf < 0 {
			return invalid("node %s has a negative capacity of %s", spec.Name, c.config.Schema.Name(i))
		}
	}
	n := c.fleet.named(spec.Name)
	if !c.fleet.set(n, spec) {
		return nil
	}
	for {
		i := slices.IndexFunc(n.nominations, func(m *nomination) bool { return !n.isOpen() || !fits(&m.room, &spec.Capacity) })
		if i < 0 {
			break
		}
		c.nominations.cancel(n.nominations[i])
	}
	c.nodeChanged(n)
	return nil
}

// removeNode takes a node away.
func (c *Core) removeNode(name id.Node) error {
	n := c.fleet.known(name)
	if n == nil {
		return fmt.Errorf("node %s is not known: %w", name, errdefs.ErrNotFound)
	}
	c.fleet.remove(n)
	for len(n.nominations) > 0 {
		c.nominations.cancel(n.nominations[0])
	}
	c.nodeChanged(n)
	c.forgetNode(n)
	return nil
}

// nodeChanged updates everything that is derived from a node's spec.
func (c *Core) nodeChanged(n *node) {
	c.backlog.refit(n.slot)
	c.fleet.changed(n)
}

// forgetNode drops the record of a node that is gone and holds nothing any more.
func (c *Core) forgetNode(n *node) {
	if !c.fleet.forget(n) {
		return
	}
	c.backlog.refit(n.slot)
}

// offerTouched offers the touched nodes to blocked asks, within the budget of the pass.
func (c *Core) offerTouched() {
	for c.pass.looks > 0 {
		n := c.fleet.nextTouched()
		if n == nil {
			break
		}
		c.pass.looks -= looksPerNode
		c.nominations.cancelUnmet(n)
		c.fleet.offered(n)
		c.nominations.queueReady(n)
		if n.at != grid.Nowhere {
			c.fleet.noteChange()
			c.backlog.capacityReturned(n)
		}
	}
}

// MaySubmit reports whether a user may submit to a queue.
func (c *Core) MaySubmit(queue id.Queue, user string) bool { return c.tree.maySubmit(queue, user) }

// MayAdminister reports whether a user may administer a queue.
func (c *Core) MayAdminister(queue id.Queue, user string) bool {
	return c.tree.mayAdminister(queue, user)
}

// Used implements Interface.
func (c *Core) Used(name id.Node) resource.Vector { return c.fleet.used(name) }

// addApp adds an app, or changes it.
func (c *Core) addApp(in AddApp) error {
	leaf, err := c.tree.leafFor(in.Queue)
	if err != nil {
		return err
	}
	a := c.apps.find(in.App)
	if !in.Recovered && (a == nil || a.removed || a.leaf != leaf) {
		if err := c.tree.admits(leaf, in); err != nil {
			return err
		}
	}
	if a == nil {
		a = c.apps.add(in.App)
	} else if !a.removed && a.leaf == leaf && a.name.name == in.Name && a.user == in.User && a.priority == in.Priority {
		return nil
	}
	// Rename first: it gives asks new shapes, and the app's own asks must be in the backlog for that.
	if old := a.name; old.name != in.Name {
		c.rename(a, in.Name)
	}
	asks := a.sortedAsks()
	for _, k := range asks {
		c.nominations.withdrawAll(k)
		c.backlog.leave(k)
	}
	if a.leaf != nil {
		for k := range a.held() {
			c.chargeContainer(k, -1)
		}
		if !a.removed {
			a.leaf.apps--
		}
	}
	a.removed = false
	a.leaf, a.user, a.owner, a.priority = leaf, in.User, leaf.user(in.User), in.Priority
	leaf.apps++
	for k := range a.held() {
		c.chargeContainer(k, 1)
	}
	for _, k := range asks {
		c.backlog.enter(k)
	}
	return nil
}

// rename gives an app another name.
func (c *Core) rename(a *app, name string) {
	old := a.name
	a.name = c.apps.named(name)
	a.name.apps++
	for ctr := range a.held() {
		a.name.held++
		old.held--
		if a.name.tracked {
			a.name.nodes.Set(ctr.node.slot, c.fleet.words())
		}
		if old.tracked {
			old.vacate(ctr.node)
		}
		if a.name.tracked || old.tracked {
			c.fleet.touch(ctr.node)
		}
	}
	if old.tracked && old.held == 0 {
		c.backlog.retry(old)
	}
	c.leaveName(old)
}

// removeApp withdraws an app and its asks.
func (c *Core) removeApp(name id.App) error {
	a := c.apps.find(name)
	if a == nil || a.removed {
		return fmt.Errorf("app %s is not known: %w", name, errdefs.ErrNotFound)
	}
	for _, k := range a.sortedAsks() {
		c.withdraw(k)
	}
	if a.leaf != nil {
		a.leaf.apps--
	}
	a.removed = true
	c.forgetApp(a)
	return nil
}

// leaveName removes a forgotten app from its name.
func (c *Core) leaveName(m *appName) {
	for _, other := range c.apps.leaveName(m) {
		c.backlog.reshape(other)
	}
}

// forgetApp drops the record of an app that is gone and holds nothing any more.
func (c *Core) forgetApp(a *app) {
	if a.containers != nil || a.leaf != nil && !a.removed || len(a.asks) > 0 {
		return
	}
	c.apps.remove(a)
	c.leaveName(a.name)
}

// setAsk sets, changes or withdraws an ask.
func (c *Core) setAsk(in SetAsk) error {
	a := c.apps.find(in.App)
	if a == nil || a.removed || a.leaf == nil {
		return fmt.Errorf("app %s is not known: %w", in.App, errdefs.ErrNotFound)
	}
	k := a.asks[in.Ask.ID]
	if in.Ask.Pending <= 0 {
		if k != nil {
			c.withdraw(k)
		}
		return nil
	}
	if err := checkAsk(&in.Ask); err != nil {
		return err
	}
	if k != nil && k.spec.sameBut(&in.Ask) {
		if k.spec.Pending == in.Ask.Pending {
			return nil
		}
		k.spec.Pending = in.Ask.Pending
		for len(k.nominations) > 0 && (k.spec.Gang || len(k.nominations) > k.spec.Pending) {
			c.nominations.withdraw(k.nominations[len(k.nominations)-1])
		}
		c.backlog.resized(k)
		return nil
	}
	if k == nil {
		a.nextAsk++
		k = &ask{app: a, order: a.nextAsk, index: -1}
		a.asks[in.Ask.ID] = k
	} else {
		c.nominations.withdrawAll(k)
		c.backlog.leave(k)
	}
	k.spec = in.Ask.clone()
	k.group, k.tally, k.outlasting = a.group(in.Ask.Group), nil, false
	k.blockedSince, k.reservedAt = time.Time{}, time.Time{}
	c.backlog.enter(k)
	return nil
}

// withdraw ends an ask.
func (c *Core) withdraw(k *ask) {
	c.nominations.withdrawAll(k)
	c.backlog.leave(k)
	delete(k.app.asks, k.spec.ID)
}
