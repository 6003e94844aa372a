package world

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/appmaster"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

const peopleMachine = "people"

// people are those who want something of the zone. They sit at a machine of their own.
type people struct {
	w       *World
	process *process
	// wanted is how many instances people want of each app when all is calm.
	wanted map[string]int32
	// removals counts how often people asked for the end of an app or of the contract, and were answered; ending are those that were not
	// answered, and may still be done.
	removals, ending map[string]int
	// run are the masters outside of the zone that people have started.
	run []*master
	// settled are the apps of which people have said that, or found that there is none.
	settled map[string]bool
}

// order is what people send: an input, or a look at an app.
type order struct {
	in   zone.Input
	look string
}

// String is what of it goes into the hash of a run.
func (o order) String() string { return fmt.Sprintf("%T %s", o.in, o.look) }

// copied is a copy of it, which shares nothing with it that the zone may keep.
func (o order) copied() order {
	if o.in == nil {
		return o
	}
	in := reflect.New(reflect.TypeOf(o.in)).Elem()
	in.Set(reflect.ValueOf(o.in))
	for i := range in.NumField() {
		field := in.Field(i)
		if m, ok := field.Interface().(proto.Message); ok && !field.IsNil() {
			field.Set(reflect.ValueOf(proto.Clone(m)))
		}
	}
	o.in = in.Interface().(zone.Input)
	return o
}

func newPeople(w *World) *people {
	return &people{w: w, process: w.newProcess(peopleMachine, "people"), wanted: map[string]int32{}, removals: map[string]int{}, ending: map[string]int{}, settled: map[string]bool{}}
}

// ask wants something once. What was answered counts.
func (p *people) ask(in zone.Input, done func(proto.Message, error)) *call {
	before := maps.Clone(p.removals)
	p.w.result.Done[fmt.Sprintf("%T", in)[len("zone."):]]++
	return p.process.call(managerAddress, 30*time.Second, message{method: "Order", value: order{in: in}}, func(answer message, err error) {
		p.w.trace("people asked for %T: %v", in, err)
		if err == nil {
			p.note(answer.body, before)
		}
		if done != nil {
			done(answer.body, err)
		}
	})
}

// note remembers what was acknowledged, unless its end was asked for meanwhile.
func (p *people) note(answer proto.Message, before map[string]int) {
	app, _ := answer.(*apiv1.App)
	if deployed, ok := answer.(*apiv1.DeployResponse); ok {
		app = deployed.GetApp()
	}
	name := app.GetName()
	if name != "" && app.GetState() != apiv1.App_REMOVING && p.ending[name] == 0 && p.removals[name] == before[name] {
		p.w.laws.apps[app.GetName()] = max(p.w.laws.apps[app.GetName()], app.GetGeneration())
	}
}

// insist asks until it is answered with success.
func (p *people) insist(in func() zone.Input, done func(proto.Message)) {
	p.ask(in(), func(answer proto.Message, err error) {
		if err != nil {
			p.process.after(3*time.Second, func() { p.insist(in, done) })
			return
		}
		done(answer)
	})
}

// begin divides the zone between queues.
func (p *people) begin() {
	p.insist(func() zone.Input {
		share := func(percent float64) *apiv1.Capacity { return &apiv1.Capacity{Percent: &percent} }
		return zone.SetQueues{Who: root, Request: &apiv1.SetQueuesRequest{Queues: []*apiv1.QueueSpec{
			{Name: "root"},
			{Name: "services", Parent: "root", Guaranteed: share(70)},
			{Name: "batch", Parent: "root", Guaranteed: share(30), Notice: durationpb.New(5 * time.Second)},
		}}}
	}, func(proto.Message) {})
}

// names are those that apps of DynamicDeploy have, and others those of other apps.
var (
	names  = []string{"alpha", "beta", "gamma", "delta", "epsilon"}
	others = []string{circle, outside}
)

func appOf(random *rand.Rand) zone.AppRequest {
	return zone.AppRequest{Who: root, App: pick(random, names)}
}

// commandOf is a command for an app's DynamicDeploy.
func commandOf(name string, what proto.Message) zone.Command {
	command, err := anypb.New(what)
	if err != nil {
		panic(err)
	}
	return zone.Command{AppRequest: zone.AppRequest{Who: root, App: name}, Command: command}
}

