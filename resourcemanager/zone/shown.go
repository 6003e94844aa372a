package zone

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/shares"
)

// Shown is an object of the zone as people see it from now on.
type Shown struct {
	// View is an App, Node, Container, Queue or Contract, or the Zone without what is summed up over nodes. It must not be changed.
	View proto.Message
	// Gone says that the object is removed. Of its view then only the name is certain, or the id of a container.
	Gone bool
	// Rank is what objects of a kind are listed by: apps and containers the oldest first, nodes by their last registration, queues and contracts
	// in the order of their tree and list.
	Rank int64
	// Stream is the stream that a node has open; zero is none.
	Stream StreamID
}

// late are the objects whose changes are not shown yet.
type late struct {
	apps       map[id.App]*app
	nodes      map[id.Node]struct{}
	containers map[id.Container]*container
	// shares are the queues and contracts, all of them together.
	shares bool
	// next is when they are to be shown at the pace of showEvery.
	next time.Time
	// must says that all are to be shown in this turn.
	must bool
	// wake is when the first of them may be shown; zero if none waits.
	wake time.Time
}

func newLate() late {
	return late{apps: map[id.App]*app{}, nodes: map[id.Node]struct{}{}, containers: map[id.Container]*container{}}
}

func (l *late) isEmpty() bool {
	return len(l.apps) == 0 && len(l.nodes) == 0 && len(l.containers) == 0 && !l.shares
}

const (
	// showEvery is the time between two turns that show what reports have changed, while these come all the time: many change the same
	// objects.
	showEvery = 20 * time.Millisecond
	// showBurst is how far turns may be ahead of that pace after a while in which little was shown. So what changes in a quiet zone is
	// shown at once.
	showBurst = time.Second
)

// take reports whether what has changed may be shown now, and counts that it is.
func (l *late) take(now time.Time) bool {
	if now.Before(l.next.Add(-showBurst)) {
		return false
	}
	if l.next.Before(now) {
		l.next = now
	}
	l.next = l.next.Add(showEvery)
	return true
}

// shareViews are the queues and the contracts that were shown last, by their names.
type shareViews struct {
	pace      pace
	queues    map[string]Shown
	contracts map[string]Shown
}

// nodeChanged has a node shown.
func (vs *views) nodeChanged(name id.Node) { vs.late.nodes[name] = struct{}{} }

// containerChanged has a container and its node shown.
func (vs *views) containerChanged(c *container) {
	vs.late.containers[c.id] = c
	vs.nodeChanged(c.node)
}

// mustShow has everything that has changed shown at the end of this turn: somebody is answered then, and will look whether it is so.
func (vs *views) mustShow() { vs.late.must = true }

// tick has shown again, whenever deadlines are looked at, what changes with time alone: ledgers, and what the drain of a node waits for, which changes with the apps
// that are on it.
func (vs *views) tick() {
	vs.late.shares = true
	for n := range vs.nodes.all() {
		if n.state() == lifecycle.NodeDraining {
			vs.nodeChanged(n.id)
		}
	}
}

func (vs *views) show(shown Shown) { vs.out.shown = append(vs.out.shown, shown) }

// showAll shows what there is after a start: touched apps are shown anyway.
func (vs *views) showAll() {
	for _, n := range vs.nodes.sorted() {
		vs.nodeChanged(n.id)
	}
	for _, a := range vs.apps.sorted() {
		for _, c := range sortedContainers(a.containers) {
			if c.held() {
				vs.containerChanged(c)
			}
		}
	}
	vs.late.shares = true
}

// deliver shows what looks different by now, unless that has to wait.
func (vs *views) deliver() {
	vs.noteChanges()
	if vs.late.isEmpty() && !vs.late.must {
		return
	}
	if may := vs.late.take(vs.now); !may && !vs.late.must {
		vs.late.wake = vs.late.next.Add(-showBurst)
		return
	}
	vs.showZone()
	for _, c := range sortedContainers(vs.late.containers) {
		vs.showContainer(c.record)
	}
	clear(vs.late.containers)
	vs.showNodes()
	vs.showApps()
	vs.showShares()
}

// noteChanges notes what the turn has changed.
func (vs *views) noteChanges() {
	for _, k := range vs.order {
		if k.kind == kindNode {
			vs.nodeChanged(id.Node(k.key))
		}
	}
	for a := range vs.apps.allTouched() {
		vs.late.apps[a.id] = a
	}
	for _, a := range vs.overdue {
		vs.late.apps[a.id] = a
	}
	vs.late.shares = vs.late.shares || len(vs.order) > 0
}

// wakeFor has a turn begin when something may be shown that may not be shown now.
func (vs *views) wakeFor(p *pace) {
	if at := p.at(); vs.late.wake.IsZero() || at.Before(vs.late.wake) {
		vs.late.wake = at
	}
}

// wakeBefore is an instant, or that at which something is to be shown, if that is earlier.
func (vs *views) wakeBefore(instant time.Time) time.Time {
	if !vs.late.wake.IsZero() && vs.late.wake.Before(instant) {
		return vs.late.wake
	}
	return instant
}

