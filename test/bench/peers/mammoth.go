package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// mammoth is the scheduler core of this repository, alone or with what the ResourceManager writes about a grant.
type mammoth struct {
	policy scheduler.Policy
	// stored commits a record and an event of each grant to the store in memory.
	stored bool
}

func (m mammoth) name() string {
	name := "spread"
	if m.policy == scheduler.Pack {
		name = "pack"
	}
	if m.stored {
		name += " + store"
	}
	return name
}

func (mammoth) apart() bool { return false }

func (m mammoth) covers() string {
	if m.stored {
		return "the same, and encodes the record and the event of each grant and commits them to the in-memory store; left out are the disk, " +
			"the rest of the ResourceManager's loop and the wire"
	}
	return "takes in the queue tree, nodes, apps and one ask a container, chooses queue and user under their limits, places, keeps the books, lists the " +
		"decisions; left out are the store, the events and the wire"
}

const (
	queues = 10
	// passesPerTurn is how many passes the ResourceManager takes before it commits.
	passesPerTurn = 5
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (m mammoth) prepare(w workload) (trial, error) {
	t := &mammothTrial{stored: m.stored}
	t.inputs = append(t.inputs, tree())
	for i, n := range w.nodeSizes {
		t.inputs = append(t.inputs, scheduler.SetNode{Node: scheduler.NodeSpec{Name: nodeID(i), Capacity: resource.Vector{resource.CPU: n.cpu, resource.Memory: n.memory}}})
	}
	for i := range w.appSizes {
		t.inputs = append(t.inputs, scheduler.AddApp{App: appID(i), Name: appName(i), Queue: queueID(i % queues), User: user(i)})
	}
	for i := range w.asks {
		app := w.app(i)
		t.inputs = append(t.inputs, scheduler.SetAsk{App: appID(app), Ask: scheduler.Ask{
			ID: "ask-" + strconv.Itoa(i), Pending: 1, Policy: m.policy,
			Resources: resource.Vector{resource.CPU: w.appSizes[app].cpu, resource.Memory: w.appSizes[app].memory},
		}})
	}
	return t, nil
}

// tree has five leaves on each of two sides, with a limit on what one user may hold in each.
func tree() scheduler.SetQueues {
	percent := func(p float64) scheduler.Capacity { return scheduler.Capacity{Percent: p, IsPercent: true} }
	specs := []scheduler.QueueSpec{{Name: "root"}}
	for i := range 2 {
		specs = append(specs, scheduler.QueueSpec{Name: id.Queue(side(i)), Parent: "root", Guaranteed: percent(50)})
	}
	for i := range queues {
		specs = append(specs, scheduler.QueueSpec{Name: queueID(i), Parent: id.Queue(side(i)), Guaranteed: percent(20), UserLimitPercent: 90})
	}
	return scheduler.SetQueues{Queues: specs}
}

// side is where the i-th queue is.
func side(i int) string { return []string{"left", "right"}[i%2] }

// user is whose the i-th app is.
func user(i int) string { return []string{"ann", "bob"}[i/queues%2] }

func queueID(i int) id.Queue { return id.Queue(fmt.Sprintf("queue-%d", i)) }

func appID(i int) id.App { return id.App{ClusterStart: 1, Seq: int64(i + 1)} }

func appName(i int) string { return fmt.Sprintf("app-%d", i) }

func nodeID(i int) id.Node { return id.Node(fmt.Sprintf("node-%06d", i)) }

type mammothTrial struct {
	stored bool
	inputs []scheduler.Input
	grants []scheduler.Grant
	disk   store.Disk
}

func (t *mammothTrial) run(decided func()) error {
	core := scheduler.New(scheduler.Config{Epoch: 1})
	for _, in := range t.inputs {
		if err := core.Apply(in); err != nil {
			return err
		}
	}
	memory := store.OpenMemory(&t.disk, store.Options{Now: epoch, EventRetention: 10_000})
	var written int
	for pass, now := 1, epoch; ; pass, now = pass+1, now.Add(time.Millisecond) {
		d := core.Schedule(now)
		t.grants = append(t.grants, d.Grants...)
		more := d.More(now)
		if !more {
			decided()
		}
		if t.stored && (!more || pass%passesPerTurn == 0) {
			if err := commit(memory, t.grants[written:], now); err != nil {
				return err
			}
			written = len(t.grants)
		}
		if !more {
			return memory.Close()
		}
	}
}

// commit writes what the ResourceManager writes about grants: the record of each container and an event.
func commit(memory store.Store, grants []scheduler.Grant, now time.Time) error {
	var batch store.Batch
	for _, g := range grants {
		container, app := g.Container.String(), appName(int(g.Container.App.Seq-1))
		lease := &corev1.Lease{
			ContainerId: container, AppId: g.Container.App.String(), AppName: app, Attempt: 1, NodeId: string(g.Node),
			Resources: &corev1.Resources{CpuMillis: g.Resources[resource.CPU], MemoryBytes: g.Resources[resource.Memory]},
			Queue:     string(g.Queue), AskId: g.Ask, GrantedAt: timestamppb.New(now),
		}
		record, err := proto.Marshal(&storev1.Container{
			Lease: lease, Status: &corev1.ContainerStatus{Lease: lease, State: corev1.ContainerStatus_NEW}, StartBy: timestamppb.New(now.Add(time.Minute)),
		})
		if err != nil {
			return err
		}
		sequence := memory.LastEvent() + int64(len(batch.Events)) + 1
		event, err := proto.Marshal(&apiv1.Event{
			Sequence: sequence, Time: timestamppb.New(now), Kind: "container", App: app, Container: container, Node: string(g.Node), Queue: string(g.Queue), To: "new",
			Message: fmt.Sprintf("%s was given to %s on %s", container, app, g.Node),
		})
		if err != nil {
			return err
		}
		batch.Puts = append(batch.Puts, store.Put{Kind: "container", Key: container, Value: record})
		batch.Events = append(batch.Events, store.Event{Sequence: sequence, Value: event})
	}
	return memory.Commit(context.Background(), batch)
}

func (t *mammothTrial) placed() ([]placement, error) {
	placed := make([]placement, len(t.grants))
	for i, g := range t.grants {
		node, err := strconv.Atoi(strings.TrimPrefix(string(g.Node), "node-"))
		if err != nil {
			return nil, err
		}
		placed[i] = placement{App: int(g.Container.App.Seq - 1), Node: node}
	}
	return placed, nil
}

func (t *mammothTrial) close() error { return nil }
