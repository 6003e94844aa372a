package world

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	"github.com/mammoth-os/mammoth/nodemanager/node"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
)

// Laws are what holds in every world, by name.
var Laws = []struct{ Name, Sentence string }{
	{"start", "A ResourceManager that was killed starts again on what it had stored."},
	{"fault", "The zone finds no fault of its own program."},
	{"stored", "Nobody is told of a container that is not stored."},
	{"lease", "A container is given to one app on one node, once."},
	{"once", "A container has one process in its life, on one node."},
	{"capacity", "What runs on a node under leases is not more than the node has."},
	{"gone", "A lease ends once its container was seen gone, and not before."},
	{"kept", "A node is never told to end a container that the zone holds."},
	{"endpoint", "An instance has one endpoint, and none leads to a container whose end was told."},
	{"drain", "A container is not given back, nor stopped for its master, while a balancer that is connected routes to it."},
	{"serves", "An app that serves goes on serving while it is changed or moved, if nothing fails and nobody needs its room."},
	{"attempt", "An attempt that was replaced is not answered any more."},
	{"twice", "A deployment that arrives twice is one version."},
	{"notice", "A container that was given notice is gone when its time is over."},
	{"hand-back", "What was lent is back when the window closes."},
	{"calm", "A master says nothing without a reason: at most 600 things a minute."},
	{"acknowledged", "What people were told is done is still done after any restart."},
	{"rest", "Once faults end, what people want is what runs, within twenty minutes."},
}

// laws watches what is sent, what runs and what is stored. Each law is looked at where it could be broken.
type laws struct {
	w *World
	// granted are the containers that a master or a node was told of, by id.
	granted map[string]*corev1.Lease
	// runs are the hosts on which a process of a container was begun, by id.
	runs map[string]*program
	// fenced are those on a node that was removed, of which nobody says that they are gone. over are those whose end was told.
	fenced, over map[string]bool
	// attempts are the newest that were launched, by app.
	attempts map[string]int32
	// notices are the deadlines that hold, by container.
	notices map[string]time.Time
	// lost is when a node was last lost.
	lost map[string]time.Time
	// serving counts the endpoints of apps; exposed is when an app was last one that need not go on serving, or had a program fail.
	serving map[string]int
	exposed map[string]time.Time
	// roles are those that an app had when its endpoints changed last, and the main one: a role that goes is not waited for by one that
	// comes, and the app's name moves with the deployment that makes another role the main one.
	roles map[string]string
	// queues are those of apps, and moved the instants at which an app left the queue of a lender: what it holds is not the lender's any more.
	queues map[string]string
	moved  []time.Time
	// said counts what masters have said in the present minute, by their streams.
	said map[zone.StreamID]int
	// minute is when the present minute began.
	minute time.Time
	// made are the versions that deployments have made, by the call that they came with.
	made map[*call]appVersion
	// apps and contracts are what people were told is done.
	apps      map[string]int64
	contracts map[string]bool
}

func newLaws(w *World) *laws {
	return &laws{
		w: w, granted: map[string]*corev1.Lease{}, runs: map[string]*program{}, fenced: map[string]bool{}, over: map[string]bool{},
		attempts: map[string]int32{}, notices: map[string]time.Time{}, lost: map[string]time.Time{}, serving: map[string]int{}, exposed: map[string]time.Time{}, roles: map[string]string{},
		said: map[zone.StreamID]int{}, queues: map[string]string{}, made: map[*call]appVersion{}, apps: map[string]int64{}, contracts: map[string]bool{},
	}
}

// told is about a lease that somebody outside the ResourceManager hears of.
func (l *laws) told(lease *corev1.Lease) {
	name := lease.GetContainerId()
	if !l.w.disk.has("container", name) {
		l.w.breach("stored", "%s on %s is told to others, and is not stored", name, lease.GetNodeId())
	}
	before := l.granted[name]
	if before != nil && (before.GetNodeId() != lease.GetNodeId() || before.GetAppId() != lease.GetAppId() || before.GetAskId() != lease.GetAskId()) {
		l.w.breach("lease", "%s was given to %s of %s on %s, and then to %s of %s on %s",
			name, before.GetAskId(), before.GetAppName(), before.GetNodeId(), lease.GetAskId(), lease.GetAppName(), lease.GetNodeId())
	}
	l.granted[name] = lease
}

