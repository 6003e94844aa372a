package term

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// ringPackage is the package of a third party.
func ringPackage() *apiv1.FrameworkPackage {
	return &apiv1.FrameworkPackage{
		Name: "ring", Version: "1",
		Master: &apiv1.MasterKind{
			Command: []string{"ring"}, Args: []string{"-v"}, Env: map[string]string{"LEVEL": "debug", "MAMMOTH_APP": "other"},
			Resources: &corev1.Resources{CpuMillis: 200, MemoryBytes: 128 << 20, DiskBytes: 16 << 20},
		},
	}
}

func ringSpec(workers float64) *apiv1.AppSpec {
	return &apiv1.AppSpec{Name: "ring", Queue: "default", Framework: "ring", Options: &structpb.Struct{Fields: map[string]*structpb.Value{
		"workers": structpb.NewNumberValue(workers),
	}}}
}

// install installs a package that was checked before.
func (z *testZone) install(p *apiv1.FrameworkPackage) {
	z.t.Helper()
	if _, err := z.rm.InstallFramework(as("root"), &apiv1.InstallFrameworkRequest{Package: p}); err != nil {
		z.t.Fatal(err)
	}
}

// deployRing deploys an app of the package.
func (z *testZone) deployRing(workers float64) *apiv1.App {
	z.t.Helper()
	response, err := z.rm.Deploy(as("root"), &apiv1.DeployRequest{Spec: ringSpec(workers), IfGeneration: -1})
	if err != nil {
		z.t.Fatal(err)
	}
	z.pass(time.Second)
	return response.GetApp()
}

// packages are the names of those that are installed.
func (z *testZone) packages() []string {
	z.t.Helper()
	list, err := z.rm.Frameworks(context.Background())
	if err != nil {
		z.t.Fatal(err)
	}
	var names []string
	for _, f := range list.GetFrameworks() {
		names = append(names, f.GetPackage().GetName())
	}
	return names
}

// sentence requires an error of a class and gives its sentence.
func sentence(t *testing.T, err error, class func(error) bool) string {
	t.Helper()
	if !class(err) {
		t.Errorf("got %v, which is of another class", err)
		return ""
	}
	return wire.Sentence(err)
}

