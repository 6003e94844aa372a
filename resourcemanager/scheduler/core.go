package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// Core is the scheduler. It is not safe for use by several goroutines.
type Core struct {
	config Config
	pass   pass
	fleet  fleet

	queues      []*queue
	queueByName map[id.Queue]*queue
	// zone is what guarantees are shares of: the capacity of the fleet when they were last worked out. stale says that they
	// must be again.
	zone  resource.Vector
	stale bool
	// limitsMoved says that this was done, and that what is parked may go on.
	limitsMoved bool

	apps     map[id.App]*app
	arrivals int64
	// lastSeq is where container numbers of forgotten apps go on, should they come back.
	lastSeq    map[id.App]int64
	containers map[id.Container]*container
	spare      *container
	names      map[string]*named

	shapes []*shape
	// alert are, by the cpu level of what they need, the shapes that care what comes back.
	alert      [levels][]*shape
	shapeByKey map[shapeKey]*shape
	idleShapes int

	nominationsReady []*nomination
	notices          []*notice
	// firstDeadline is no later than that of any that has not run out; zero is that all have.
	firstDeadline time.Time
	// loose are notices that make room for nobody in particular; some may have been forgotten.
	loose     []*notice
	reprieved []reprieve
	// leaves are the queues without children, in tree order.
	leaves []*queue
	plan   removalPlan
	// gangs numbers the gangs granted, gangReserving is the one that has a reservation.
	gangs         int64
	gangReserving *ask
	// reserving are the asks with reservations, reserved is what those come to. Some may have none any more.
	reserving []*ask
	reserved  resource.Vector

	contracts []*contract
	// turning is when the state of some contract changes next, counted what the ledgers have counted up to.
	turning, counted time.Time
	// contractsSet says that there are new ones to look at.
	contractsSet bool
	// keepsLess says that a lender holds more, and that what is parked for its contract may go on.
	keepsLess bool
	// late are asks kept apart until some contract turns.
	late []*ask
	// claimsMoved says that a leaf with claims was granted something, so that its limits may be in the way of those now.
	claimsMoved bool
	// impatient are asks found not to fit, by the time at which room is to be reserved for them.
	impatient []impatience
}

var _ Interface = (*Core)(nil)

// New makes a core with DefaultQueues.
func New(config Config) *Core {
	if config.Notice == 0 {
		config.Notice = 10 * time.Second
	}
	if config.Patience == 0 {
		config.Patience = 10 * time.Second
	}
	c := &Core{
		config:     config,
		pass:       pass{grantsPerPass: grantsPerPass, looksPerPass: looksPerPass},
		apps:       make(map[id.App]*app),
		lastSeq:    make(map[id.App]int64),
		containers: make(map[id.Container]*container),
		names:      make(map[string]*named),
		shapeByKey: make(map[shapeKey]*shape),
	}
	c.fleet = newFleet(&c.pass)
	if err := c.setQueues(SetQueues{Queues: DefaultQueues()}); err != nil {
		panic("the default queues are refused: " + err.Error())
	}
	return c
}

// app is a submitter of asks.
type app struct {
	id       id.App
	named    *named
	user     string
	priority int32
	order    int64
	// removed apps are kept while they hold containers.
	removed bool
	// leaf is nil for containers whose app was never added.
	leaf    *queue
	owner   *user
	asks    map[string]*ask
	nextAsk int64
	groups  []*group
	// buckets are the app's own, in a fair leaf.
	buckets    []*bucket
	containers *container
	used       resource.Vector
	// share is what it holds of the zone, by its weight.
	share, weight float64
	lastSeq       int64
	// vain counts the app's reservations that came to nothing, since the last that did not; there is none before
	// reserveAfter.
	vain         int
	reserveAfter time.Time
	// credits are what containers that were stopped for others' guarantees had done, for those that follow them.
	credits []credit
}

func (a *app) title() string {
	if a.named.name != "" {
		return a.named.name
	}
	return a.id.String()
}