// deeds are what people do.
func deeds() []kind {
	ask := func(of func(*rand.Rand) zone.Input) func(*World, *rand.Rand) {
		return func(w *World, random *rand.Rand) { w.people.ask(of(random), nil) }
	}
	node := func(w *World, random *rand.Rand) string { return pick(random, w.hosts).name }
	return []kind{
		{"deploy", 8, ask(func(random *rand.Rand) zone.Input {
			return zone.Deploy{Who: root, Request: &apiv1.DeployRequest{Spec: spec(random, pick(random, names)), IfGeneration: -1}}
		})},
		{"scale", 5, ask(func(random *rand.Rand) zone.Input {
			return zone.Scale{Who: root, Request: &apiv1.ScaleAppRequest{Name: pick(random, names), Instances: int32(1 + random.IntN(6))}}
		})},
		{"restart", 2, ask(func(random *rand.Rand) zone.Input { return zone.RestartApp{AppRequest: appOf(random)} })},
		{"stop", 1, ask(func(random *rand.Rand) zone.Input { return zone.StopApp{AppRequest: appOf(random)} })},
		{"remove", 2, func(w *World, random *rand.Rand) { w.people.remove(pick(random, names)) }},
		{"rollback", 2, ask(func(random *rand.Rand) zone.Input { return zone.Rollback{AppRequest: appOf(random)} })},
		{"pause-rollout", 1, ask(func(random *rand.Rand) zone.Input { return commandOf(pick(random, names), &dynamicdeployv1.Pause{}) })},
		{"resume-rollout", 1, ask(func(random *rand.Rand) zone.Input { return commandOf(pick(random, names), &dynamicdeployv1.Resume{}) })},
		{"promote", 1, ask(func(random *rand.Rand) zone.Input { return commandOf(pick(random, names), &dynamicdeployv1.Promote{}) })},
		{"drain", 2, func(w *World, random *rand.Rand) {
			w.people.ask(zone.Drain{Who: root, Node: node(w, random), Reason: "new kernel"}, nil)
		}},
		{"undrain", 2, func(w *World, random *rand.Rand) { w.people.ask(zone.Undrain{Who: root, Node: node(w, random)}, nil) }},
		{"remove-node", 1, func(w *World, random *rand.Rand) {
			name := node(w, random)
			for _, n := range w.manager.core.Nodes() {
				if n.GetState() == apiv1.NodeState_LOST {
					name = n.GetName()
				}
			}
			w.people.ask(zone.RemoveNode{Who: root, Node: name}, nil)
		}},
		{"lend", 2, func(w *World, random *rand.Rand) { w.people.lend(random) }},
		{"lend-now", 2, ask(func(random *rand.Rand) zone.Input {
			return zone.LendNow{Who: root, Request: &apiv1.LendNowRequest{Name: "often", For: durationpb.New(time.Duration(2+random.IntN(8)) * time.Minute)}}
		})},
		{"stop-lending", 1, ask(func(*rand.Rand) zone.Input { return zone.StopLending{Who: root, Name: "often"} })},
		{"install-package", 2, ask(func(random *rand.Rand) zone.Input {
			return zone.InstallFramework{Who: root, Request: &apiv1.InstallFrameworkRequest{Package: ringVersion(random)}}
		})},
		{"remove-package", 1, ask(func(random *rand.Rand) zone.Input {
			return zone.RemoveFramework{Who: root, Name: pick(random, []string{ringPackage, ringPackage, specs.DynamicDeploy})}
		})},
		{"install-dynamicdeploy", 1, ask(func(*rand.Rand) zone.Input { return installDynamicDeploy() })},
		{"deploy-circle", 2, ask(func(random *rand.Rand) zone.Input {
			app := &apiv1.AppSpec{Name: circle, Framework: ringPackage, Queue: pick(random, []string{"services", "batch"})}
			return zone.Deploy{Who: root, Request: &apiv1.DeployRequest{Spec: complete(app), IfGeneration: -1}}
		})},
		{"run-outside", 2, func(w *World, random *rand.Rand) { w.people.runOutside(random) }},
		{"end-outside", 1, func(w *World, random *rand.Rand) { w.people.endOutside(random.IntN(2) == 0) }},
		{"stop-other", 1, ask(func(random *rand.Rand) zone.Input {
			return zone.StopApp{AppRequest: zone.AppRequest{Who: root, App: pick(random, others)}}
		})},
		{"restart-circle", 1, ask(func(*rand.Rand) zone.Input {
			return zone.RestartApp{AppRequest: zone.AppRequest{Who: root, App: circle}}
		})},
		{"remove-other", 1, func(w *World, random *rand.Rand) { w.people.remove(pick(random, others)) }},
		{"end-contract", 1, func(w *World, _ *rand.Rand) { w.people.endContract() }},
	}
}

func installDynamicDeploy() zone.Input {
	return zone.InstallFramework{Who: root, Request: &apiv1.InstallFrameworkRequest{BuiltIn: specs.DynamicDeploy}}
}

