package endpoints_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
)

// turn is a turn of a zone with one node, n1.
type turn struct{ now, wake time.Time }

func (t *turn) Now() time.Time                           { return t.now }
func (t *turn) WakeBy(instant time.Time)                 { t.wake = instant }
func (t *turn) NewSecret() []byte                        { return []byte("secret") }
func (t *turn) Save(store.Kind, string, proto.Message)   {}
func (t *turn) Emit(*apiv1.Event)                        {}
func (t *turn) Node(name id.Node) (endpoints.Node, bool) { return node, name == "n1" }

var node = endpoints.Node{State: lifecycle.NodeReady, Registered: true, Address: "10.0.0.1"}

// web is an app with one instance, web-1 in the container c1.
type web struct {
	endpoints.State
	report *masterv1.InstanceReport
	status *corev1.ContainerStatus
	roles  []string
}

func newWeb() *web {
	return &web{
		State:  endpoints.NewState(id.App{Seq: 1}),
		report: &masterv1.InstanceReport{Id: "web-1", ContainerId: "c1", State: apiv1.Instance_RUNNING, InService: true},
		status: &corev1.ContainerStatus{State: corev1.ContainerStatus_RUNNING, Health: corev1.ContainerStatus_HEALTHY},
	}
}

func (w *web) Name() string    { return "web" }
func (w *web) Removed() bool   { return false }
func (w *web) Names() []string { return []string{"web-1"} }

func (w *web) Spec() *apiv1.AppSpec {
	spec := &apiv1.AppSpec{Name: "web"}
	for _, role := range w.roles {
		spec.Roles = append(spec.Roles, &apiv1.RoleSpec{Name: role})
	}
	return spec
}

func (w *web) Instances() map[string]*storev1.Instance {
	return map[string]*storev1.Instance{"web-1": {Report: w.report}}
}

func (w *web) Container(name string) (endpoints.Container, bool) {
	return endpoints.Container{Node: "n1", Status: w.status}, name == "c1"
}

// update publishes the app in a turn of its own.
func update(es *endpoints.Endpoints, w *web) endpoints.Out {
	es.Begin()
	es.Update(&w.State, w)
	return es.Out()
}

func TestAWithdrawalFollowsOnceItIsConfirmed(t *testing.T) {
	now := &turn{now: time.Unix(1_700_000_000, 0)}
	es, _ := endpoints.New(now, now)
	w := newWeb()
	if out := update(es, w); len(out.Services) != 1 || len(out.Services[0].Endpoints) != 1 {
		t.Fatalf("%+v is published", out.Services)
	}
	w.report = &masterv1.InstanceReport{Id: "web-1", ContainerId: "c1", State: apiv1.Instance_DRAINING}
	w.Withdraw("web-1")
	out := update(es, w)
	if len(out.Services) != 1 || len(out.Services[0].Endpoints) != 0 || len(out.Confirm) != 1 {
		t.Fatalf("after the withdrawal %+v", out)
	}
	if then, ok := es.Confirmed(out.Confirm[0].Number); !ok || then.Withdrawn != "web-1" || then.App.Seq != 1 {
		t.Errorf("%+v, %v follows", then, ok)
	}
	if _, ok := es.Confirmed(out.Confirm[0].Number); ok {
		t.Error("the same confirmation counts twice")
	}
}

func TestACancelledWithdrawalIsNotSent(t *testing.T) {
	now := &turn{now: time.Unix(1_700_000_000, 0)}
	es, _ := endpoints.New(now, now)
	w := newWeb()
	w.Withdraw("web-1")
	out := update(es, w)
	w.CancelWithdrawal("web-1")
	if then, ok := es.Confirmed(out.Confirm[0].Number); ok {
		t.Errorf("%+v follows", then)
	}
}

func TestEndpointsAreHeldBackUntilTheNodeReports(t *testing.T) {
	now := &turn{now: time.Unix(1_700_000_000, 0)}
	es, _ := endpoints.New(now, now)
	w := newWeb()
	w.status.Health = corev1.ContainerStatus_STARTING
	w.Withdraw("web-0")
	if out := update(es, w); !w.HeldBack() || len(out.Confirm) != 0 {
		t.Fatalf("held back: %v, asked to confirm: %v", w.HeldBack(), out.Confirm)
	}
	now.now = now.wake
	if out := update(es, w); w.HeldBack() || len(out.Confirm) != 1 {
		t.Errorf("after five seconds held back: %v, asked to confirm: %v", w.HeldBack(), out.Confirm)
	}
}

// What is left of a role that an app does not have any more is none of its endpoints, also if the app has one role now.
func TestAnEndpointIsOfARoleThatTheAppHas(t *testing.T) {
	now := &turn{now: time.Unix(1_700_000_000, 0)}
	es, _ := endpoints.New(now, now)
	w := newWeb()
	w.roles, w.report.Role = []string{"front", "store"}, "store"
	if out := update(es, w); !slices.ContainsFunc(out.Services, func(s endpoints.ServiceChange) bool { return s.Service == "store.web" && len(s.Endpoints) == 1 }) {
		t.Fatalf("%+v is published", out.Services)
	}
	w.roles = []string{""}
	for _, service := range update(es, w).Services {
		if len(service.Endpoints) > 0 {
			t.Errorf("%s has the endpoints %v", service.Service, service.Endpoints)
		}
	}
}

// The only role of an app is the app's one service, so that two are removed here. Their instances are routed to until balancers
// have confirmed that.
func TestAWithdrawalWaitsForAServiceThatIsRemoved(t *testing.T) {
	now := &turn{now: time.Unix(1_700_000_000, 0)}
	es, _ := endpoints.New(now, now)
	w := newWeb()
	w.roles, w.report.Role = []string{"front", "store"}, "store"
	update(es, w)
	asked := func(out endpoints.Out, want ...string) int64 {
		t.Helper()
		if len(out.Confirm) != 1 || !slices.Equal(out.Confirm[0].Services, want) {
			t.Fatalf("%+v is asked to be confirmed, want %v", out.Confirm, want)
		}
		return out.Confirm[0].Number
	}
	w.Withdraw("web-0")
	early := asked(update(es, w), "front.web", "store.web", "web")
	w.roles = []string{"front"}
	w.Withdraw("web-1")
	first := asked(update(es, w), "web", "front.web", "store.web")
	// What was asked for before the removal says nothing about it.
	es.Confirmed(early)
	w.Withdraw("web-1")
	asked(update(es, w), "web", "front.web", "store.web")
	es.Confirmed(first)
	w.Withdraw("web-1")
	asked(update(es, w), "web")
	// A service that is back is not removed.
	w.roles = []string{"front", "store"}
	w.Withdraw("web-1")
	asked(update(es, w), "front.web", "store.web", "web")
}