// ask is an Ask that waits.
type ask struct {
	app    *app
	order  int64
	place  int32
	bucket *bucket
	shape  *shape
	group  *group
	tally  *tally
	spec   Ask
	// since is when it was first found not to fit; zero before.
	since       time.Time
	watched     bool
	nominations []*nomination
	// claims is how many of them victims were given notice for.
	claims int
	// reservedAt is when its reservation began; zero is that it has had none.
	reservedAt time.Time
	// late says that it would outlast a contract's window, and is kept apart from asks of its shape that would not.
	late bool
}

// queued is an ask in a heap, with what its turn depends on, so that asks are compared without being looked at.
type queued struct {
	appPriority, priority int32
	appOrder, order       int64
	ask                   *ask
}

func (k *ask) queued() queued {
	return queued{appPriority: k.app.priority, priority: k.spec.Priority, appOrder: k.app.order, order: k.order, ask: k}
}

func (q queued) seat() *int32 { return &q.ask.place }

func (q queued) before(other queued) bool {
	switch {
	case q.appPriority != other.appPriority:
		return q.appPriority > other.appPriority
	case q.priority != other.priority:
		return q.priority > other.priority
	case q.appOrder != other.appOrder:
		return q.appOrder < other.appOrder
	}
	return q.order < other.order
}

// Apply implements Interface.
func (c *Core) Apply(input Input) error {
	switch in := input.(type) {
	case SetQueues:
		return c.setQueues(in)
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
		return c.checkpoint(in)
	case SetContracts:
		return c.setContracts(in.Contracts)
	case Hold:
		return c.holdExisting(in)
	case Release:
		c.release(in.Container)
		return nil
	}
	return invalid("%T is not an input of the scheduler", input)
}

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
		c.giveUp(n.nominations[i])
	}
	c.nodeChanged(n)
	return nil
}

func (c *Core) removeNode(name id.Node) error {
	n := c.fleet.known(name)
	if n == nil {
		return fmt.Errorf("node %s is not known: %w", name, errdefs.ErrNotFound)
	}
	n.known = false
	for len(n.nominations) > 0 {
		c.giveUp(n.nominations[0])
	}
	c.nodeChanged(n)
	c.forgetNode(n)
	return nil
}

// nodeChanged brings all that is derived from a node's spec up to date.
func (c *Core) nodeChanged(n *node) {
	for _, s := range c.shapes {
		s.refit(n.slot)
	}
	c.fleet.changed(n)
}

// forgetNode drops the record of a node that is gone and holds nothing any more.
func (c *Core) forgetNode(n *node) {
	if !c.fleet.forget(n) {
		return
	}
	for _, s := range c.shapes {
		s.refit(n.slot)
	}
}

// wake looks, for every touched node, at the shapes that it may serve again, while the pass has looks left.
func (c *Core) wake() {
	seen := 0
	for ; seen < len(c.fleet.touched) && c.pass.looks > 0; seen++ {
		c.pass.looks -= looksPerNode
		n := c.fleet.nodes[c.fleet.touched[seen]]
		c.giveUpVain(n)
		n.touched = false
		c.readyNominations(n)
		if n.at == nowhere {
			continue
		}
		c.fleet.changes++
		for cpu := int8(0); cpu <= n.at.cpu; cpu++ {
			c.pass.looks -= len(c.alert[cpu])
			still := c.alert[cpu][:0]
			for _, s := range c.alert[cpu] {
				c.offer(s, n)
				if s.alert = s.misfits > 0 || s.waiting > 0; s.alert {
					still = append(still, s)
				} else {
					// From now on it is not told of what comes back.
					s.blocked = false
				}
			}
			c.alert[cpu] = still
		}
	}
	c.fleet.touched = append(c.fleet.touched[:0], c.fleet.touched[seen:]...)
}

// Used implements Interface.
func (c *Core) Used(name id.Node) resource.Vector { return c.fleet.used(name) }