// ringVersion draws a version of the package of rings.
func ringVersion(random *rand.Rand) *apiv1.FrameworkPackage {
	p := &apiv1.FrameworkPackage{
		Name: ringPackage, Version: fmt.Sprint(random.IntN(100)),
		Master: &apiv1.MasterKind{Command: []string{ringPackage}, Resources: &corev1.Resources{CpuMillis: int64(50 * (1 + random.IntN(4)))}},
	}
	specs.CompletePackage(p)
	if err := specs.CheckPackage(p); err != nil {
		panic(err)
	}
	return p
}

// runOutside starts a program on the machine of people that is the master of an app. One that runs is replaced by it.
func (p *people) runOutside(random *rand.Rand) {
	app := &apiv1.AppSpec{Name: outside, Kind: apiv1.AppSpec_EXTERNAL, Queue: pick(random, []string{"services", "batch"})}
	p.ask(zone.StartMaster{Who: root, Spec: complete(app)}, func(answer proto.Message, err error) {
		if err != nil {
			return
		}
		started := answer.(*apiv1.StartMasterResponse)
		p.w.laws.attempts[started.GetAppId()] = max(p.w.laws.attempts[started.GetAppId()], started.GetAttempt())
		p.run = append(p.run, p.w.newMasterOn(peopleMachine, nil, appmaster.Config{
			AppID: started.GetAppId(), App: outside, Attempt: started.GetAttempt(), Token: started.GetToken(),
		}))
	})
}

// endOutside ends the programs that people have started: they say that their work is done, or are killed.
func (p *people) endOutside(done bool) {
	for _, m := range p.run {
		r, begun := m.mind.(*ring)
		switch {
		case m.process.dead:
		case done && begun:
			r.done = true
			m.decide()
		default:
			m.process.kill()
		}
	}
	p.run = slices.DeleteFunc(p.run, func(m *master) bool { return m.process.dead })
}

func (p *people) remove(name string) {
	delete(p.w.laws.apps, name) // whatever is answered, it may be gone
	p.end(name, zone.RemoveApp{AppRequest: zone.AppRequest{Who: root, App: name}})
}

// end asks for the end of something, which may come as long as any copy of the call may be done.
func (p *people) end(name string, in zone.Input) {
	p.ending[name]++
	p.ask(in, nil).closed = func() {
		p.ending[name] = max(0, p.ending[name]-1)
		p.removals[name]++
	}
}

func (p *people) lend(random *rand.Rand) {
	spec := &apiv1.ContractSpec{
		Name: "often", Lender: "services", Borrowers: []string{"batch"}, LendPercent: float64(20 + random.IntN(60)), FloorPercent: 20,
		Notice: durationpb.New(time.Duration(5+random.IntN(30)) * time.Second), Grace: durationpb.New(longestGrace + 5*time.Second),
	}
	if random.IntN(3) > 0 {
		spec.Window = &apiv1.LendingWindow{Cron: fmt.Sprintf("*/%d * * * *", 10+random.IntN(20)), Duration: durationpb.New(time.Duration(4+random.IntN(6)) * time.Minute)}
	}
	before := p.removals["often"]
	p.ask(zone.AddContracts{Who: root, Request: &apiv1.AddContractsRequest{Contracts: []*apiv1.ContractSpec{spec}}}, func(_ proto.Message, err error) {
		if err == nil && p.ending["often"] == 0 && p.removals["often"] == before {
			p.w.laws.contracts["often"] = true
		}
	})
}

func (p *people) endContract() {
	delete(p.w.laws.contracts, "often")
	p.end("often", zone.RemoveContract{Who: root, Name: "often"})
}

// spec draws what an app is to be.
func spec(random *rand.Rand, name string) *apiv1.AppSpec {
	app := &apiv1.AppSpec{Name: name, Queue: pick(random, []string{"services", "services", "batch"}), Priority: int32(random.IntN(3))}
	roles := []string{""}
	if random.IntN(4) == 0 {
		roles = []string{"front", "store"}
	}
	for _, role := range roles {
		app.Roles = append(app.Roles, roleSpec(random, role))
		if random.IntN(4) > 0 {
			host := strings.Trim(role+"."+name, ".") + ".test"
			app.Roles[len(app.Roles)-1].Expose = &apiv1.Expose{Http: &apiv1.Expose_Http{Host: host}}
		}
	}
	if len(roles) > 1 && random.IntN(2) == 0 {
		first := random.IntN(2)
		app.Roles[1-first].After = []string{roles[first]}
	}
	return complete(app)
}

// complete is a spec as the zone's service gives it to the zone.
func complete(app *apiv1.AppSpec) *apiv1.AppSpec {
	specs.Complete(app)
	if err := specs.Check(app); err != nil {
		panic(err)
	}
	return app
}

