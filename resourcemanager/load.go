package resourcemanager

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/eventlog"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// load makes the zone out of what is stored. Nothing in it is known to be still true of the nodes: they stay closed
// until they register, and masters have as long as after a lost stream to come back.
func load(config *Config, memory store.Store, post func(input), now time.Time) (*zone, error) {
	z := &zone{
		config:   config,
		log:      config.Logger,
		post:     post,
		identity: memory.Identity(),
		started:  now,
		tables: tables{
			apps: lifecycle.Apps(), attempts: lifecycle.Attempts(), containers: lifecycle.Containers(), nodes: lifecycle.Nodes(),
		},
		registry:      config.Registry(memory.Identity().Epoch),
		record:        &storev1.Zone{},
		apps:          map[id.App]*app{},
		names:         map[string]*app{},
		nodes:         map[id.Node]*node{},
		containers:    map[id.Container]*container{},
		registered:    map[string]*node{},
		contracts:     map[string]*contract{},
		past:          eventlog.New(int(config.EventRetention)),
		lostBalancers: map[string]time.Time{},
		refused:       map[string]map[string]string{},
		lastEvent:     memory.LastEvent(),
	}
	z.registry.Hold() // until what is stored is published
	z.begin(now)
	for _, step := range []func(store.Store) error{
		z.loadLosses, z.loadEvents, z.loadZone, z.loadQueues, z.loadContracts, z.loadNodes, z.loadApps, z.loadContainers, z.loadInstances, z.loadAsks,
	} {
		if err := step(memory); err != nil {
			return nil, fmt.Errorf("read what is stored: %w", err)
		}
	}
	if err := z.loadDeclaration(); err != nil {
		return nil, err
	}
	for _, a := range z.apps {
		a.silentSince = now
		z.registry.KnowApp(a.record.GetName(), a.id.String())
		z.touch(a)
	}
	z.settle()
	if len(z.apps) > 0 {
		z.lookout.from = now.Add(comeBackFirst)
	}
	z.lookAtWaiting()
	z.project()
	batch, err := z.pack()
	if err != nil {
		return nil, err
	}
	if !batch.Empty() {
		err = memory.Commit(batch)
	}
	switch {
	case errdefs.IsResourceExhausted(err):
		z.unstored = batch
	case err != nil:
		return nil, err
	default:
		z.publish()
	}
	return z, nil
}

// loadRecords reads every record of a kind.
func loadRecords[M any, P interface {
	*M
	proto.Message
}](memory store.Store, kind store.Kind, each func(P) error) error {
	return memory.Load(kind, func(key string, raw []byte) error {
		record := P(new(M))
		if err := proto.Unmarshal(raw, record); err != nil {
			return fmt.Errorf("the %s record %q: %w", kind, key, err)
		}
		return each(record)
	})
}

func (z *zone) loadEvents(memory store.Store) error {
	var bad error
	err := memory.Events(0, func(sequence int64, raw []byte) bool {
		event := &apiv1.Event{}
		if bad = proto.Unmarshal(raw, event); bad != nil {
			bad = fmt.Errorf("the event %d: %w", sequence, bad)
			return false
		}
		z.past.Add(event)
		return true
	})
	return errors.Join(err, bad)
}

