package zone

import (
	"github.com/mammoth-os/mammoth/internal/id"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/commands"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/framework"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/keys"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/shares"
)

// newCore is a zone without apps and nodes, with all parts wired.
func newCore(c config, lastEvent int64) *Core {
	t := &turn{lastEvent: lastEvent}
	z := &Core{turn: t, config: c}
	record := &storev1.Zone{}
	z.access = access.Rules{Queues: &z.scheduler, AllowInsecure: z.config.AllowInsecure}
	z.units = units{turn: t, record: &storev1.Schema{}}
	z.damage = damage{turn: t, views: &z.views, config: &z.config, units: &z.units, apps: &z.apps, nodes: &z.nodes, leases: &z.leases}
	z.scheduler = scheduling{turn: t, config: &z.config, units: &z.units}
	z.queues, z.lending = shares.New(shares.Zone{
		Turn: t, Units: &z.units, Scheduler: &z.scheduler, Access: &z.access, File: z.config.QueueFile,
	})
	z.endpoints, z.balancers = endpoints.New(t, &z.nodes)
	z.commands = commands.New(t)
	z.wireApps(record)
	z.wireNodes(record)
	z.views = views{
		late: newLate(),
		turn: t, config: &z.config, apps: &z.apps, packages: &z.packages, desired: &z.desired, nodes: &z.nodes, waits: &z.waits, damage: &z.damage,
		queues: z.queues, lending: z.lending,
	}
	z.waits = waits{turn: t, apps: &z.apps, explainer: &z.explainer, masters: &z.masters, nodes: &z.nodes}
	z.explainer = explainer{
		turn: t, scheduler: &z.scheduler, apps: &z.apps, packages: &z.packages, balancers: z.balancers, endpoints: z.endpoints, nodes: &z.nodes,
		views: &z.views,
	}
	return z
}

// wireApps and wireNodes share the record of the zone: apps change the number of the newest app, keys the keys.
func (z *Core) wireApps(record *storev1.Zone) {
	t := z.turn
	z.apps = apps{
		turn: t, config: &z.config, access: &z.access, scheduler: &z.scheduler, damage: &z.damage, views: &z.views, table: lifecycle.Apps(),
		record: record, byID: map[id.App]*app{}, byName: map[string]*app{},
	}
	z.packages = packages{
		turn: t, Packages: framework.New(t, z.config.identity.ClusterStart), access: &z.access, units: &z.units, apps: &z.apps, attempts: &z.attempts,
	}
	z.desired = desired{
		turn: t, access: &z.access, scheduler: &z.scheduler, apps: &z.apps, packages: &z.packages, asks: &z.asks, attempts: &z.attempts,
		companions: &z.companions, leases: &z.leases, masters: &z.masters, commands: z.commands, versions: &z.versions,
		explainer: &z.explainer, views: &z.views,
	}
	z.versions = versions{
		turn: t, access: &z.access, packages: &z.packages, apps: &z.apps, damage: &z.damage, desired: &z.desired, views: &z.views,
	}
	z.attempts = attempts{
		turn: t, config: &z.config, scheduler: &z.scheduler, table: lifecycle.Attempts(), apps: &z.apps, packages: &z.packages, asks: &z.asks, masters: &z.masters,
		leases: &z.leases, nodes: &z.nodes, sessions: &z.sessions,
	}
	z.asks = asks{turn: t, scheduler: &z.scheduler, apps: &z.apps, attempts: &z.attempts}
	z.masters = masters{
		turn: t, config: &z.config, apps: &z.apps, asks: &z.asks, attempts: &z.attempts, desired: &z.desired, versions: &z.versions, waits: &z.waits, leases: &z.leases, nodes: &z.nodes,
		damage: &z.damage, byStream: map[StreamID]*app{}, commands: z.commands, views: &z.views,
	}
}

func (z *Core) wireNodes(record *storev1.Zone) {
	t := z.turn
	z.keys = keys.New(t, record, z.config.KeyRotation)
	z.nodes = nodes{
		turn: t, config: &z.config, access: &z.access, scheduler: &z.scheduler, units: &z.units, table: lifecycle.Nodes(), apps: &z.apps,
		sessions: &z.sessions, companions: &z.companions, damage: &z.damage, leases: &z.leases, keys: z.keys, attempts: &z.attempts,
		masters: &z.masters, byID: map[id.Node]*node{},
	}
	z.sessions = sessions{turn: t, config: &z.config, nodes: &z.nodes, views: &z.views, byID: map[string]*node{}}
	z.companions = companions{turn: t, apps: &z.apps, nodes: &z.nodes, sessions: &z.sessions, damage: &z.damage, balancers: z.balancers}
	z.leases = leases{
		turn: t, scheduler: &z.scheduler, units: &z.units, table: lifecycle.Containers(), keys: z.keys, attempts: &z.attempts, asks: &z.asks,
		masters: &z.masters, apps: &z.apps, nodes: &z.nodes, sessions: &z.sessions, companions: &z.companions, damage: &z.damage,
		views: &z.views, byID: map[id.Container]*container{},
	}
}