func TestAPackageBringsAKindOfMaster(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		const missing = `the framework ring is not installed in this zone; "mammoth framework install FILE" installs it`
		_, err := z.rm.Deploy(as("root"), &apiv1.DeployRequest{Spec: ringSpec(3), IfGeneration: -1})
		if got := sentence(t, err, errdefs.IsFailedPrecondition); got != missing {
			t.Errorf("it is refused with %q", got)
		}
		z.install(ringPackage())
		z.deployRing(3)

		// The node launches what the package says, with the resources of the package.
		launch := n.lastLaunch()
		spec, env := launch.GetSpec(), launch.GetSpec().GetEnv()
		if spec.GetRuntime() != corev1.ContainerSpec_PROCESS || !slices.Equal(append(spec.GetCommand(), spec.GetArgs()...), []string{"ring", "-v"}) ||
			env["LEVEL"] != "debug" || env["MAMMOTH_APP"] != "ring" || env["MAMMOTH_TOKEN"] == "" {
			t.Errorf("the node launches %v", spec)
		}
		m := n.launchMaster()
		if used := z.node("node-1").GetUsed(); used.GetCpuMillis() != 200 || used.GetMemoryBytes() != 128<<20 {
			t.Errorf("its master holds %v", used)
		}

		// Its master is given the options, and what it starts may be a program of the node.
		if got := m.register.GetDesired().GetSpec().GetOptions().GetFields()["workers"].GetNumberValue(); got != 3 {
			t.Errorf("its master reads %v workers", got)
		}
		granted := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask1("ring-1")}, ObservedGeneration: 1}))
		if len(granted) != 1 || !granted[0].GetLease().GetExternal() {
			t.Fatalf("granted is %v", granted)
		}

		// Other options are another version, of the same attempt.
		z.deployRing(5)
		answers := m.heard()
		desired := answers[len(answers)-1].GetDesired()
		if desired.GetVersion() != 2 || desired.GetSpec().GetOptions().GetFields()["workers"].GetNumberValue() != 5 {
			t.Errorf("its master is told %v", desired)
		}
		if app := z.app("ring"); app.GetMaster().GetAttempt() != 1 || app.GetEnds() || app.GetWanted() != 0 || app.GetStatus().GetState() != apiv1.MasterStatus_NONE {
			t.Errorf("it is shown as %v", app)
		}

		// A master that dies is started again, as the package says by then.
		newer := ringPackage()
		newer.Master.Command = []string{"ring2"}
		z.install(newer)
		n.done(m.container, &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 1})
		z.pass(time.Second)
		if command := n.lastLaunch().GetSpec().GetCommand(); !slices.Equal(command, []string{"ring2"}) {
			t.Errorf("the second attempt is launched as %v", command)
		}
		second := n.launchMaster()
		if second.attempt != 2 || len(second.register.GetContainers()) != 1 {
			t.Errorf("attempt %d is handed %v", second.attempt, second.register.GetContainers())
		}

		// The package stays while there is an app of it, also over a restart.
		z.restart()
		n.register()
		_, err = z.rm.RemoveFramework(as("root"), "ring")
		if got := sentence(t, err, errdefs.IsFailedPrecondition); got != "the framework package ring is in use by ring; remove it first" {
			t.Errorf("its removal is refused with %q", got)
		}
		dynamic := webSpec(1)
		dynamic.Name = "ring"
		_, err = z.rm.Deploy(as("root"), &apiv1.DeployRequest{Spec: dynamic, IfGeneration: -1})
		if got := sentence(t, err, errdefs.IsFailedPrecondition); got != "ring is deployed with the framework ring, and an app keeps its framework; remove it first, or choose another name" {
			t.Errorf("another framework is refused with %q", got)
		}
		if _, err := z.rm.Stop(as("root"), "ring"); err != nil {
			t.Fatal(err)
		}
		z.pass(10 * time.Minute)
		for _, name := range slices.Sorted(maps.Keys(n.containers)) {
			n.done(name, &corev1.Exit{Reason: corev1.Exit_STOPPED})
		}
		z.pass(time.Second)
		if app := z.app("ring"); app.GetState() != apiv1.App_STOPPED || app.GetOutcome() != apiv1.App_OUTCOME_NONE {
			t.Errorf("work without an end is %v, %v", app.GetState(), app.GetOutcome())
		}
		if _, err := z.rm.Remove(as("root"), "ring"); err != nil {
			t.Fatal(err)
		}
		z.pass(time.Second)
		if _, err := z.rm.RemoveFramework(as("root"), "ring"); err != nil {
			t.Error(err)
		}
		if got := z.packages(); !slices.Equal(got, []string{"dynamicdeploy"}) {
			t.Errorf("there are the packages %v", got)
		}
		for _, kind := range []string{`user "root" installed the framework package ring 1`, `user "root" removed the framework package ring 1`} {
			if !slices.ContainsFunc(z.events(""), func(e *apiv1.Event) bool { return e.GetMessage() == kind }) {
				t.Errorf("no event says %q", kind)
			}
		}
	})
}

func TestFiniteWorkOfAPackageHasAnOutcome(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		finite := ringPackage()
		finite.Master.Ends = true
		z.install(finite)
		z.deployRing(3)
		end := func(m *fakeMaster, request *masterv1.FinishRequest) {
			t.Helper()
			if _, err := m.client.Finish(m.ctx, request); err != nil {
				t.Fatal(err)
			}
			z.pass(time.Second)
			n.done(m.container, &corev1.Exit{Reason: corev1.Exit_STOPPED})
			z.pass(time.Second)
		}
		shown := func(state apiv1.App_State, outcome apiv1.App_Outcome, reason string) {
			t.Helper()
			if app := z.app("ring"); app.GetState() != state || app.GetOutcome() != outcome || app.GetReason() != reason || !app.GetEnds() {
				t.Errorf("it is %v, %v, %q", app.GetState(), app.GetOutcome(), app.GetReason())
			}
		}
		m := n.launchMaster()
		m.say(&masterv1.AllocateRequest{Memo: []byte("99 of 100")})
		end(m, &masterv1.FinishRequest{Reason: "all is counted"})
		shown(apiv1.App_STOPPED, apiv1.App_SUCCEEDED, "all is counted")
		restart := func() *fakeMaster {
			t.Helper()
			if _, err := z.rm.Restart(as("root"), "ring"); err != nil {
				t.Fatal(err)
			}
			z.pass(time.Second)
			m := n.launchMaster()
			if memo := m.register.GetMemo(); len(memo) > 0 {
				t.Errorf("other work begins with %q", memo)
			}
			shown(apiv1.App_RUNNING, apiv1.App_OUTCOME_NONE, "")
			return m
		}
		end(restart(), &masterv1.FinishRequest{Failed: true, Reason: "a number is missing"})
		shown(apiv1.App_STOPPED, apiv1.App_FAILED, "a number is missing")
		m = restart()
		if _, err := z.rm.Stop(as("root"), "ring"); err != nil {
			t.Fatal(err)
		}
		z.pass(time.Second)
		n.done(m.container, &corev1.Exit{Reason: corev1.Exit_STOPPED})
		z.pass(time.Second)
		shown(apiv1.App_STOPPED, apiv1.App_KILLED, `user "root" stopped it`)
		// Nothing becomes of it by itself, and nobody is shown it again.
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stream, err := z.apps().WatchApp(ctx, &apiv1.GetAppRequest{Name: "ring"})
		if err != nil {
			t.Fatal(err)
		}
		var states atomic.Int32
		go func() {
			for _, err := stream.Recv(); err == nil; _, err = stream.Recv() {
				states.Add(1)
			}
		}()
		z.pass(5 * time.Second)
		if n := states.Load(); n != 1 {
			t.Errorf("a watcher is shown %d states of an app that does not change", n)
		}
	})
}

