package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/term"
)

const (
	// busyApps ask for containers while it is measured, each at an equal share of the rate; the others only hold theirs.
	busyApps = 100
	// heldFor is how long a container of the load is held.
	heldFor = 2 * time.Second
)

// durations are measured by several goroutines.
type durations struct {
	mu     sync.Mutex
	all    []time.Duration
	sorted bool
}

func (d *durations) add(took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all, d.sorted = append(d.all, took), false
}

// at is the duration that a share of all is not longer than.
func (d *durations) at(share float64) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.all) == 0 {
		return 0
	}
	if !d.sorted {
		slices.Sort(d.all)
		d.sorted = true
	}
	return d.all[min(len(d.all)-1, int(share*float64(len(d.all))))].Round(10 * time.Microsecond)
}

// load is the simulated nodes and masters of a zone.
type load struct {
	rm      *term.Term
	life    context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	nodes   map[string]*node
	masters []*master
	// perApp is how many containers each app holds all the while.
	perApp int
}

func newLoad(rm *term.Term, perApp int) *load {
	l := &load{rm: rm, perApp: perApp, nodes: map[string]*node{}}
	l.life, l.stop = context.WithCancel(operator(context.Background()))
	return l
}

func (l *load) end() {
	l.stop()
	l.running.Wait()
}

// node is a NodeManager as far as the zone can tell.
type node struct {
	load    *load
	session service.NodeSession
	reports chan *corev1.ContainerStatus
}

// Send implements service.NodeStream: a container that is to stop has stopped.
func (n *node) Send(command *trackerv1.NodeCommand) error {
	if stop := command.GetStop(); stop != nil {
		n.report(&corev1.ContainerStatus{
			Lease: &corev1.Lease{ContainerId: stop.GetContainerId()}, State: corev1.ContainerStatus_DONE, Sequence: 2, Exit: &corev1.Exit{Reason: stop.GetReason()},
		})
	}
	return nil
}

// End implements service.NodeStream.
func (n *node) End(error) {}

func (n *node) report(status *corev1.ContainerStatus) {
	select {
	case n.reports <- status:
	case <-n.load.life.Done():
	}
}

func (n *node) run(lease *corev1.Lease) {
	n.report(&corev1.ContainerStatus{
		Lease: lease, State: corev1.ContainerStatus_RUNNING, Sequence: 1, Labels: map[string]string{"instance": lease.GetAskId()},
	})
}

func (n *node) sendReports() {
	for {
		select {
		case status := <-n.reports:
			_ = n.session.Report(n.load.life, &trackerv1.NodeReport{Containers: []*corev1.ContainerStatus{status}})
		case <-n.load.life.Done():
			return
		}
	}
}

// fill makes the zone.
func (l *load) fill(ctx context.Context, o options) error {
	for i := range o.nodes {
		name := fmt.Sprintf("node-%d", i)
		n := &node{load: l, reports: make(chan *corev1.ContainerStatus, 100)}
		registered, err := l.rm.RegisterNode(l.life, &trackerv1.RegisterRequest{
			NodeId: name, Address: "127.0.0.1", ContainerManager: "127.0.0.1:1", Version: "bench", Health: &corev1.NodeHealth{Healthy: true},
			Capacity: &corev1.Resources{CpuMillis: 64_000, MemoryBytes: 256 << 30, DiskBytes: 4 << 40, Ports: 1000},
		})
		if err != nil {
			return err
		}
		if n.session, err = l.rm.OpenSession(l.life, registered.GetSession(), n); err != nil {
			return err
		}
		l.nodes[name] = n
		l.running.Go(n.sendReports)
	}
	l.running.Go(l.beat)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(256)
	var mu sync.Mutex
	for i := range o.apps {
		group.Go(func() error {
			m, err := l.startMaster(fmt.Sprintf("app-%d", i))
			if err != nil {
				return err
			}
			mu.Lock()
			l.masters = append(l.masters, m)
			mu.Unlock()
			request := &masterv1.AllocateRequest{}
			for n := range o.perApp {
				request.Asks = append(request.Asks, ask(fmt.Sprintf("stays-%d", n)))
			}
			if err := m.stream.Allocate(ctx, request); err != nil {
				return err
			}
			select {
			case <-m.filled:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(10 * time.Minute):
				return errors.New("the zone was not filled within ten minutes")
			}
		})
	}
	return group.Wait()
}

