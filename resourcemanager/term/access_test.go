package term

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/peer/peertest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// as is a call of a program that a user runs.
func as(name string) context.Context {
	return peertest.With(context.Background(), peer.User{Name: name, Operator: name == "root"})
}

// guardedQueues: batch takes apps of analyst and deployer and is looked after by shift; common is everybody's.
func guardedQueues() []*apiv1.QueueSpec {
	half := 50.0
	return []*apiv1.QueueSpec{
		{Name: "root", Admin: []string{"chief"}},
		{Name: "default", Parent: "root"},
		{Name: "batch", Parent: "root", Guaranteed: &apiv1.Capacity{Percent: &half}, Submit: []string{"analyst", "deployer"}, Admin: []string{"shift"}},
	}
}

func specIn(name, queue string) *apiv1.AppSpec {
	spec := webSpec(1)
	spec.Name, spec.Queue = name, queue
	return spec
}

// refusal requires a denial and gives its sentence.
func refusal(t *testing.T, err error) string {
	t.Helper()
	if !errdefs.IsPermissionDenied(err) {
		t.Errorf("got %v, want a denial", err)
		return ""
	}
	return strings.TrimSuffix(err.Error(), ": "+errdefs.ErrPermissionDenied.Error())
}

func TestListsSayWhoBringsAppsIntoAQueue(t *testing.T) {
	inZone(t, func(z *testZone) {
		if _, err := z.rm.SetQueues(as("chief"), &apiv1.SetQueuesRequest{Queues: guardedQueues()}); err != nil {
			t.Fatal(err)
		}
		deploy := func(who, app, queue string) error {
			_, err := z.rm.Deploy(as(who), &apiv1.DeployRequest{Spec: specIn(app, queue), IfGeneration: -1})
			return err
		}
		for _, who := range []string{"analyst", "deployer", "shift", "chief", "root"} {
			if err := deploy(who, "of-"+who, "batch"); err != nil {
				t.Errorf("%s is refused: %v", who, err)
			}
		}
		const want = `user "guest" may not submit to queue batch; its submit list has: analyst, deployer; ask an administrator of the queue (chief, shift)`
		if got := refusal(t, deploy("guest", "more", "batch")); got != want {
			t.Errorf("got:  %s\nwant: %s", got, want)
		}
		_, err := z.rm.Deploy(as("guest"), &apiv1.DeployRequest{Spec: specIn("more", "batch"), DryRun: true})
		refusal(t, err)
		if got := refusal(t, deploy("", "more", "batch")); !strings.HasPrefix(got, "somebody who is not known to this machine may not submit to queue batch; ") {
			t.Error(got)
		}
		if err := deploy("guest", "mine", "default"); err != nil {
			t.Errorf("a queue of a tree with an administrator alone takes everybody's apps: %v", err)
		}
		refusal(t, deploy("guest", "mine", "batch")) // moves it
		if got := z.app("mine"); got.GetQueue() != "default" || got.GetUser() != "guest" {
			t.Errorf("after the refusal the app is %v", got)
		}
		if err := deploy("analyst", "mine", "default"); err == nil {
			t.Error("a stranger replaced an app")
		}
		if err := deploy("chief", "mine", "batch"); err != nil {
			t.Errorf("an administrator moves it where its owner may not: %v", err)
		}
		if got := z.app("mine"); got.GetUser() != "guest" || got.GetQueue() != "batch" {
			t.Errorf("it is %q's now, in %s", got.GetUser(), got.GetQueue())
		}
		z.restart()
		if got := z.app("mine"); got.GetUser() != "guest" {
			t.Errorf("after a restart it is %q's", got.GetUser())
		}
	})
}

func TestOwnersAndAdministratorsChangeAppsAndNobodyElse(t *testing.T) {
	inZone(t, func(z *testZone) {
		if _, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: guardedQueues()}); err != nil {
			t.Fatal(err)
		}
		if _, err := z.rm.Deploy(as("analyst"), &apiv1.DeployRequest{Spec: specIn("web", "batch")}); err != nil {
			t.Fatal(err)
		}
		calls := map[string]func(ctx context.Context) error{
			"scale": func(ctx context.Context) error {
				_, err := z.rm.Scale(ctx, &apiv1.ScaleAppRequest{Name: "web", Instances: 2})
				return err
			},
			"restart":   func(ctx context.Context) error { _, err := z.rm.Restart(ctx, "web"); return err },
			"stop":      func(ctx context.Context) error { _, err := z.rm.Stop(ctx, "web"); return err },
			"remove":    func(ctx context.Context) error { _, err := z.rm.Remove(ctx, "web"); return err },
			"roll back": func(ctx context.Context) error { _, err := z.rm.Rollback(ctx, "web", 1, ""); return err },
			"give commands": func(ctx context.Context) error {
				_, err := z.rm.Command(ctx, &apiv1.CommandAppRequest{Name: "web", Command: &anypb.Any{}})
				return err
			},
			"run commands in": func(ctx context.Context) error { return z.rm.MayExec(ctx, "web") },
		}
		for doing, call := range calls {
			for _, stranger := range []string{"deployer", "guest", ""} {
				if got := refusal(t, call(as(stranger))); !strings.Contains(got, "may not "+doing) || !strings.Contains(got, `which is user "analyst"'s; ask that user, or an administrator of queue batch (chief, shift)`) {
					t.Errorf("%s: %s", doing, got)
				}
			}
		}
		for _, who := range []string{"analyst", "shift", "chief", "root"} {
			if err := calls["scale"](as(who)); err != nil {
				t.Errorf("%s: %v", who, err)
			}
			if err := calls["run commands in"](as(who)); err != nil {
				t.Errorf("%s: %v", who, err)
			}
		}
		if err := calls["remove"](as("analyst")); err != nil {
			t.Error(err)
		}
	})
}