func TestDynamicDeployIsAPackage(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		z.pass(time.Second)
		if command := n.lastLaunch().GetSpec().GetCommand(); !slices.Equal(command, []string{"mammoth", "appmaster", "dynamicdeploy"}) {
			t.Errorf("DynamicDeploy is launched as %v", command)
		}
		if code, text := z.get("/v1/frameworks"); code != 200 || !strings.Contains(text, `"builtIn":true`) || !strings.Contains(text, `"apps":1`) {
			t.Errorf("over REST there is %d %s", code, text)
		}
		if code, text := z.get("/v1/frameworks/none"); code != 404 || !strings.Contains(text, `no framework package is named`) {
			t.Errorf("over REST there is %d %s", code, text)
		}
		_, err := z.rm.RemoveFramework(as("root"), "dynamicdeploy")
		if got := sentence(t, err, errdefs.IsFailedPrecondition); got != "the framework package dynamicdeploy is in use by web; remove it first" {
			t.Errorf("its removal is refused with %q", got)
		}
		if _, err := z.rm.Remove(as("root"), "web"); err != nil {
			t.Fatal(err)
		}
		z.pass(10 * time.Minute)
		for _, name := range slices.Sorted(maps.Keys(n.containers)) {
			n.done(name, &corev1.Exit{Reason: corev1.Exit_STOPPED})
		}
		z.pass(time.Second)
		if _, err := z.rm.RemoveFramework(as("root"), "dynamicdeploy"); err != nil {
			t.Fatal(err)
		}
		// It stays away until it is installed again.
		z.restart()
		n.register()
		if got := z.packages(); len(got) > 0 {
			t.Errorf("there are the packages %v", got)
		}
		_, err = z.rm.Deploy(as("root"), &apiv1.DeployRequest{Spec: specIn("web", "default"), IfGeneration: -1})
		const hint = `the framework dynamicdeploy is not installed in this zone; "mammoth framework install dynamicdeploy" installs it`
		if got := sentence(t, err, errdefs.IsFailedPrecondition); got != hint {
			t.Errorf("a deployment is refused with %q", got)
		}
		_, err = z.rm.InstallFramework(as("root"), &apiv1.InstallFrameworkRequest{BuiltIn: "other"})
		if got := sentence(t, err, errdefs.IsNotFound); got != `no framework named "other" is part of Mammoth; dynamicdeploy is, and others are installed from a file` {
			t.Errorf("another one is refused with %q", got)
		}
		if _, err := z.rm.InstallFramework(as("root"), &apiv1.InstallFrameworkRequest{BuiltIn: "dynamicdeploy"}); err != nil {
			t.Fatal(err)
		}
		z.deploy(webSpec(1))
		z.restart()
		if got := z.packages(); !slices.Equal(got, []string{"dynamicdeploy"}) {
			t.Errorf("there are the packages %v", got)
		}
	})
}

// A master that is an image runs by its digest, on its node's own network.
func TestAMasterMayBeAnImage(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		p := ringPackage()
		p.Master.Image, p.Master.ImageDigest, p.Master.Command = "ring:1", "sha256:0123", nil
		z.install(p)
		z.deployRing(1)
		spec := n.lastLaunch().GetSpec()
		if spec.GetRuntime() != corev1.ContainerSpec_DOCKER || spec.GetImage() != "ring@sha256:0123" || spec.GetNetwork() != corev1.ContainerSpec_HOST {
			t.Errorf("the node launches %v", spec)
		}
		err := z.rm.ImageUnused(context.Background(), "ring:1", "sha256:0123")
		if got := sentence(t, err, errdefs.IsFailedPrecondition); got != "the framework package ring uses image ring:1; remove the package, or install it with another image, first" {
			t.Errorf("the removal of its image is refused with %q", got)
		}
		if err := z.rm.ImageUnused(context.Background(), "ring:2", "sha256:0123"); err != nil {
			t.Error(err)
		}
	})
}

