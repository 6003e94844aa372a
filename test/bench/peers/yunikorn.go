package main

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/yunikorn-core/pkg/common/configs"
	"github.com/apache/yunikorn-core/pkg/entrypoint"
	yunikornlog "github.com/apache/yunikorn-core/pkg/log"
	"github.com/apache/yunikorn-scheduler-interface/lib/go/si"
	"go.uber.org/zap"
	"gopkg.in/yaml.v3"
)

// yuniKorn is the scheduler core of Apache YuniKorn, driven through its scheduler interface as by its Kubernetes shim.
// Its events, metrics and users are globals that StopAll does not put back: a second start in a process is not like the first.
type yuniKorn struct {
	// sorting is its policy for nodes: fair takes the least used, binpacking the most used.
	sorting string
}

func (y yuniKorn) name() string { return "YuniKorn " + y.sorting }

func (yuniKorn) apart() bool { return true }

func (yuniKorn) covers() string {
	return "takes in one ask a container, all in one request, chooses queue, app and user under their limits, places, keeps the books and tells the callback of " +
		"each grant; left out are its start, the intake of queues, nodes and apps, its log, its history of events, " +
		"its web pages and Kubernetes; each trial is a process of its own, which is stopped after " + cutOff.String()
}

const (
	manager = "peers"
	// cutOff is when YuniKorn is stopped at a shape. For each grant it goes over all asks of the app, the granted ones too;
	// so the asks that are left would be its slowest.
	cutOff = 10 * time.Second
)

// prepare starts YuniKorn, silent and without its web pages, and waits until it has taken in the queues, nodes and apps.
func (y yuniKorn) prepare(w workload) (trial, error) {
	yunikornlog.InitializeLogger(zap.NewNop(), &zap.Config{Level: zap.NewAtomicLevel()})
	t := &yuniKornTrial{
		services: entrypoint.StartAllServicesWithParams(false, false),
		accepted: make(chan error, w.nodes+w.apps),
		done:     make(chan struct{}),
	}
	config, err := yaml.Marshal(y.partition(w))
	if err != nil {
		return nil, err
	}
	_, err = t.services.RMProxy.RegisterResourceManager(&si.RegisterResourceManagerRequest{
		RmID: manager, PolicyGroup: "queues", Version: "1", Config: string(config),
		ExtraConfig: map[string]string{"log.level": "ERROR", "event.trackingEnabled": "false"},
	}, t)
	if err != nil {
		return nil, err
	}
	nodes := make([]*si.NodeInfo, w.nodes)
	for i, n := range w.nodeSizes {
		nodes[i] = &si.NodeInfo{NodeID: string(nodeID(i)), Action: si.NodeInfo_CREATE, SchedulableResource: n.yuniKorn()}
	}
	if err := t.services.RMProxy.UpdateNode(&si.NodeRequest{RmID: manager, Nodes: nodes}); err != nil {
		return nil, err
	}
	apps := make([]*si.AddApplicationRequest, w.apps)
	for i := range apps {
		apps[i] = &si.AddApplicationRequest{
			ApplicationID: appName(i), QueueName: fmt.Sprintf("root.%s.%s", side(i), queueID(i%queues)), Ugi: &si.UserGroupInformation{User: user(i)},
		}
	}
	if err := t.services.RMProxy.UpdateApplication(&si.ApplicationRequest{RmID: manager, New: apps}); err != nil {
		return nil, err
	}
	for range w.nodes + w.apps {
		if err := <-t.accepted; err != nil {
			return nil, err
		}
	}
	t.asks = make([]*si.Allocation, w.asks)
	for i := range t.asks {
		app := w.app(i)
		t.asks[i] = &si.Allocation{AllocationKey: "ask-" + strconv.Itoa(i), ApplicationID: appName(app), ResourcePerAlloc: w.appSizes[app].yuniKorn()}
	}
	return t, nil
}