func (vs *views) showApps() {
	for _, a := range slices.SortedFunc(maps.Values(vs.late.apps), bySubmission) {
		vs.changed(a) // a view that was made during a turn may show half of it
		if a.view.mustShow(a) {
			a.view.pace.count(vs.now, len(a.instances))
		} else if !a.view.pace.mayShow(vs.now, len(a.instances)) {
			vs.wakeFor(&a.view.pace)
			continue
		}
		delete(vs.late.apps, a.id)
		a.view.shown, a.view.answered = vs.of(a), false
		vs.show(Shown{View: a.view.shown, Gone: a.removed, Rank: a.id.Seq})
	}
}

// mustShow reports whether an app is to be shown at once: it is new, removed, in another state, of another version or generation, or
// somebody is answered.
func (v *appView) mustShow(a *app) bool {
	return v.shown == nil || v.answered || a.removed || v.shown.GetState() != a.record.GetState() || v.shown.GetGeneration() != a.record.GetGeneration() ||
		v.shown.GetVersion() != a.record.GetVersion()
}

func (vs *views) showNodes() {
	for _, name := range slices.Sorted(maps.Keys(vs.late.nodes)) {
		n := vs.nodes.get(name)
		if n == nil {
			delete(vs.late.nodes, name)
			vs.show(Shown{View: &apiv1.Node{Name: string(name)}, Gone: true})
			continue
		}
		if n.view.shown == n.record.GetState() && !n.view.pace.mayShow(vs.now, len(n.containers)) {
			vs.wakeFor(&n.view.pace)
			continue
		}
		delete(vs.late.nodes, name)
		n.view.shown = n.record.GetState()
		view := vs.nodes.view(n)
		view.Waiting = vs.waits.ofNode(n)
		vs.show(Shown{View: view, Rank: n.record.GetRegisteredAt().AsTime().UnixNano(), Stream: n.stream()})
	}
}

// nodeView is what is known of the view of a node: its state as it was shown last.
type nodeView struct {
	shown apiv1.NodeState
	pace  pace
}

func (vs *views) showContainer(record *storev1.Container) {
	lease, status := record.GetLease(), record.GetStatus()
	labels := status.GetLabels()
	vs.show(Shown{
		View: &apiv1.Container{
			Id: lease.GetContainerId(), App: lease.GetAppName(), Instance: labels["instance"], Role: lease.GetRole(), Node: lease.GetNodeId(), Queue: lease.GetQueue(),
			Master: lease.GetMaster(), State: status.GetState(), Health: status.GetHealth(), Stopping: record.GetStopping(), Resources: lease.GetResources(),
			GrantedAt: lease.GetGrantedAt(), StartedAt: status.GetStartedAt(), Exit: status.GetExit(),
		},
		Gone: !lifecycle.ContainerState(status.GetState()).Held(), Rank: lease.GetGrantedAt().AsTime().UnixNano(),
	})
}

// showShares shows the queues and the lending contracts that differ from what was shown last. They are looked at together, since what
// one queue may use depends on the others.
func (vs *views) showShares() {
	if !vs.late.shares {
		return
	}
	parts := 10 * (len(vs.quotas.queues) + len(vs.quotas.contracts))
	if !vs.sharesChanged() && !vs.quotas.pace.mayShow(vs.now, parts) {
		vs.wakeFor(&vs.quotas.pace)
		return
	}
	vs.late.shares = false
	queues := map[string]Shown{}
	for index, queue := range vs.queues.ViewAll() {
		queues[queue.GetSpec().GetName()] = Shown{View: queue, Rank: int64(index)}
	}
	contracts := map[string]Shown{}
	for index, contract := range vs.lending.ViewAll().GetContracts() {
		contracts[contract.GetSpec().GetName()] = Shown{View: contract, Rank: int64(index)}
	}
	vs.showChanged(vs.quotas.queues, queues)
	vs.showChanged(vs.quotas.contracts, contracts)
	vs.quotas.queues, vs.quotas.contracts = queues, contracts
}

// sharesChanged reports whether somebody has changed queues or contracts in this turn, and will look whether that is so.
func (vs *views) sharesChanged() bool {
	return vs.quotas.queues == nil || slices.ContainsFunc(vs.order, func(k recordKey) bool { return k.kind == shares.KindQueues || k.kind == shares.KindContract })
}

// showChanged shows what differs from what was shown before, and what is gone.
func (vs *views) showChanged(before, now map[string]Shown) {
	for _, name := range id.SortedKeys(now) {
		if was, ok := before[name]; !ok || was.Rank != now[name].Rank || !proto.Equal(was.View, now[name].View) {
			vs.show(now[name])
		}
	}
	for _, name := range id.SortedKeys(before) {
		if _, ok := now[name]; !ok {
			vs.show(Shown{View: before[name].View, Gone: true})
		}
	}
}

// showZone shows what is known of the zone as a whole, if that has changed.
func (vs *views) showZone() {
	view := &apiv1.Zone{
		Name: vs.config.Name, Epoch: vs.config.identity.Epoch, Version: vs.config.Version, StartedAt: timestamppb.New(vs.config.started),
		NodeTimeout: durationpb.New(vs.config.NodeTimeout), Full: vs.damage.fullBecause(), Losses: vs.damage.sentences(),
	}
	if vs.zone == nil || vs.zone.GetFull() != view.GetFull() || !slices.Equal(vs.zone.GetLosses(), view.GetLosses()) {
		vs.zone = view
		vs.show(Shown{View: view})
	}
}