// An app whose package was lost keeps what runs, and says what it waits for.
func TestAnAppWaitsForItsPackage(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.install(ringPackage())
		z.deployRing(1)
		m := n.launchMaster()
		z.stop()
		opened := z.open()
		if err := opened.Commit(context.Background(), store.Batch{Puts: []store.Put{{Kind: "package", Key: "ring"}}}); err != nil {
			t.Fatal(err)
		}
		if err := opened.Close(); err != nil {
			t.Fatal(err)
		}
		z.start()
		n.register()
		n.done(m.container, &corev1.Exit{Reason: corev1.Exit_EXITED})
		z.pass(10 * time.Second)
		app := z.app("ring")
		if len(app.GetWaiting()) != 1 || app.GetWaiting()[0].GetText() != "its application master is not started: the framework ring is not installed in this zone" ||
			app.GetWaiting()[0].GetHelp() != `"mammoth framework install FILE" installs it` {
			t.Errorf("it waits for %v", app.GetWaiting())
		}
		explained, err := z.apps().ExplainApp(context.Background(), &apiv1.GetAppRequest{Name: "ring"})
		if err != nil || !strings.HasPrefix(explained.GetSummary(), "ring waits: its application master is not started: the framework ring is not installed in this zone; ") {
			t.Errorf("it is explained as %v, %v", explained, err)
		}
		z.install(ringPackage())
		z.pass(time.Second)
		if second := n.launchMaster(); second.attempt != 2 {
			t.Errorf("attempt %d is launched", second.attempt)
		}
	})
}

func TestWhoInstallsPackages(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		for _, who := range []string{"", "guest"} {
			_, err := z.rm.InstallFramework(as(who), &apiv1.InstallFrameworkRequest{Package: ringPackage()})
			if got := refusal(t, err); !strings.HasSuffix(got, "may not install the framework package ring, whose programs may run any other on the nodes; ask an administrator of queue root (root, or the user that runs the zone)") {
				t.Error(got)
			}
			_, err = z.rm.RemoveFramework(as(who), "dynamicdeploy")
			refusal(t, err)
		}
		if _, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: guardedQueues()}); err != nil {
			t.Fatal(err)
		}
		if _, err := z.rm.InstallFramework(as("chief"), &apiv1.InstallFrameworkRequest{Package: ringPackage()}); err != nil {
			t.Error(err)
		}
		if f, err := z.rm.Framework(as("guest"), "ring"); err != nil || f.GetUser() != "chief" {
			t.Errorf("it is shown as %v, %v", f, err)
		}
		// Who may submit deploys apps of it. What their containers run is not his choice, so he runs no commands in them.
		spec := ringSpec(1)
		spec.Queue = "batch"
		if _, err := z.rm.Deploy(as("analyst"), &apiv1.DeployRequest{Spec: spec, IfGeneration: -1}); err != nil {
			t.Error(err)
		}
		if got := refusal(t, z.rm.MayExec(as("analyst"), "ring")); got != `user "analyst" may not run commands in ring, whose containers may be programs of the nodes themselves; ask an administrator of queue root (chief)` {
			t.Error(got)
		}
		if err := z.rm.MayExec(as("chief"), "ring"); err != nil {
			t.Error(err)
		}
	})
}

func TestAZoneHasABoundedNumberOfPackages(t *testing.T) {
	inZone(t, func(z *testZone) {
		p := ringPackage()
		for i := range 99 { // and DynamicDeploy
			p.Name = fmt.Sprintf("ring-%d", i)
			z.install(proto.CloneOf(p))
		}
		z.install(proto.CloneOf(p)) // again
		p.Name = "ring"
		_, err := z.rm.InstallFramework(as("root"), &apiv1.InstallFrameworkRequest{Package: p})
		if got := sentence(t, err, errdefs.IsResourceExhausted); got != `a zone has 100 framework packages at most; remove one that no app has, see "mammoth framework ls"` {
			t.Errorf("one more is refused with %q", got)
		}
	})
}

func TestAMasterThatFitsNoNodeIsRefused(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		p := ringPackage()
		p.Master.Resources.CpuMillis = 100_000
		z.install(p)
		_, err := z.rm.Deploy(as("root"), &apiv1.DeployRequest{Spec: ringSpec(1), IfGeneration: -1})
		if got := sentence(t, err, errdefs.IsInvalidArgument); !strings.HasPrefix(got, "its application master cannot run: no node is large enough: ") {
			t.Errorf("it is refused with %q", got)
		}
	})
}