// answered is about an answer that a master is sent.
func (l *laws) answered(m *manager, s *masterSession, answer *masterv1.AllocateResponse) {
	name, _, _ := strings.Cut(s.bearer, ".")
	if attempt, err := id.ParseAttempt(name); err == nil && attempt.N < l.attempts[attempt.App.String()] && !answer.GetSuperseded() {
		l.w.breach("attempt", "%s is answered, and attempt %d was launched since", name, l.attempts[attempt.App.String()])
	}
	for _, allocation := range answer.GetAllocated() {
		l.told(allocation.GetLease())
	}
	for _, notice := range answer.GetPreemptions() {
		container := notice.GetContainerId()
		if notice.GetWithdrawn() {
			delete(l.notices, container)
			continue
		}
		deadline := notice.GetDeadline().AsTime()
		if l.notices[container].Equal(deadline) {
			continue
		}
		l.notices[container] = deadline
		l.exposed[l.granted[container].GetAppName()] = l.w.now
		l.w.at(deadline.Add(longestGrace+15*time.Second), func() { l.noticed(container, deadline) })
	}
}

// longestGrace is what people of a world give a container to end.
const longestGrace = 10 * time.Second

// noticed looks whether a container is gone whose notice has run out.
func (l *laws) noticed(container string, deadline time.Time) {
	p := l.running(container)
	if p == nil || !l.notices[container].Equal(deadline) || !l.w.quiet(deadline.Add(-2*time.Minute)) {
		return
	}
	l.w.breach("notice", "%s was to be gone by %s, and still runs on %s", container, deadline.Format(time.TimeOnly), p.engine.host.name)
}

// running is the process of a container; nil if none is there.
func (l *laws) running(name string) *program {
	key, err := id.ParseContainer(name)
	if err != nil {
		return nil
	}
	for _, h := range l.w.hosts {
		if p := h.engine.programs[key]; p != nil && p.running {
			return p
		}
	}
	return nil
}

// ran is about a process that was begun.
func (l *laws) ran(p *program) {
	if !p.running {
		return
	}
	name := p.key.String()
	if before := l.runs[name]; before != nil && before != p {
		l.w.breach("once", "%s runs on %s, and ran on %s before", name, p.engine.host.name, before.engine.host.name)
	}
	l.runs[name] = p
	var cpu, memory int64
	for _, other := range p.engine.programs {
		if other.running && !l.fenced[other.key.String()] {
			cpu += other.lease.GetResources().GetCpuMillis()
			memory += other.lease.GetResources().GetMemoryBytes()
		}
	}
	if has := p.engine.host.capacity(); cpu > has.GetCpuMillis() || memory > has.GetMemoryBytes() {
		l.w.breach("capacity", "%s runs %dm of %dm cpu and %d of %d bytes of memory after %s was started",
			p.engine.host.name, cpu, has.GetCpuMillis(), memory, has.GetMemoryBytes(), name)
	}
}

// event is about an event that people are told.
func (l *laws) event(event *apiv1.Event) {
	if event.GetKind() == "app" {
		l.noteQueue(event.GetApp())
	}
	name := event.GetContainer()
	switch {
	case event.GetKind() == "node" && strings.Contains(event.GetMessage(), "is removed"):
		for container, lease := range l.granted {
			if lease.GetNodeId() == event.GetNode() {
				l.fenced[container] = true
			}
		}
	case event.GetKind() == "node" && event.GetTo() == "LOST":
		l.lost[event.GetNode()] = l.w.now
	case event.GetKind() == "container" && strings.Contains(event.GetMessage(), "may stay"):
		delete(l.notices, name) // a master that is being replaced is not told of it
	case event.GetKind() == "container" && event.GetTo() == "DONE":
		if p := l.running(name); p != nil && !l.fenced[name] {
			l.w.breach("gone", "the zone says that %s is gone (%s), and it still runs on %s", name, event.GetMessage(), p.engine.host.name)
		}
		l.over[name] = true
		delete(l.notices, name)
	}
}