func (z *zone) loadZone(memory store.Store) error {
	err := loadRecords(memory, kindZone, func(record *storev1.Zone) error {
		z.record = record
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range z.record.GetExtended() {
		z.schema, _, _ = z.schema.With(name)
	}
	z.readKeys()
	if len(z.keys) == 0 {
		z.newKey(1)
	}
	z.openRegistry()
	z.core = scheduler.New(scheduler.Config{Epoch: z.identity.Epoch, Schema: z.schema, Master: masterResources()})
	return nil
}

func (z *zone) loadQueues(memory store.Store) error {
	return loadRecords(memory, kindQueues, func(record *storev1.Queues) error {
		specs, err := z.readQueues(record.GetQueues())
		if err != nil {
			return err
		}
		z.tree = record
		return z.core.Apply(scheduler.SetQueues{Queues: specs})
	})
}

func (z *zone) loadContracts(memory store.Store) error {
	contracts := map[string]*contract{}
	err := loadRecords(memory, kindContract, func(record *storev1.Contract) error {
		contracts[record.GetSpec().GetName()] = &contract{record: record, before: record.GetLedger(), state: apiv1.Contract_RESTING}
		return nil
	})
	if err != nil || len(contracts) == 0 {
		return err
	}
	if err = z.arrange(contracts); err != nil && z.standsStill() {
		z.unarranged = contracts
	}
	return z.tolerate(err)
}

func (z *zone) loadNodes(memory store.Store) error {
	return loadRecords(memory, kindNode, func(record *storev1.Node) error {
		n := &node{id: id.Node(record.GetId()), record: record, containers: map[id.Container]*container{}, lastReport: z.now}
		z.nodes[n.id] = n
		z.showNode(n)
		return nil
	})
}

func (z *zone) loadApps(memory store.Store) error {
	err := loadRecords(memory, kindApp, func(record *storev1.App) error {
		appID, err := id.ParseApp(record.GetId())
		if err != nil {
			return err
		}
		a := newApp(appID, record)
		a.wait.recover(record.GetWaiting())
		z.apps[appID], z.names[record.GetName()] = a, a
		return nil
	})
	if err != nil {
		return err
	}
	if err := z.loadVersions(memory); err != nil {
		return err
	}
	for _, a := range z.sortedApps() {
		if err := z.core.Apply(a.recovered()); err != nil {
			a.homeless = z.standsStill()
			z.log.Error("an app has no place in the queue tree", "app", a.record.GetName(), "error", err)
		}
	}
	return loadRecords(memory, kindMemo, func(record *storev1.Memo) error {
		if a := z.appOf(record.GetAppId()); a != nil {
			a.memo = record.GetMemo()
		}
		return nil
	})
}

// loadVersions gives every app its versions, which come in the order of their numbers, and the spec of the last one.
func (z *zone) loadVersions(memory store.Store) error {
	err := loadRecords(memory, kindVersion, func(record *storev1.Version) error {
		if a := z.appOf(record.GetAppId()); a != nil {
			record.Version.Current = record.GetVersion().GetVersion() == a.record.GetVersion()
			a.record.Versions = append(a.record.Versions, record.GetVersion())
			a.record.Spec = record.GetVersion().GetSpec()
		}
		return nil
	})
	for _, a := range z.sortedApps() {
		versions := a.record.GetVersions()
		if len(versions) > 0 && versions[len(versions)-1].GetCurrent() {
			continue
		}
		lost := fmt.Errorf("version %d of app %s is not there", a.record.GetVersion(), a.record.GetName())
		if err = errors.Join(err, z.tolerate(lost)); err != nil {
			return err
		}
		z.goBack(a)
	}
	return err
}

// recovered is the app as the scheduler is told of it after a restart.
func (a *app) recovered() scheduler.AddApp {
	spec := a.record.GetSpec()
	return scheduler.AddApp{App: a.id, Name: spec.GetName(), Queue: id.Queue(spec.GetQueue()), User: a.record.GetUser(), Priority: spec.GetPriority(), Recovered: true}
}

func (z *zone) appOf(text string) *app {
	appID, err := id.ParseApp(text)
	if err != nil {
		return nil
	}
	return z.apps[appID]
}

func (z *zone) loadContainers(memory store.Store) error {
	err := loadRecords(memory, kindContainer, func(record *storev1.Container) error {
		cid, err := id.ParseContainer(record.GetLease().GetContainerId())
		if err != nil {
			return err
		}
		a := z.apps[cid.App]
		if a == nil {
			z.forget(kindContainer, cid.String())
			return z.tolerate(fmt.Errorf("container %s belongs to no app", cid))
		}
		c := &container{id: cid, app: a, node: id.Node(record.GetLease().GetNodeId()), record: record}
		z.index(c)
		if c.held() && !a.homeless {
			z.apply(z.holdInput(c))
		}
		return nil
	})
	for _, a := range z.apps {
		slices.SortStableFunc(a.ended, func(x, y *container) int { return x.record.GetDoneAt().AsTime().Compare(y.record.GetDoneAt().AsTime()) })
	}
	return err
}

func (z *zone) loadInstances(memory store.Store) error {
	return loadRecords(memory, kindInstance, func(record *storev1.Instance) error {
		if a := z.appOf(record.GetAppId()); a != nil {
			a.instances[record.GetReport().GetId()] = record
		}
		return nil
	})
}

// loadAsks also asks again for the masters that wait for a container.
func (z *zone) loadAsks(memory store.Store) error {
	err := loadRecords(memory, kindAsk, func(record *storev1.Ask) error {
		if a := z.appOf(record.GetAppId()); a != nil {
			a.asks[record.GetAsk().GetId()] = record
			a.lastAsk = max(a.lastAsk, record.GetPosition())
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, a := range z.sortedApps() {
		if !a.homeless {
			z.askAgain(a)
		}
	}
	return nil
}

// askAgain tells the scheduler what an app asks for.
func (z *zone) askAgain(a *app) {
	z.applyAsks(a)
	if a.attempt() == lifecycle.AttemptScheduled {
		z.askForMaster(a, 1)
	}
}