// A framework that runs the companion of a package keeps the package, over a restart too.
func TestAPackageMayBringACompanion(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		front := &apiv1.FrameworkPackage{Name: "front", Companion: &apiv1.CompanionKind{Image: "front:1", ImageDigest: "sha256:0123"}}
		spec := edgeSpec()
		spec.Queue = "default"
		spec.Roles[0].Instances, spec.Roles[0].Companion = 1, &apiv1.Companion{Package: "front"}
		deploy := func(spec *apiv1.AppSpec) error {
			_, err := z.rm.Deploy(as("root"), &apiv1.DeployRequest{Spec: proto.CloneOf(spec), IfGeneration: -1})
			return err
		}
		const missing = `no companion is named "front": Mammoth has dns, haproxy, nginx, zookeeper, and no framework package of that name is installed; "mammoth framework install FILE" installs one`
		if got := sentence(t, deploy(spec), errdefs.IsFailedPrecondition); got != missing {
			t.Errorf("without the package it is refused with %q", got)
		}
		z.install(ringPackage())
		other := proto.CloneOf(spec)
		other.Roles[0].Companion.Package = "ring"
		if got := sentence(t, deploy(other), errdefs.IsFailedPrecondition); got != `the framework package ring brings no companion; "mammoth framework ls" lists those that do` {
			t.Errorf("the companion of a package without one is refused with %q", got)
		}
		z.install(front)
		of := proto.CloneOf(spec)
		of.Framework, of.Kind, of.Roles = "front", apiv1.AppSpec_APP, nil
		const masterless = `the framework package front brings a companion and no application master; take the framework out, and run it with "kind: companion" and "companion: front"`
		if got := sentence(t, deploy(of), errdefs.IsFailedPrecondition); got != masterless {
			t.Errorf("an app of a package without a master is refused with %q", got)
		}
		if err := deploy(spec); err != nil {
			t.Fatal(err)
		}
		z.restart()
		for name, want := range map[string]int32{"front": 1, "ring": 0, "dynamicdeploy": 1} {
			if f, err := z.rm.Framework(as("root"), name); err != nil || f.GetApps() != want {
				t.Errorf("%s is shown as %v, %v", name, f, err)
			}
		}
		_, err := z.rm.RemoveFramework(as("root"), "front")
		if got := sentence(t, err, errdefs.IsFailedPrecondition); got != "the framework package front is in use by edge; remove it first" {
			t.Errorf("its removal is refused with %q", got)
		}
		without := ringPackage()
		without.Name = "front"
		_, err = z.rm.InstallFramework(as("root"), &apiv1.InstallFrameworkRequest{Package: without})
		if got := sentence(t, err, errdefs.IsFailedPrecondition); got != "the app edge has the companion that the package does not bring any more; remove the app first" {
			t.Errorf("a package without the companion is refused with %q", got)
		}
		z.deployRing(1)
		masterlessRing := &apiv1.FrameworkPackage{Name: "ring", Companion: front.GetCompanion()}
		_, err = z.rm.InstallFramework(as("root"), &apiv1.InstallFrameworkRequest{Package: masterlessRing})
		if got := sentence(t, err, errdefs.IsFailedPrecondition); got != "the app ring has the application master that the package does not bring any more; remove the app first" {
			t.Errorf("a package without the master is refused with %q", got)
		}
		// A version that runs it comes back only while it is there.
		own := proto.CloneOf(spec)
		own.Roles[0].Companion, own.Roles[0].Command = nil, []string{"own"}
		if err := deploy(own); err != nil {
			t.Fatal(err)
		}
		if _, err := z.rm.RemoveFramework(as("root"), "front"); err != nil {
			t.Error(err)
		}
		_, err = z.rm.Rollback(as("root"), "edge", 1, "")
		if got := sentence(t, err, errdefs.IsFailedPrecondition); got != missing {
			t.Errorf("a rollback is refused with %q", got)
		}
		z.install(front)
		if _, err := z.rm.Rollback(as("root"), "edge", 1, ""); err != nil {
			t.Error(err)
		}
		err = z.rm.ImageUnused(context.Background(), "front:1", "sha256:0123")
		if got := sentence(t, err, errdefs.IsFailedPrecondition); got != "the framework package front uses image front:1; remove the package, or install it with another image, first" {
			t.Errorf("the removal of its image is refused with %q", got)
		}
	})
}