func TestOnlyAdministratorsChangeWhatAllQueuesShare(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		set := func(who string) error {
			_, err := z.rm.SetQueues(as(who), &apiv1.SetQueuesRequest{Queues: guardedQueues()})
			return err
		}
		if err := set(""); err != nil {
			t.Fatalf("without lists the tree is everybody's: %v", err)
		}
		for _, who := range []string{"", "shift", "analyst"} {
			if got := refusal(t, set(who)); !strings.HasSuffix(got, "may not change queues; ask an administrator of queue root (chief)") {
				t.Error(got)
			}
			_, err := z.rm.Drain(as(who), "node-1", "")
			refusal(t, err)
			_, err = z.rm.RemoveNode(as(who), "node-1")
			refusal(t, err)
		}
		for _, who := range []string{"chief", "root"} {
			if err := set(who); err != nil {
				t.Errorf("%s: %v", who, err)
			}
		}
		// A list below a root without one is not for everybody to do away with.
		open := guardedQueues()
		open[0].Admin = nil
		if _, err := z.rm.SetQueues(as("chief"), &apiv1.SetQueuesRequest{Queues: open}); err != nil {
			t.Fatal(err)
		}
		if got := refusal(t, set("guest")); !strings.HasSuffix(got, "(root, or the user that runs the zone)") {
			t.Error(got)
		}
	})
}

func TestOnlyAdministratorsOfTheLenderLend(t *testing.T) {
	inZone(t, func(z *testZone) {
		if _, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: guardedQueues()}); err != nil {
			t.Fatal(err)
		}
		add := func(who, lender, borrower string) error {
			_, err := z.rm.AddContracts(as(who), &apiv1.AddContractsRequest{Contracts: []*apiv1.ContractSpec{
				{Name: "nightly", Lender: lender, Borrowers: []string{borrower}, LendPercent: 50},
			}})
			return err
		}
		if got := refusal(t, add("analyst", "batch", "default")); got != `user "analyst" may not lend what queue batch is guaranteed; ask an administrator of the queue (chief, shift)` {
			t.Error(got)
		}
		if err := add("shift", "batch", "default"); err != nil {
			t.Fatal(err)
		}
		refusal(t, add("guest", "default", "batch")) // would take the contract of another lender's name
		_, err := z.rm.LendNow(as("analyst"), &apiv1.LendNowRequest{Name: "nightly", For: durationpb.New(time.Hour)})
		refusal(t, err)
		if _, err := z.rm.LendNow(as("shift"), &apiv1.LendNowRequest{Name: "nightly", For: durationpb.New(time.Hour)}); err != nil {
			t.Error(err)
		}
		_, err = z.rm.StopLending(as("analyst"), "nightly")
		refusal(t, err)
		refusal(t, z.rm.RemoveContract(as("analyst"), "nightly"))
		if err := z.rm.RemoveContract(as("shift"), "nightly"); err != nil {
			t.Error(err)
		}
	})
}

