package zone

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// Records is what a zone is made of when the ResourceManager starts.
type Records interface {
	// Identity is who the zone is and how often it was started.
	Identity() store.Identity
	// Load calls each for every record of a kind, in the order of their keys. The bytes are each's to keep.
	Load(kind store.Kind, each func(key string, value []byte) error) error
	// LastEvent is the newest sequence number of an event ever used; zero if none was.
	LastEvent() int64
}

// Start is what a zone begins with besides its records.
type Start struct {
	Settings Settings
	Now      time.Time
	Seed     Seed
	// QueueFile is what the file that declares the queue tree says; it is not looked at if there is none.
	QueueFile QueueFileText
}

// Load makes the zone out of what is stored. Nothing in it is known to be still true of the nodes: they stay closed
// until they register, and masters have as long as after a lost stream to come back.
func Load(stored Records, start Start) (*Core, *Ready, error) {
	now := start.Now
	z := &Core{
		config: &config{Settings: start.Settings, identity: stored.Identity(), started: now},
		turn:   &turn{lastEvent: stored.LastEvent()},
	}
	z.balancers = newBalancers(z.turn)
	z.units = &units{turn: z.turn, record: &storev1.Schema{}}
	z.scheduler = &scheduling{turn: z.turn, units: z.units}
	z.access = &access.Rules{Queues: z.scheduler, AllowInsecure: z.config.AllowInsecure}
	record := &storev1.Zone{}
	z.apps = &apps{
		turn: z.turn, config: z.config, access: z.access, table: lifecycle.Apps(), record: record,
		byID: map[id.App]*app{}, byName: map[string]*app{},
	}
	z.nodes = &nodes{
		turn: z.turn, config: z.config, access: z.access, scheduler: z.scheduler, units: z.units, table: lifecycle.Nodes(), apps: z.apps,
		byID: map[id.Node]*node{},
	}
	z.sessions = &sessions{turn: z.turn, config: z.config, nodes: z.nodes, byID: map[string]*node{}}
	z.damage = &damage{turn: z.turn, config: z.config, units: z.units, apps: z.apps, nodes: z.nodes}
	z.frameworks = &frameworks{turn: z.turn, apps: z.apps, nodes: z.nodes, sessions: z.sessions, damage: z.damage}
	z.nodes.sessions, z.nodes.frameworks, z.nodes.damage = z.sessions, z.frameworks, z.damage
	z.keys = &keys{turn: z.turn, config: z.config, damage: z.damage, nodes: z.nodes, sessions: z.sessions, record: record}
	z.leases = &leases{
		turn: z.turn, scheduler: z.scheduler, units: z.units, table: lifecycle.Containers(), keys: z.keys,
		apps: z.apps, nodes: z.nodes, sessions: z.sessions, frameworks: z.frameworks, damage: z.damage, byID: map[id.Container]*container{},
	}
	z.nodes.keys, z.nodes.leases, z.damage.leases = z.keys, z.leases, z.leases
	z.asks = &asks{turn: z.turn, scheduler: z.scheduler, apps: z.apps}
	z.masters = &masters{
		turn: z.turn, config: z.config, scheduler: z.scheduler, units: z.units, apps: z.apps, asks: z.asks, leases: z.leases,
		nodes: z.nodes, damage: z.damage, byStream: map[StreamID]*app{},
	}
	z.attempts = &attempts{
		turn: z.turn, config: z.config, scheduler: z.scheduler, table: lifecycle.Attempts(), apps: z.apps, asks: z.asks, masters: z.masters,
		leases: z.leases, nodes: z.nodes, sessions: z.sessions,
	}
	z.masters.attempts, z.asks.attempts = z.attempts, z.attempts
	z.leases.asks, z.leases.attempts, z.leases.masters = z.asks, z.attempts, z.masters
	z.nodes.attempts, z.nodes.masters = z.attempts, z.masters
	z.endpoints = &endpoints{
		turn: z.turn, apps: z.apps, masters: z.masters, leases: z.leases, nodes: z.nodes, balancers: z.balancers,
	}
	z.desired = &desired{
		turn: z.turn, access: z.access, scheduler: z.scheduler, apps: z.apps, asks: z.asks, attempts: z.attempts, endpoints: z.endpoints,
		frameworks: z.frameworks, leases: z.leases, masters: z.masters,
	}
	z.rollouts = &rollouts{
		turn: z.turn, access: z.access, scheduler: z.scheduler, units: z.units, apps: z.apps, damage: z.damage, desired: z.desired,
		endpoints: z.endpoints, leases: z.leases, masters: z.masters,
	}
	z.desired.rollouts, z.endpoints.rollouts = z.rollouts, z.rollouts
	z.masters.endpoints, z.masters.desired, z.masters.rollouts = z.endpoints, z.desired, z.rollouts
	z.views = &views{turn: z.turn, apps: z.apps, desired: z.desired, leases: z.leases, nodes: z.nodes, byStream: map[StreamID]*app{}}
	z.explainer = &explainer{
		turn: z.turn, scheduler: z.scheduler, apps: z.apps, balancers: z.balancers, endpoints: z.endpoints, leases: z.leases, nodes: z.nodes,
		rollouts: z.rollouts, views: z.views,
	}
	z.waits = &waits{turn: z.turn, apps: z.apps, explainer: z.explainer, masters: z.masters, nodes: z.nodes}
	z.apps.views, z.masters.waits, z.desired.explainer, z.rollouts.explainer = z.views, z.waits, z.explainer, z.explainer
	z.desired.views, z.rollouts.views = z.views, z.views
	z.shares = &shares{
		turn: z.turn, units: z.units, scheduler: z.scheduler, access: z.access, file: z.config.QueueFile, contracts: map[string]*contract{},
	}
	z.Begin(now, start.Seed)
	for _, step := range []func(Records) error{
		z.damage.load, z.units.load, z.loadZone, z.balancers.load, z.loadQueues, z.loadContracts, z.nodes.load, z.loadApps, z.leases.load, z.masters.loadInstances, z.asks.load,
	} {
		if err := step(stored); err != nil {
			return nil, nil, fmt.Errorf("read what is stored: %w", err)
		}
	}
	if err := z.shares.loadDeclaration(start.QueueFile, z.apps.residents()); err != nil {
		return nil, nil, err
	}
	for _, a := range z.apps.sorted() {
		z.attempts.heard(a)
		z.out.Named = append(z.out.Named, NamedApp{a.record.GetName(), a.id.String()})
		z.apps.touch(a)
	}
	z.settle()
	if z.apps.count() > 0 {
		z.waits.from = now.Add(inspectAfterStart)
	}
	z.waits.inspectDue()
	out, err := z.handOver()
	return z, out, err
}