// partition has the same tree of queues as ours. A limit of YuniKorn's is an amount, so the shares are reckoned of what all nodes have.
func (y yuniKorn) partition(w workload) configs.SchedulerConfig {
	share := func(percent int64) map[string]string {
		var all size
		for _, n := range w.nodeSizes {
			all.cpu, all.memory = all.cpu+n.cpu, all.memory+n.memory
		}
		return map[string]string{"vcore": fmt.Sprintf("%dm", all.cpu*percent/100), "memory": strconv.FormatInt(all.memory/100*percent, 10)}
	}
	sides := make([]configs.QueueConfig, 2)
	for i := range sides {
		sides[i] = configs.QueueConfig{Name: side(i), Resources: configs.Resources{Guaranteed: share(50)}}
	}
	for i := range queues {
		parent := &sides[i%len(sides)]
		parent.Queues = append(parent.Queues, configs.QueueConfig{
			Name: string(queueID(i)), Resources: configs.Resources{Guaranteed: share(10)},
			Limits: []configs.Limit{{Users: []string{"*"}, MaxResources: share(90)}},
		})
	}
	return configs.SchedulerConfig{Partitions: []configs.PartitionConfig{{
		Name: "default", NodeSortPolicy: configs.NodeSortingPolicy{Type: y.sorting},
		Queues: []configs.QueueConfig{{Name: "root", SubmitACL: "*", Queues: sides}},
	}}}
}

func (s size) yuniKorn() *si.Resource {
	return &si.Resource{Resources: map[string]*si.Quantity{"vcore": {Value: s.cpu}, "memory": {Value: s.memory}}}
}

// yuniKornTrial is what YuniKorn calls back.
type yuniKornTrial struct {
	services *entrypoint.ServiceContext
	asks     []*si.Allocation
	// accepted has an entry for each node and app that was taken in or refused.
	accepted chan error
	done     chan struct{}

	mu      sync.Mutex
	granted []*si.Allocation
	refused error

	// inTime is what was granted before run returned.
	inTime []*si.Allocation
}

// run hands over all asks at once, with the scheduler's own loop running: it takes asks in while it grants others, one
// after the other without a pause. At the cut-off the rest is left waiting.
func (t *yuniKornTrial) run(func()) error {
	if err := t.services.RMProxy.UpdateAllocation(&si.AllocationRequest{RmID: manager, Allocations: t.asks}); err != nil {
		return err
	}
	select {
	case <-t.done:
	case <-time.After(cutOff):
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inTime = t.granted
	return t.refused
}

func (t *yuniKornTrial) placed() ([]placement, error) {
	placed := make([]placement, len(t.inTime))
	for i, g := range t.inTime {
		var err error
		if placed[i].App, err = strconv.Atoi(strings.TrimPrefix(g.ApplicationID, "app-")); err != nil {
			return nil, err
		}
		if placed[i].Node, err = strconv.Atoi(strings.TrimPrefix(g.NodeID, "node-")); err != nil {
			return nil, err
		}
	}
	return placed, nil
}

func (t *yuniKornTrial) close() error {
	t.services.StopAll()
	return nil
}

func (t *yuniKornTrial) UpdateAllocation(response *si.AllocationResponse) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range response.RejectedAllocations {
		t.refused = fmt.Errorf("%s was refused: %s", r.AllocationKey, r.Reason)
	}
	t.granted = append(t.granted, response.New...)
	if len(t.granted) == len(t.asks) {
		close(t.done)
	}
	return nil
}

func (t *yuniKornTrial) UpdateApplication(response *si.ApplicationResponse) error {
	for range response.Accepted {
		t.accepted <- nil
	}
	for _, r := range response.Rejected {
		t.accepted <- fmt.Errorf("%s was refused: %s", r.ApplicationID, r.Reason)
	}
	return nil
}

func (t *yuniKornTrial) UpdateNode(response *si.NodeResponse) error {
	for range response.Accepted {
		t.accepted <- nil
	}
	for _, r := range response.Rejected {
		t.accepted <- fmt.Errorf("%s was refused: %s", r.NodeID, r.Reason)
	}
	return nil
}

// The rest of what it calls back is for a shim with rules of its own, of which there are none here.

func (t *yuniKornTrial) Predicates(*si.PredicatesArgs) error { return nil }

func (t *yuniKornTrial) PreemptionPredicates(*si.PreemptionPredicatesArgs) *si.PreemptionPredicatesResponse {
	return &si.PreemptionPredicatesResponse{}
}

func (t *yuniKornTrial) SendEvent([]*si.EventRecord) {}

func (t *yuniKornTrial) UpdateContainerSchedulingState(*si.UpdateContainerSchedulingStateRequest) {}