// published is about what a turn tells nodes and the registry.
func (l *laws) published(m *manager, out *zone.Ready) {
	for _, send := range out.Commands {
		for _, command := range send.Commands {
			claims := &corev1.TokenClaims{}
			if launch := command.GetLaunch(); launch != nil && proto.Unmarshal(launch.GetToken().GetClaims(), claims) == nil {
				lease := claims.GetLease()
				l.told(lease)
				l.attempts[lease.GetAppId()] = max(l.attempts[lease.GetAppId()], lease.GetAttempt())
			}
		}
	}
	if len(out.Services) == 0 {
		return
	}
	for _, change := range out.Services {
		l.goesOn(m, change)
		seen := map[string]bool{}
		for _, e := range m.registry.endpoints(change.Service) {
			switch {
			case seen[e.GetId()] || seen[e.GetContainerId()]:
				l.w.breach("endpoint", "%s has two endpoints of %s", change.Service, e.GetId())
			case l.over[e.GetContainerId()]:
				l.w.breach("endpoint", "%s leads to %s of %s, whose end was told", change.Service, e.GetContainerId(), e.GetId())
			}
			seen[e.GetId()], seen[e.GetContainerId()] = true, true
		}
	}
}

// goesOn looks whether an app that has served still does.
func (l *laws) goesOn(m *manager, change endpoints.ServiceChange) {
	name, before := change.Service, l.serving[change.Service]
	l.serving[name] = len(change.Endpoints)
	app, err := m.core.App(name)
	roles := ""
	for _, role := range app.GetSpec().GetRoles() {
		roles += role.GetName() + " "
	}
	roles += "main: " + specs.MainRole(app.GetSpec()).GetName()
	if err != nil || !goesOn(app) || roles != l.roles[name] {
		l.exposed[name], l.roles[name] = l.w.now, roles
		return
	}
	since := l.w.now.Add(-3 * time.Minute)
	if before > 0 && len(change.Endpoints) == 0 && l.exposed[name].Before(since) && l.w.quiet(since) {
		l.w.breach("serves", "%s had %d endpoints and has none", name, before)
	}
}

// failed notes that a program of an app has ended by itself.
func (l *laws) failed(p *program) { l.exposed[p.lease.GetAppName()] = l.w.now }

// goesOn reports whether an app is one that has to go on serving through changes, as far as its spec and its state go.
func goesOn(app *apiv1.App) bool {
	return app.GetState() == apiv1.App_RUNNING && specs.HasRoles(app.GetSpec()) && !slices.ContainsFunc(app.GetSpec().GetRoles(), func(role *apiv1.RoleSpec) bool {
		update := role.GetUpdate()
		return role.GetHealth() == nil || update.GetMaxUnavailable() > 0 || update.GetExclusive()
	})
}

// input is about what the ResourceManager is told, just before it takes it.
func (l *laws) input(m *manager, in zone.Input) {
	request, ok := in.(zone.Allocate)
	if !ok || m.masters[request.Stream] == nil {
		return
	}
	l.count(request.Stream)
	for _, release := range request.Request.GetRelease() {
		container := release.GetContainerId()
		if p := l.running(container); p != nil && !p.stopping {
			l.drained(p, "is given back")
		}
	}
}

// mostSaid is how much a master may say in a minute. One that answers every answer says thousands of things.
const mostSaid = 600

// count counts what a master says.
func (l *laws) count(stream zone.StreamID) {
	if l.w.now.Sub(l.minute) >= time.Minute {
		l.minute = l.w.now
		clear(l.said)
	}
	if l.said[stream]++; l.said[stream] > mostSaid {
		l.w.breach("calm", "a master has said more than %d things in less than a minute", mostSaid)
	}
}

