package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/docker/go-events"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/moby/swarmkit/v2/manager/scheduler"
	"github.com/moby/swarmkit/v2/manager/state/store"
	"github.com/sirupsen/logrus"
)

// swarmKit is the scheduler of Docker's swarm mode, over its own store in memory, with its defaults.
type swarmKit struct{}

func (swarmKit) name() string { return "SwarmKit" }

func (swarmKit) apart() bool { return false }

func (swarmKit) covers() string {
	return "reads nodes and tasks from its in-memory store, spreads the tasks of each service over the nodes, commits each task to the store and publishes " +
		"an event; left out are raft, the watchers of those events (its own included) and the creation of the objects in the store"
}

func (swarmKit) prepare(w workload) (trial, error) {
	s := store.NewMemoryStore(nil)
	err := s.Batch(func(batch *store.Batch) error {
		create := func(each func(tx store.Tx) error) error { return batch.Update(each) }
		for i, n := range w.nodeSizes {
			node := &api.Node{
				ID: strconv.Itoa(i),
				Description: &api.NodeDescription{
					Hostname:  fmt.Sprintf("node-%06d", i),
					Resources: &api.Resources{NanoCPUs: n.cpu * 1_000_000, MemoryBytes: n.memory},
				},
				Spec:   api.NodeSpec{Membership: api.NodeMembershipAccepted, Availability: api.NodeAvailabilityActive},
				Status: api.NodeStatus{State: api.NodeStatus_READY},
			}
			if err := create(func(tx store.Tx) error { return store.CreateNode(tx, node) }); err != nil {
				return err
			}
		}
		services := make([]*api.Service, w.apps)
		for i, a := range w.appSizes {
			services[i] = &api.Service{
				ID:          strconv.Itoa(i),
				SpecVersion: &api.Version{Index: 1},
				Spec: api.ServiceSpec{
					Annotations: api.Annotations{Name: fmt.Sprintf("app-%d", i)},
					Mode:        &api.ServiceSpec_Replicated{Replicated: &api.ReplicatedService{Replicas: uint64(w.asks / w.apps)}},
					Task: api.TaskSpec{
						Runtime:   &api.TaskSpec_Container{Container: &api.ContainerSpec{Image: "app"}},
						Resources: &api.ResourceRequirements{Reservations: &api.Resources{NanoCPUs: a.cpu * 1_000_000, MemoryBytes: a.memory}},
					},
				},
			}
			if err := create(func(tx store.Tx) error { return store.CreateService(tx, services[i]) }); err != nil {
				return err
			}
		}
		for i := range w.asks {
			service := services[w.app(i)]
			task := &api.Task{
				ID:                 fmt.Sprintf("task-%d", i),
				ServiceID:          service.ID,
				Slot:               uint64(1 + i/w.apps),
				Spec:               service.Spec.Task,
				SpecVersion:        service.SpecVersion,
				ServiceAnnotations: service.Spec.Annotations,
				Status:             api.TaskStatus{State: api.TaskStatePending},
				DesiredState:       api.TaskStateRunning,
			}
			if err := create(func(tx store.Tx) error { return store.CreateTask(tx, task) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fill SwarmKit's store: %w", err)
	}
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	silent.SetLevel(logrus.PanicLevel)
	return &swarmKitTrial{store: s, log: logrus.NewEntry(silent)}, nil
}

type swarmKitTrial struct {
	store *store.MemoryStore
	log   *logrus.Entry
}

// run lets the scheduler take its first pass, in which it decides and commits all that the store held when it
// started. It is told to stop before, which it heeds after that pass: so neither the 50 ms for which it gathers
// changes nor what it reads back of its own events is in the figure. The store announces the first task once all are decided.
func (t *swarmKitTrial) run(decided func()) error {
	_, cancel := t.store.WatchQueue().CallbackWatch(events.MatcherFunc(func(events.Event) bool {
		decided()
		return false
	}))
	defer cancel()
	s := scheduler.New(t.store)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.Stop()
	}()
	err := s.Run(log.WithLogger(context.Background(), t.log))
	<-stopped
	return err
}

func (t *swarmKitTrial) placed() ([]placement, error) {
	var tasks []*api.Task
	var err error
	t.store.View(func(tx store.ReadTx) { tasks, err = store.FindTasks(tx, store.ByTaskState(api.TaskStateAssigned)) })
	if err != nil {
		return nil, err
	}
	placed := make([]placement, len(tasks))
	for i, task := range tasks {
		if placed[i].App, err = strconv.Atoi(task.ServiceID); err != nil {
			return nil, err
		}
		if placed[i].Node, err = strconv.Atoi(task.NodeID); err != nil {
			return nil, err
		}
	}
	return placed, nil
}

func (t *swarmKitTrial) close() error { return t.store.Close() }