// beat has every node heard of once a second.
func (l *load) beat() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for _, n := range l.nodes {
				_ = n.session.Beat()
			}
		case <-l.life.Done():
			return
		}
	}
}

func ask(id string) *masterv1.Ask {
	return &masterv1.Ask{Id: id, Count: 1, Resources: &corev1.Resources{CpuMillis: 500, MemoryBytes: 256 << 20, DiskBytes: 64 << 20}}
}

// master is an application master outside of the zone.
type master struct {
	load   *load
	app    string
	stream service.MasterStream
	// filled is closed when the app holds what it keeps.
	filled chan struct{}

	mu    sync.Mutex
	asked map[string]time.Time
	back  []string
	from  time.Time
	into  *durations
	stays int
}

func (l *load) startMaster(app string) (*master, error) {
	started, err := l.rm.StartMaster(l.life, &apiv1.AppSpec{Name: app, Kind: apiv1.AppSpec_EXTERNAL, Queue: "default"})
	if err != nil {
		return nil, err
	}
	if _, err := l.rm.RegisterMaster(l.life, started.GetToken(), &masterv1.RegisterRequest{AppId: started.GetAppId(), Attempt: started.GetAttempt()}); err != nil {
		return nil, err
	}
	m := &master{load: l, app: app, filled: make(chan struct{}), asked: map[string]time.Time{}, into: &durations{}}
	if m.stream, err = l.rm.OpenAllocate(l.life, started.GetToken()); err != nil {
		return nil, err
	}
	l.running.Go(m.receive)
	return m, nil
}

// receive starts what the master is given, and notes how long it has waited for that.
func (m *master) receive() {
	for {
		answers, err := m.stream.Next(m.load.life)
		if err != nil {
			return
		}
		now := time.Now()
		for _, answer := range answers {
			for _, allocation := range answer.GetAllocated() {
				m.take(allocation.GetLease(), now)
			}
		}
	}
}

func (m *master) take(lease *corev1.Lease, now time.Time) {
	m.load.nodes[lease.GetNodeId()].run(lease)
	instance := &masterv1.InstanceReport{Id: lease.GetAskId(), ContainerId: lease.GetContainerId(), Version: 1, State: apiv1.Instance_RUNNING}
	m.mu.Lock()
	at, measured := m.asked[lease.GetAskId()]
	delete(m.asked, lease.GetAskId())
	if measured && at.After(m.from) {
		m.into.add(now.Sub(at))
	}
	if !measured {
		m.stays++
	}
	stays := m.stays
	m.mu.Unlock()
	_ = m.stream.Allocate(m.load.life, &masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{instance}})
	if measured {
		time.AfterFunc(heldFor, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.back = append(m.back, lease.GetContainerId(), lease.GetAskId())
		})
	} else if stays == m.load.perApp {
		close(m.filled)
	}
}

// run has busy apps ask at the rate for a while, and notes how long they wait.
func (l *load) run(ctx context.Context, o options, length time.Duration, into *durations) error {
	busy := l.masters[:min(busyApps, len(l.masters))]
	began := time.Now()
	for _, m := range busy {
		m.mu.Lock()
		m.from, m.into = began, into
		m.mu.Unlock()
	}
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for number := 0; time.Since(began) < length; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		requests := map[*master]*masterv1.AllocateRequest{}
		now := time.Now()
		for due := int(now.Sub(began).Seconds() * float64(o.rate)); number < due; number++ {
			m := busy[number%len(busy)]
			if requests[m] == nil {
				requests[m] = m.giveBack()
			}
			id := fmt.Sprintf("%d-%d", began.UnixMilli(), number)
			m.mu.Lock()
			m.asked[id] = now
			m.mu.Unlock()
			requests[m].Asks = append(requests[m].Asks, ask(id))
		}
		for m, request := range requests {
			if err := m.stream.Allocate(ctx, request); err != nil {
				return err
			}
		}
	}
	return nil
}

// giveBack is a request with the containers whose time is over.
func (m *master) giveBack() *masterv1.AllocateRequest {
	m.mu.Lock()
	defer m.mu.Unlock()
	request := &masterv1.AllocateRequest{}
	for pair := range slices.Chunk(m.back, 2) {
		request.Release = append(request.Release, &masterv1.Release{ContainerId: pair[0], Reason: "it has run for long enough"})
		request.GoneInstances = append(request.GoneInstances, pair[1])
	}
	m.back = nil
	return request
}