// loadRecords reads every record of a kind.
func loadRecords[M any, P interface {
	*M
	proto.Message
}](stored Records, kind store.Kind, each func(P) error) error {
	return stored.Load(kind, func(key string, raw []byte) error {
		record := P(new(M))
		if err := proto.Unmarshal(raw, record); err != nil {
			return fmt.Errorf("the %s record %q: %w", kind, key, err)
		}
		return each(record)
	})
}

// loadQueues reads the queue tree.
func (z *Core) loadQueues(stored Records) error { return z.shares.loadQueues(stored) }

func (z *Core) loadContracts(stored Records) error {
	err := z.shares.loadContracts(stored)
	if !z.damage.standsStill() {
		z.shares.unarranged = nil
	}
	return z.damage.tolerate(err)
}

func (z *Core) loadApps(stored Records) error {
	err := loadRecords(stored, kindApp, func(record *storev1.App) error {
		appID, err := id.ParseApp(record.GetId())
		if err != nil {
			return err
		}
		a := newApp(appID, record)
		a.wait.recover(record.GetWaiting())
		z.apps.insert(a)
		return nil
	})
	if err != nil {
		return err
	}
	if err := z.rollouts.load(stored); err != nil {
		return err
	}
	for _, a := range z.apps.sorted() {
		if err := z.scheduler.Apply(a.recovered()); err != nil {
			a.queueLost = z.damage.standsStill()
			z.fault("an app has no place in the queue tree", "app", a.record.GetName(), "error", err)
		}
	}
	return loadRecords(stored, kindMemo, func(record *storev1.Memo) error {
		if a := z.apps.withID(record.GetAppId()); a != nil {
			a.master.memo = record.GetMemo()
		}
		return nil
	})
}

// recovered is the app as the scheduler is told of it after a restart.
func (a *app) recovered() scheduler.AddApp {
	spec := a.record.GetSpec()
	return scheduler.AddApp{App: a.id, Name: spec.GetName(), Queue: id.Queue(spec.GetQueue()), User: a.record.GetUser(), Priority: spec.GetPriority(), Recovered: true}
}

func (z *Core) loadZone(stored Records) error {
	err := loadRecords(stored, kindZone, func(record *storev1.Zone) error {
		proto.Merge(z.keys.record, record)
		return nil
	})
	if err != nil {
		return err
	}
	z.keys.load()
	z.scheduler.schedulerCore = scheduler.New(scheduler.Config{Epoch: z.config.identity.Epoch, Schema: z.units.schema, Master: masterResources()})
	return nil
}