// Largest implements Interface.
func (c *Core) Largest() resource.Vector { return c.fleet.most() }

// find is the slot of the node where one container of an ask goes, or -1.
func (c *Core) find(k *ask) int32 {
	slot := c.fleet.find(k)
	if k.shape.misfits > 0 {
		c.alarm(k.shape)
	}
	return slot
}

func (c *Core) addApp(in AddApp) error {
	leaf, err := c.leafFor(in.Queue)
	if err != nil {
		return err
	}
	a := c.apps[in.App]
	if !in.Recovered && (a == nil || a.removed || a.leaf != leaf) {
		if err := c.admits(leaf, in); err != nil {
			return err
		}
	}
	weight := in.Weight
	if !(weight > 0) {
		weight = 1
	}
	if a == nil {
		a = c.makeApp(in.App)
	} else if !a.removed && a.leaf == leaf && a.named.name == in.Name && a.user == in.User && a.priority == in.Priority && a.weight == weight {
		return nil
	}
	asks := a.sortedAsks()
	for _, k := range asks {
		c.withdrawNominations(k)
		c.leave(k)
	}
	if a.leaf != nil {
		c.chargeApp(a, -1)
		if !a.removed {
			a.leaf.apps--
		}
	}
	if old := a.named; old == nil || old.name != in.Name {
		c.rename(a, in.Name)
	}
	a.removed, a.weight = false, weight
	a.leaf, a.user, a.owner, a.priority = leaf, in.User, leaf.user(in.User), in.Priority
	leaf.apps++
	c.chargeApp(a, 1)
	for _, k := range asks {
		c.enter(k)
	}
	return nil
}

func (c *Core) makeApp(name id.App) *app {
	c.arrivals++
	a := &app{id: name, order: c.arrivals, asks: make(map[string]*ask), weight: 1, lastSeq: c.lastSeq[name], named: c.nameOf("")}
	a.named.apps++
	delete(c.lastSeq, name)
	c.apps[name] = a
	return a
}

// admits says why a leaf does not take a new app, if so.
func (c *Core) admits(leaf *queue, in AddApp) error {
	for q := leaf; q != nil; q = q.parent {
		switch q.spec.State {
		case QueueDraining:
			return refused("queue %s is draining and takes no new apps", q.spec.Name)
		case QueueStopped:
			return refused("queue %s is stopped and takes no new apps", q.spec.Name)
		}
	}
	if leaf.spec.MaxApps > 0 && leaf.apps >= leaf.spec.MaxApps {
		return refused("queue %s already has %d apps, the most that it takes", leaf.spec.Name, leaf.apps)
	}
	if !in.Allowed && !c.MaySubmit(leaf.spec.Name, in.User) {
		return fmt.Errorf("user %q may not submit to queue %s: %w", in.User, leaf.spec.Name, errdefs.ErrPermissionDenied)
	}
	return nil
}

func (c *Core) rename(a *app, name string) {
	old := a.named
	a.named = c.nameOf(name)
	a.named.apps++
	for k := a.containers; k != nil; k = k.nextOfApp {
		a.named.held++
		old.held--
		if a.named.tracked {
			a.named.nodes.set(k.node.slot, c.fleet.grid.words)
		}
		if old.tracked {
			old.vacate(k.node)
		}
		if a.named.tracked || old.tracked {
			c.fleet.touch(k.node)
		}
	}
	if old.tracked && old.held == 0 {
		c.relent(old)
	}
	c.leaveName(old)
}

func (c *Core) chargeApp(a *app, sign int64) {
	for k := a.containers; k != nil; k = k.nextOfApp {
		c.chargeContainer(k, sign)
	}
}