func TestAppsOfOneUserShareItsLimit(t *testing.T) {
	inZone(t, func(z *testZone) {
		tree := []*apiv1.QueueSpec{{Name: "root"}, {Name: "default", Parent: "root", UserLimitPercent: 4}}
		if _, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: tree}); err != nil {
			t.Fatal(err)
		}
		z.addNode("node-1")
		for _, name := range []string{"one", "two"} {
			if _, err := z.rm.Deploy(as("analyst"), &apiv1.DeployRequest{Spec: specIn(name, "default")}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := z.rm.Deploy(as("deployer"), &apiv1.DeployRequest{Spec: specIn("three", "default")}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		explanation, err := z.rm.Explain(as("analyst"), "two")
		if err != nil || !strings.Contains(explanation.GetSummary(), "user analyst holds") {
			t.Errorf("the second app of analyst: %v, %v", explanation.GetSummary(), err)
		}
		wide := specIn("four", "default")
		wide.Roles[0].Resources = &corev1.Resources{CpuMillis: 200, MemoryBytes: 1 << 20, DiskBytes: 1 << 20}
		dry, err := z.rm.Deploy(as("analyst"), &apiv1.DeployRequest{Spec: wide, DryRun: true})
		if err != nil || len(dry.GetExplanation().GetObstacles()) == 0 || !strings.Contains(dry.GetExplanation().GetObstacles()[0].GetLimit(), "user analyst holds") {
			t.Errorf("a dry run of analyst: %v, %v", dry.GetExplanation(), err)
		}
		explanation, err = z.rm.Explain(as("deployer"), "three")
		if err != nil || strings.Contains(explanation.GetSummary(), "user") {
			t.Errorf("the first app of deployer: %v, %v", explanation.GetSummary(), err)
		}
	})
}

func TestARefusalIs403OverREST(t *testing.T) {
	inZone(t, func(z *testZone) {
		if _, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: guardedQueues()}); err != nil {
			t.Fatal(err)
		}
		web := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return z.listener.DialContext(ctx) }}}
		web.Transport.(*http.Transport).DisableKeepAlives = true
		request, _ := http.NewRequest(http.MethodPost, "http://zone/v1/nodes/node-1/drain", strings.NewReader("{}"))
		request.Header.Set("Grpc-Metadata-Mammoth-User-Bin", "Y2hpZWY=") // "chief"
		request.Header.Set("Grpc-Metadata-Mammoth-Operator", "true")
		response, err := web.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		if response.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "may not drain nodes") {
			t.Errorf("%s: %s", response.Status, body)
		}
	})
}

// A node is told the keys with which leases are signed, so whoever may register one may do everything.
func TestOnlyOperatorsRegisterNodes(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.local = true
		z.restart()
		register := func(who string) error {
			response, err := z.rm.RegisterNode(as(who), &trackerv1.RegisterRequest{NodeId: "node-1"})
			if err == nil && len(response.GetKeys()) == 0 {
				t.Errorf("%s was told no keys", who)
			}
			return err
		}
		for _, who := range []string{"guest", "shift", "chief", ""} {
			if got := refusal(t, register(who)); !strings.Contains(got, `may not register node "node-1"`) || !strings.HasSuffix(got, "queue root (root, or the user that runs the zone)") {
				t.Errorf("%q: %s", who, got)
			}
		}
		if nodes := z.rm.AllNodes(); len(nodes) > 0 {
			t.Errorf("after refusals there are nodes %v", nodes)
		}
		if err := register("root"); err != nil {
			t.Error(err)
		}
		if _, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: guardedQueues()}); err != nil {
			t.Fatal(err)
		}
		if err := register("chief"); err != nil {
			t.Error(err)
		}
		refusal(t, register("shift"))
		// Where other machines connect without TLS, nobody is known, and nodes are.
		z.local = false
		z.restart()
		if err := register(""); err != nil {
			t.Error(err)
		}
		refusal(t, register("guest"))
	})
}

// What a balancer says counts for all apps: that one was taken out of it, and how many requests failed.
func TestOnlyAdministratorsRunBalancersOnceThereAreLists(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.local = true
		z.restart()
		route := func() error {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			stream, err := companionv1.NewCompanionsClient(z.conn).Route(ctx)
			if err != nil {
				return err
			}
			_ = stream.Send(&companionv1.RouteReport{Balancer: "edge"}) // the answer tells how it went
			_, err = stream.Recv()
			return err
		}
		if err := route(); err != nil {
			t.Errorf("without lists a balancer is refused: %v", err)
		}
		if _, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: guardedQueues()}); err != nil {
			t.Fatal(err)
		}
		if err := route(); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "may not run a balancer of the zone; ask an administrator of queue root (chief)") {
			t.Errorf("a stranger's balancer: %v", err)
		}
		for _, who := range []string{"root", "chief"} {
			if err := z.rm.MayRoute(as(who)); err != nil {
				t.Error(err)
			}
		}
		refusal(t, z.rm.MayRoute(as("shift")))
	})
}

// A page of another site changes nothing in a zone.
func TestPagesOfOthersChangeNothing(t *testing.T) {
	inZone(t, func(z *testZone) {
		request, _ := http.NewRequest(http.MethodPost, "http://zone/v1/nodes/node-1/drain", strings.NewReader("{}"))
		request.Header.Set("Origin", "http://evil.example.test")
		web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return z.listener.DialContext(ctx) }}}
		response, err := web.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusForbidden || !strings.Contains(string(body), `"message":"a page of http://evil.example.test may not change anything`) {
			t.Errorf("%s: %s", response.Status, body)
		}
	})
}

