package term

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

func reported(version int32, state apiv1.MasterStatus_State, done int32) *masterv1.AllocateRequest {
	return &masterv1.AllocateRequest{Status: &apiv1.MasterStatus{Version: version, State: state, Total: 2, Done: done}}
}

// cameUp is the request with which a master reports that a version runs with all of its instances.
func cameUp(version, total int32) *masterv1.AllocateRequest {
	return &masterv1.AllocateRequest{Status: done(version, total), Notes: []*masterv1.VersionNote{{Version: version, CameUp: true}}}
}

// revised is the request with which a master goes back to an earlier version because the present one has failed.
func revised(version, to int32, failure string) *masterv1.AllocateRequest {
	return &masterv1.AllocateRequest{
		Notes:  []*masterv1.VersionNote{{Version: version, Failure: failure}},
		Revise: &masterv1.Revise{Version: version, ToVersion: to, Cause: fmt.Sprintf("revert of %d: %s", version, failure)},
	}
}

func canary(spec *apiv1.AppSpec, percent int32) *apiv1.AppSpec {
	spec.Roles[0].Update = &apiv1.UpdatePolicy{
		Strategy: apiv1.UpdatePolicy_CANARY, CanaryPercent: percent, MaxSurge: 1, AutoRevert: true, MaxErrorPercent: 5,
	}
	return spec
}

func TestAStrategyForOneRolloutStandsAsLongAsItsVersion(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(2))
		m := n.launchMaster()
		m.say(cameUp(1, 2))
		once := spec2(2)
		once.Roles[0].Update = &apiv1.UpdatePolicy{MaxSurge: 1, Once: &apiv1.UpdatePolicy_OneRollout{Strategy: apiv1.UpdatePolicy_CANARY, CanaryPercent: 30}}
		z.deploy(once)
		plain := proto.CloneOf(once)
		plain.Roles[0].Update.Once, plain.Roles[0].Instances = nil, 3
		// A dry run has what would be stored.
		dry, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: proto.CloneOf(plain), DryRun: true, IfGeneration: -1})
		if got := dry.GetApp().GetSpec().GetRoles()[0].GetUpdate().GetOnce(); err != nil || got.GetCanaryPercent() != 30 {
			t.Errorf("a dry run with another count has %v, %v", got, err)
		}
		z.deploy(plain)
		told := func() *apiv1.UpdatePolicy_OneRollout {
			return newestDesired(m.heard()).GetSpec().GetRoles()[0].GetUpdate().GetOnce()
		}
		if got := told(); got.GetCanaryPercent() != 30 {
			t.Errorf("after another count the master is told %v", got)
		}
		plain.Roles[0].Env = map[string]string{"A": "B"}
		z.deploy(plain)
		if got := told(); got != nil {
			t.Errorf("of the next version the master is told %v", got)
		}
	})
}

func exposedAt(spec *apiv1.AppSpec, host string) *apiv1.AppSpec {
	spec.Roles[0].Ports = []*corev1.Port{{Name: "http", ContainerPort: 8080}}
	spec.Roles[0].Expose = &apiv1.Expose{Http: &apiv1.Expose_Http{Host: host, Path: "/"}}
	return spec
}

func TestAMasterIsToldWhichVersionIsRepeated(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(canary(webSpec(2), 10))
		m := n.launchMaster()
		m.say(cameUp(1, 2))
		z.deploy(canary(spec2(2), 10))
		answers := m.say(revised(2, 1, "too many errors"))
		if desired := newestDesired(answers); !desired.GetRevised() || desired.GetFromVersion() != 1 {
			t.Errorf("after a revert the master is told %v", desired)
		}
		z.deploy(canary(spec2(2), 20))
		if desired := newestDesired(m.heard()); desired.GetRevised() || desired.GetFromVersion() != 0 {
			t.Errorf("after another deployment the master is told %v", desired)
		}
		if _, err := z.apps().RollbackApp(context.Background(), &apiv1.RollbackAppRequest{Name: "web", Version: 1}); err != nil {
			t.Fatal(err)
		}
		if desired := newestDesired(m.heard()); desired.GetRevised() || desired.GetFromVersion() != 1 {
			t.Errorf("after a rollback the master is told %v", desired)
		}
	})
}

func TestAStepIsDoneOnceBalancersRouteByIt(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(exposedAt(webSpec(1), "web.example.test"))
		m := n.launchMaster()
		m.startInstance(n, "web-1")
		z.board.HoldBack()
		m.say(cameUp(1, 1))
		if state := z.app("web").GetStatus().GetState(); state == apiv1.MasterStatus_DONE {
			t.Error("a rollout is done while a balancer does not route to it")
		}
		z.board.Confirm()
		z.pass(0)
		if state := z.app("web").GetStatus().GetState(); state != apiv1.MasterStatus_DONE {
			t.Errorf("after the balancers' word the rollout is %v", state)
		}
	})
}

func TestTwoAppsCannotClaimTheSamePlace(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		z.deploy(exposedAt(webSpec(1), "web.example.test"))
		other := exposedAt(webSpec(1), "web.example.test")
		other.Name = "other"
		_, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: other})
		if status.Code(err) != codes.AlreadyExists || !strings.Contains(err.Error(), `host "web.example.test" with path "/" is already routed to app "web"`) {
			t.Errorf("the second app is answered %v", err)
		}
		other.Roles[0].Expose.Http.Path = "/other"
		z.deploy(other)
	})
}