// appVersion is a version of an app; zero is that of none.
type appVersion struct {
	app     string
	version int32
}

// version is that of the app which an input deploys.
func (l *laws) version(m *manager, in zone.Input) appVersion {
	deploy, ok := in.(zone.Deploy)
	if !ok {
		return appVersion{}
	}
	app, err := m.core.App(deploy.Request.GetSpec().GetName())
	if err != nil {
		return appVersion{}
	}
	return appVersion{app.GetId(), app.GetVersion()}
}

// stepped looks whether a deployment that arrives twice, with nothing between that changed its app, is another version.
func (l *laws) stepped(m *manager, t task, in zone.Input, before appVersion, err error) {
	if _, ok := in.(zone.Deploy); !ok || err != nil {
		return
	}
	now := l.version(m, in)
	if !t.again {
		l.made[t.call] = now
		return
	}
	if first, ok := l.made[t.call]; ok && first == before && now != before {
		l.w.breach("twice", "a deployment made version %d of %s, and arrived again and made version %d", before.version, in.(zone.Deploy).Request.GetSpec().GetName(), now.version)
	}
	delete(l.made, t.call)
}

// noteQueue notes the queue of an app.
func (l *laws) noteQueue(name string) {
	app, err := l.w.manager.core.App(name)
	if err != nil {
		delete(l.queues, name)
		return
	}
	queue := app.GetSpec().GetQueue()
	if before := l.queues[name]; before == "services" && before != queue {
		l.moved = append(l.moved, l.w.now)
	}
	l.queues[name] = queue
}

// drained looks whether balancers still route to what is taken away.
func (l *laws) drained(p *program, how string) {
	if !l.w.quiet(l.w.now.Add(-3*time.Minute)) || l.lost[p.engine.host.name].After(p.startedAt) {
		return
	}
	for _, b := range l.w.balancers {
		if b.side != nil && !b.side.over && b.routesTo(p.key.String()) {
			l.w.breach("drain", "%s %s, and %s routes to it", p, how, b.name)
		}
	}
}

// starts and stops are about what a node has its engine do.
func (l *laws) starts(m *nodeManager, h *node.Entry) {
	if lease := h.Lease; lease.GetNodeId() != "" && lease.GetNodeId() != m.host.name {
		l.w.breach("lease", "%s starts %s, which was given to %s", m.host.name, lease.GetContainerId(), lease.GetNodeId())
	}
}

func (l *laws) stops(m *nodeManager, h *node.Entry) {
	p := m.host.engine.programs[h.Core.ID]
	if p == nil || p.stopping {
		return
	}
	p.stopping = true
	if h.Core.StopRequest != nil && h.Core.StopRequest.Reason == container.StopCommanded && !l.fenced[p.key.String()] {
		l.drained(p, "is stopped")
	}
}

// reaped is about containers that a node is told to end because they have no lease.
func (l *laws) reaped(h *host, containers []string) {
	for _, container := range containers {
		raw, ok := l.w.disk.records["container"][container]
		record := &storev1.Container{}
		if ok && proto.Unmarshal(raw, record) == nil && record.GetStatus().GetState() != corev1.ContainerStatus_DONE {
			l.w.breach("kept", "%s is told to end %s, which the zone holds", h.name, container)
		}
	}
}

// started looks whether a ResourceManager that was started knows what people were told.
func (l *laws) started(m *manager) {
	for _, name := range sortedKeys(l.apps) {
		app, err := m.core.App(name)
		if err != nil || app.GetGeneration() < l.apps[name] {
			l.w.breach("acknowledged", "people were told that %s is at generation %d; after a restart it is at %d (%v)", name, l.apps[name], app.GetGeneration(), err)
		}
	}
	for _, name := range sortedKeys(l.contracts) {
		if _, err := m.core.Contract(name); err != nil {
			l.w.breach("acknowledged", "people were told that the contract %s is in force, and after a restart it is not", name)
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