// The kernel cannot tell a container's root from the machine's where both have one network.
func TestOnlyOperatorsDeployOntoTheNodesNetwork(t *testing.T) {
	inZone(t, func(z *testZone) {
		spec := specIn("near", "default")
		spec.Roles[0].Network = corev1.ContainerSpec_HOST
		deploy := func(who string) error {
			_, err := z.rm.Deploy(as(who), &apiv1.DeployRequest{Spec: proto.CloneOf(spec), IfGeneration: -1})
			return err
		}
		const want = `user "guest" may not deploy near, which has its nodes' own network, where programs may pass for root; ask an administrator of queue root (root, or the user that runs the zone)`
		if got := refusal(t, deploy("guest")); got != want {
			t.Errorf("got:  %s\nwant: %s", got, want)
		}
		if err := deploy("root"); err != nil {
			t.Error(err)
		}
		// Whoever may replace it in a zone without lists has not yet replaced its instances.
		spec.Roles[0].Network = corev1.ContainerSpec_BRIDGE
		if err := deploy("guest"); err != nil {
			t.Fatal(err)
		}
		if got := refusal(t, z.rm.MayExec(as("guest"), "near")); !strings.Contains(got, `may not run commands in near, which has its nodes' own network`) {
			t.Error(got)
		}
		if err := z.rm.MayExec(as("root"), "near"); err != nil {
			t.Error(err)
		}
	})
}

// A command in a companion app runs as its program does: as root, on the node itself.
func TestOnlyOperatorsRunCommandsInCompanionApps(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.deployCompanion()
		apps := z.rm.AllApps()
		if len(apps) != 1 {
			t.Fatal(apps)
		}
		for _, who := range []string{"guest", ""} {
			if got := refusal(t, z.rm.MayExec(as(who), apps[0].GetName())); !strings.Contains(got, "may not run commands in the companion app "+apps[0].GetName()) {
				t.Errorf("%q: %s", who, got)
			}
		}
		if err := z.rm.MayExec(as("root"), apps[0].GetName()); err != nil {
			t.Error(err)
		}
	})
}

func TestAnAppsKeyToTheRegistryOutlivesRestartsAndNotTheApp(t *testing.T) {
	inZone(t, func(z *testZone) {
		nobodys := z.board.AppKey("web")
		z.deploy(webSpec(1))
		first := z.board.AppKey("web")
		z.restart()
		if got := z.board.AppKey("web"); got != first || got == nobodys {
			t.Errorf("after a restart its key is %q, and was %q", got, first)
		}
		if _, err := z.rm.Remove(as("root"), "web"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := z.board.AppKey("web"); got != nobodys {
			t.Errorf("after its removal the name has the key %q", got)
		}
		z.deploy(webSpec(1))
		if got := z.board.AppKey("web"); got == first || got == nobodys {
			t.Errorf("the next app of the name has the key %q", got)
		}
	})
}

func TestWhoMayNotDeployOverAnAppMayNotMoveANameThatItUses(t *testing.T) {
	inZone(t, func(z *testZone) {
		if _, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: guardedQueues()}); err != nil {
			t.Fatal(err)
		}
		for _, spec := range []*apiv1.AppSpec{
			withImage(specIn("web", "batch"), "web:1", "sha256:1"),
			withImage(specIn("open", "default"), "web:2", "sha256:2"),
			withImage(specIn("web", "batch"), "web:3", "sha256:3"),
		} {
			if _, err := z.rm.Deploy(as("analyst"), &apiv1.DeployRequest{Spec: spec, IfGeneration: -1}); err != nil {
				t.Fatal(err)
			}
		}
		const want = `user "guest" may not move the image name web:3 of web, which is user "analyst"'s; ask that user, or an administrator of queue batch (chief, shift)`
		if got := refusal(t, z.rm.MayMoveImage(as("guest"), "web:3")); got != want {
			t.Errorf("got:  %s\nwant: %s", got, want)
		}
		for _, name := range []string{"web:1", "localhost:5000/web:3", "web:2"} { // The version before, another way to write it, another app's.
			refusal(t, z.rm.MayMoveImage(as("guest"), name))
		}
		for who, names := range map[string][]string{
			"guest": {"web:4", "other:3"}, "analyst": {"web:1", "web:3"}, "shift": {"web:3"}, "chief": {"web:3"}, "root": {"web:1", "web:3"},
		} {
			for _, name := range names {
				if err := z.rm.MayMoveImage(as(who), name); err != nil {
					t.Errorf("%s, %s: %v", who, name, err)
				}
			}
		}
	})
}

func withImage(spec *apiv1.AppSpec, image, digest string) *apiv1.AppSpec {
	spec.Roles[0].Image, spec.Roles[0].ImageDigest = image, digest
	return spec
}