func roleSpec(random *rand.Rand, name string) *apiv1.RoleSpec {
	role := &apiv1.RoleSpec{
		Name: name, Image: "web:1", ImageDigest: "sha256:" + fmt.Sprintf("%064x", random.IntN(1000)), Instances: int32(1 + random.IntN(5)),
		Resources: &corev1.Resources{CpuMillis: int64(100 * (1 + random.IntN(8))), MemoryBytes: 64 << 20, DiskBytes: 64 << 20},
		Ports:     []*corev1.Port{{Name: "http", ContainerPort: 8080}},
		Env:       map[string]string{behaviour: sound, "BUILD": fmt.Sprint(random.IntN(1000))},
		Stop:      &apiv1.StopPolicy{Grace: durationpb.New(time.Duration(random.IntN(int(longestGrace/time.Second)+1)) * time.Second)},
		Update: &apiv1.UpdatePolicy{
			Strategy:       pick(random, []apiv1.UpdatePolicy_Strategy{apiv1.UpdatePolicy_ROLLING, apiv1.UpdatePolicy_ROLLING, apiv1.UpdatePolicy_CANARY, apiv1.UpdatePolicy_BLUE_GREEN}),
			MaxSurge:       int32(random.IntN(3)),
			MaxUnavailable: int32(random.IntN(2)),
			AutoRevert:     random.IntN(2) == 0,
			MinHealthy:     durationpb.New(pick(random, []time.Duration{0, time.Second, 10 * time.Second})),
		},
		Placement: &apiv1.Placement{},
	}
	if random.IntN(5) == 0 {
		role.Env[behaviour] = pick(random, []string{crashing, sick, unpullable, unstartable})
	}
	if random.IntN(3) > 0 {
		role.Health = &corev1.HealthCheck{Probe: &corev1.HealthCheck_Http_{Http: &corev1.HealthCheck_Http{Path: "/healthz"}}, StartPeriod: durationpb.New(20 * time.Second)}
	}
	if role.Update.Strategy == apiv1.UpdatePolicy_BLUE_GREEN {
		role.Update.Exclusive = random.IntN(3) == 0
	}
	if random.IntN(3) == 0 {
		role.Stop.Drain = durationpb.New(time.Duration(random.IntN(15)) * time.Second)
	}
	if random.IntN(6) == 0 {
		role.Placement.MaxPerNode = 2
	}
	return role
}

// settle has people want what fits, and nothing else in the way: every node is open, nothing is lent, nothing is held.
func (p *people) settle() {
	clear(p.wanted)
	clear(p.settled)
	clear(p.ending)
	// Nodes that were removed by hand come back by themselves.
	p.process.after(15*time.Second, func() {
		for _, h := range p.w.hosts {
			p.insist(func() zone.Input { return zone.Undrain{Who: root, Node: h.name} }, func(proto.Message) {})
		}
		p.endContract()
		p.insist(installDynamicDeploy, func(proto.Message) {})
		for _, name := range slices.Concat(names, others) {
			p.process.after(time.Second, func() { p.settleApp(name) })
		}
	})
}

// resume lets a rollout go on that is held.
func (p *people) resume(name string) {
	p.ask(commandOf(name, &dynamicdeployv1.Resume{}), func(_ proto.Message, err error) {
		if errdefs.IsUnavailable(err) || errdefs.IsAborted(err) {
			p.process.after(3*time.Second, func() { p.resume(name) })
		}
	})
}

// settleApp has an app that is there be sound and small. One that is being removed is let go.
func (p *people) settleApp(name string) {
	p.process.call(managerAddress, 30*time.Second, message{method: "Order", value: order{look: name}}, func(answer message, err error) {
		app, _ := answer.body.(*apiv1.App)
		switch {
		case err != nil && !errdefs.IsNotFound(err):
			p.process.after(3*time.Second, func() { p.settleApp(name) })
		case err != nil || app.GetState() == apiv1.App_REMOVING:
			p.settled[name] = true
		case !specs.HasRoles(app.GetSpec()):
			delete(p.w.laws.apps, name)
			p.ask(zone.RemoveApp{AppRequest: zone.AppRequest{Who: root, App: name}}, func(proto.Message, error) {
				p.process.after(3*time.Second, func() { p.settleApp(name) })
			})
		default:
			p.wanted[name] = 0
			p.insist(func() zone.Input {
				calm := proto.CloneOf(app.GetSpec())
				for _, role := range calm.GetRoles() {
					role.Instances = 2
					role.Resources.CpuMillis = 200
					role.Env[behaviour] = sound
					role.Placement.MaxPerNode = 0
					role.Update.Strategy, role.Update.Exclusive, role.Update.Once = apiv1.UpdatePolicy_ROLLING, false, nil
				}
				p.wanted[name] = int32(2 * len(calm.GetRoles()))
				return zone.Deploy{Who: root, Request: &apiv1.DeployRequest{Spec: calm, IfGeneration: -1}}
			}, func(proto.Message) {
				p.settled[name] = true
				p.resume(name)
			})
		}
	})
}