func (c *Core) removeApp(name id.App) error {
	a := c.apps[name]
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

// forgetApp gives up the record of an app that is gone and holds nothing any more.
func (c *Core) forgetApp(a *app) {
	if a.containers != nil || a.leaf != nil && !a.removed || len(a.asks) > 0 {
		return
	}
	delete(c.apps, a.id)
	if a.lastSeq > 0 {
		c.lastSeq[a.id] = a.lastSeq
	}
	c.leaveName(a.named)
}

func (c *Core) setAsk(in SetAsk) error {
	a := c.apps[in.App]
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
			c.withdrawNomination(k.nominations[len(k.nominations)-1])
		}
		if b := k.bucket; b.key.gang != nil && b.state != ready {
			c.leave(k)
			c.enter(k)
		}
		return nil
	}
	if k == nil {
		a.nextAsk++
		k = &ask{app: a, order: a.nextAsk, place: -1}
		a.asks[in.Ask.ID] = k
	} else {
		c.withdrawNominations(k)
		c.leave(k)
	}
	k.spec = in.Ask.clone()
	k.group, k.tally, k.since, k.late, k.reservedAt = a.group(in.Ask.Group), nil, time.Time{}, false, time.Time{}
	c.enter(k)
	return nil
}

func checkAsk(spec *Ask) error {
	for i, n := range spec.Resources {
		if n < 0 {
			return invalid("ask %q wants a negative quantity at place %d", spec.ID, i)
		}
	}
	switch {
	case spec.Resources.IsZero():
		return invalid("ask %q wants nothing", spec.ID)
	case spec.Policy > Pack:
		return invalid("ask %q has an unknown placement policy", spec.ID)
	case spec.MaxPerNode < 0:
		return invalid("ask %q allows %d containers a node", spec.ID, spec.MaxPerNode)
	}
	return nil
}

// sameBut reports whether two asks differ in no more than what is pending.
func (k *Ask) sameBut(l *Ask) bool {
	return k.Resources == l.Resources && k.Priority == l.Priority && k.Policy == l.Policy && k.SpreadOver == l.SpreadOver &&
		k.Service == l.Service && k.Replaces == l.Replaces && k.MaxPerNode == l.MaxPerNode && k.Group == l.Group && k.Gang == l.Gang && k.Duration == l.Duration && k.Master == l.Master &&
		slices.Equal(k.Avoid, l.Avoid) && slices.Equal(k.Affinity, l.Affinity) && slices.Equal(k.AntiAffinity, l.AntiAffinity) &&
		slices.EqualFunc(k.Constraints, l.Constraints, func(x, y Constraint) bool {
			return x.Attribute == y.Attribute && x.Operator == y.Operator && slices.Equal(x.Values, y.Values)
		})
}

// clone copies what the caller may change later.
func (k Ask) clone() Ask {
	k.Constraints, k.Avoid = slices.Clone(k.Constraints), slices.Clone(k.Avoid)
	k.Affinity, k.AntiAffinity = slices.Clone(k.Affinity), slices.Clone(k.AntiAffinity)
	return k
}

// withdraw ends an ask.
func (c *Core) withdraw(k *ask) {
	c.withdrawNominations(k)
	c.leave(k)
	delete(k.app.asks, k.spec.ID)
}

func (c *Core) sortedApps() []*app {
	apps := make([]*app, 0, len(c.apps))
	for _, a := range c.apps {
		apps = append(apps, a)
	}
	slices.SortFunc(apps, func(x, y *app) int { return int(x.order - y.order) })
	return apps
}

func (c *Core) sortedNames() []*named {
	names := make([]*named, 0, len(c.names))
	for _, m := range c.names {
		names = append(names, m)
	}
	slices.SortFunc(names, func(x, y *named) int {
		switch {
		case x.name < y.name:
			return -1
		case x.name > y.name:
			return 1
		}
		return 0
	})
	return names
}

func (a *app) sortedAsks() []*ask {
	asks := make([]*ask, 0, len(a.asks))
	for _, k := range a.asks {
		asks = append(asks, k)
	}
	slices.SortFunc(asks, func(x, y *ask) int { return int(x.order - y.order) })
	return asks
}