func TestAMasterHearsWhatBalancersCount(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(canary(webSpec(2), 10))
		m := n.launchMaster()
		m.startInstance(n, "web-1")
		count := func() {
			observer{z.rm}.Counted("nginx", []*companionv1.Traffic{{Service: "web", Endpoint: "web-1", Requests: 10, Errors: 1}})
			z.pass(0)
		}
		heard := func() (traffic []*masterv1.Traffic) {
			for _, answer := range m.heard() {
				traffic = append(traffic, answer.GetTraffic()...)
			}
			return traffic
		}
		count()
		if traffic := heard(); len(traffic) > 0 {
			t.Errorf("a master that has not asked for it hears %v", traffic)
		}
		m.say(&masterv1.AllocateRequest{Traffic: proto.Bool(true)})
		for range 2 {
			observer{z.rm}.Counted("nginx", []*companionv1.Traffic{
				{Service: "web", Endpoint: "web-1", Requests: 10, Errors: 1}, {Service: "web", Endpoint: "web-9", Requests: 1}, {Service: "nobody", Endpoint: "x"},
			})
		}
		z.pass(0)
		traffic := heard()
		if len(traffic) == 0 {
			t.Fatal("the master hears nothing")
		}
		if last := traffic[len(traffic)-1]; last.GetInstance() != "web-1" || last.GetRequests() != 20 || last.GetErrors() != 2 {
			t.Errorf("the master has heard %v", last)
		}
		m.say(&masterv1.AllocateRequest{Traffic: proto.Bool(false)})
		count()
		if traffic := heard(); len(traffic) > 0 {
			t.Errorf("a master that does not want it any more hears %v", traffic)
		}
	})
}

func TestAMasterThatIsAheadOfANodeIsHeldBack(t *testing.T) {
	for _, late := range []bool{false, true} {
		inZone(t, func(z *testZone) {
			n := z.addNode("node-1")
			z.deploy(exposedAt(webSpec(1), "web.example.test"))
			m := n.launchMaster()
			old := m.startInstance(n, "web-1")
			m.say(cameUp(1, 1))
			z.deploy(exposedAt(spec2(1), "web.example.test"))
			m.say(reported(2, apiv1.MasterStatus_WORKING, 0))
			fresh := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask1("web-2")}}))[0].GetLease().GetContainerId()
			n.report(fresh, func(s *corev1.ContainerStatus) {
				s.State, s.Health = corev1.ContainerStatus_RUNNING, corev1.ContainerStatus_STARTING
			})
			// The master has heard of its health from the node, and goes on.
			m.heard()
			answers := m.say(&masterv1.AllocateRequest{
				Instances: []*masterv1.InstanceReport{
					{Id: "web-2", ContainerId: fresh, Version: 2, State: apiv1.Instance_RUNNING, InService: true, Weight: 100},
					{Id: "web-1", ContainerId: old, Version: 1, State: apiv1.Instance_DRAINING, Weight: 100},
				},
				Status: done(2, 1),
			})
			if names, _ := z.board.Serving("web"); !slices.Equal(names, []string{"web-1"}) {
				t.Errorf("before the node's word %v is routed to, want web-1", names)
			}
			if state := z.app("web").GetStatus().GetState(); withdrawn(answers) || state == apiv1.MasterStatus_DONE {
				t.Errorf("before the node's word web-1 is withdrawn (%t) and the rollout %v", withdrawn(answers), state)
			}
			want := []string{"web-2"}
			if late {
				// Not for ever.
				want = []string{}
				z.pass(5*time.Second + zone.Tick)
			} else {
				n.run(fresh, nil)
			}
			answers = m.heard()
			if names, _ := z.board.Serving("web"); !slices.Equal(names, want) {
				t.Errorf("after it %v is routed to, want %v", names, want)
			}
			if state := z.app("web").GetStatus().GetState(); !withdrawn(answers) || state != apiv1.MasterStatus_DONE {
				t.Errorf("after it web-1 is withdrawn (%t) and the rollout %v", withdrawn(answers), state)
			}
		})
	}
}

func withdrawn(answers []*masterv1.AllocateResponse) bool {
	return slices.ContainsFunc(answers, func(answer *masterv1.AllocateResponse) bool { return slices.Contains(answer.GetWithdrawn(), "web-1") })
}

func TestARefusalIsToldOnce(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		z.deploy(webSpec(1))
		told := func() (n int) {
			for _, event := range z.events("web") {
				if event.GetTo() == "REFUSED" {
					n++
				}
			}
			return n
		}
		no := []*companionv1.Refusal{{Service: "web", Reason: "there is no certificate"}}
		for i, test := range []struct {
			refusals []*companionv1.Refusal
			want     int
		}{{no, 1}, {no, 1}, {[]*companionv1.Refusal{{Service: "web", Reason: "the port is taken"}}, 2}, {nil, 2}, {no, 3}} {
			observer{z.rm}.Refused("nginx", test.refusals)
			z.pass(0)
			if got := told(); got != test.want {
				t.Errorf("after word %d there are %d events, want %d", i+1, got, test.want)
			}
		}
		explained := func() bool {
			e, err := z.apps().ExplainApp(context.Background(), &apiv1.GetAppRequest{Name: "web"})
			if err != nil {
				t.Fatal(err)
			}
			return slices.ContainsFunc(e.GetObstacles(), func(o *apiv1.Obstacle) bool {
				return o.GetReason() == "the balancer nginx does not route it: there is no certificate"
			})
		}
		if !explained() {
			t.Error("explain does not tell of the refusal")
		}
		observer{z.rm}.Refused("nginx", nil)
		if explained() {
			t.Error("explain tells of a refusal that is over")
		}
	})
}
