package term

import (
	"context"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// dryRun is the answer to a dry run, where the master answers commands so.
func (m *fakeMaster) dryRun(spec *apiv1.AppSpec, answer func(*masterv1.Command) *masterv1.CommandAnswer) *apiv1.DeployResponse {
	m.z.t.Helper()
	came := make(chan *apiv1.DeployResponse, 1)
	conn := m.z.conn
	go func() {
		response, err := apiv1.NewAppsClient(conn).Deploy(context.Background(), &apiv1.DeployRequest{Spec: spec, DryRun: true, IfGeneration: -1})
		if err != nil {
			m.z.t.Error(err)
		}
		came <- response
	}()
	synctest.Wait()
	for _, command := range commandsOf(m.heard()) {
		m.say(&masterv1.AllocateRequest{Answers: []*masterv1.CommandAnswer{answer(command)}})
	}
	return <-came
}

func TestADryRunSaysWhatTheMasterWouldDo(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		m.startInstance(n, "web-1")
		m.heard()
		dry := m.dryRun
		response := dry(spec2(1), func(command *masterv1.Command) *masterv1.CommandAnswer {
			preview := &apiv1.Preview{}
			if err := command.GetCommand().UnmarshalTo(preview); err != nil || preview.GetSpec().GetRoles()[0].GetImage() != "web:2" {
				t.Errorf("the master is asked %v, %v", command, err)
			}
			previewed, err := anypb.New(&apiv1.Previewed{Summary: "1 instance would be replaced", Lines: []*apiv1.PreviewLine{{Text: "web-1 would go"}}})
			if err != nil {
				t.Fatal(err)
			}
			return &masterv1.CommandAnswer{Id: command.GetId(), Answer: previewed}
		})
		if lines := response.GetPreview().GetLines(); len(lines) != 1 || lines[0].GetText() != "web-1 would go" || response.GetUnchanged() {
			t.Errorf("the answer is %v", response)
		}
		if got := response.GetExplanation().GetSummary(); got != "no further instance of web would be started; 1 instance would be replaced" {
			t.Errorf("it says %q", got)
		}
		response = dry(spec2(1), func(command *masterv1.Command) *masterv1.CommandAnswer {
			return &masterv1.CommandAnswer{Id: command.GetId(), Code: int32(codes.Unimplemented), Refusal: "it cannot say"}
		})
		if got := response.GetExplanation().GetSummary(); got != "no further instance of web would be started; what would become of its instances is not known: it cannot say" {
			t.Errorf("of a master that cannot say it says %q", got)
		}
		response = dry(webSpec(1), func(command *masterv1.Command) *masterv1.CommandAnswer {
			t.Errorf("of what would not change the master is asked %v", command)
			return &masterv1.CommandAnswer{Id: command.GetId()}
		})
		if got := response.GetExplanation().GetSummary(); !response.GetUnchanged() || got != "nothing of web would change" {
			t.Errorf("of what would not change it says %v", response)
		}
		if app := z.app("web"); app.GetVersion() != 1 || app.GetGeneration() != 1 {
			t.Errorf("after dry runs the app is %v", app)
		}
	})
}

// A master is asked by whether its package says that it answers, whatever its framework is.
func TestADryRunAsksTheMastersOfPackagesThatAnswer(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		p := ringPackage()
		p.Options = &structpb.Struct{}
		z.install(p)
		z.deployRing(1)
		m := n.launchMaster()
		m.say(&masterv1.AllocateRequest{ObservedGeneration: 1})
		m.heard()
		asked := 0
		answer := func(command *masterv1.Command) *masterv1.CommandAnswer {
			asked++
			previewed, err := anypb.New(&apiv1.Previewed{Summary: "2 workers would be added"})
			if err != nil {
				t.Fatal(err)
			}
			return &masterv1.CommandAnswer{Id: command.GetId(), Answer: previewed}
		}
		const goesOn = "the application master of ring goes on; what would be started or ended is its affair"
		if got := m.dryRun(ringSpec(3), answer).GetExplanation().GetSummary(); got != goesOn || asked != 0 {
			t.Errorf("it was asked %d times, and the dry run says %q", asked, got)
		}
		p = proto.CloneOf(p)
		p.Master.Previews = true
		z.install(p)
		if got := m.dryRun(ringSpec(3), answer).GetExplanation().GetSummary(); got != goesOn+"; 2 workers would be added" || asked != 1 {
			t.Errorf("it was asked %d times, and the dry run says %q", asked, got)
		}
	})
}

func TestAsksArePlannedAndNothingIsGranted(t *testing.T) {
	inZone(t, func(z *testZone) {
		if _, err := z.rm.SetQueues(context.Background(), narrowQueue()); err != nil {
			t.Fatal(err)
		}
		n := z.addNode("node-1")
		spec := webSpec(1)
		spec.Queue = "narrow"
		z.deploy(spec)
		m := n.launchMaster()
		m.startInstance(n, "web-1")
		small := proto.CloneOf(ask1("small"))
		small.Resources.CpuMillis = 100
		full := &masterv1.PlannedAsk{Reason: "queue narrow holds 0.6 cpu of its maximum of 0.7 cpu; 0.5 cpu more are requested"}
		free := &masterv1.PlannedAsk{Nodes: []string{"node-1"}}
		for name, c := range map[string]struct {
			queue string
			want  []*masterv1.PlannedAsk
		}{"its own queue": {"", []*masterv1.PlannedAsk{full, free}}, "another queue": {"default", []*masterv1.PlannedAsk{free, free}}} {
			response, err := m.client.Plan(m.ctx, &masterv1.PlanRequest{Queue: c.queue, Asks: []*masterv1.Ask{ask1("large"), small}})
			if err != nil {
				t.Fatal(err)
			}
			for i, planned := range response.GetPlanned() {
				planned.Help = ""
				if !proto.Equal(planned, c.want[i]) {
					t.Errorf("%s: ask %d would become %v, want %v", name, i, planned, c.want[i])
				}
			}
		}
		if answers := m.heard(); len(allocated(answers)) != 0 {
			t.Errorf("what was planned is granted: %v", answers)
		}
		_, err := m.client.Plan(m.ctx, &masterv1.PlanRequest{Asks: make([]*masterv1.Ask, 65)})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("65 asks are answered with %v", err)
		}
		many := ask1("many")
		many.Count = 5001
		_, err = m.client.Plan(m.ctx, &masterv1.PlanRequest{Asks: []*masterv1.Ask{many, many}})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("asks for 10002 containers are answered with %v", err)
		}
		_, err = m.client.Plan(m.ctx, &masterv1.PlanRequest{Queue: "nowhere", Asks: []*masterv1.Ask{small}})
		if status.Code(err) != codes.NotFound && status.Code(err) != codes.InvalidArgument {
			t.Errorf("a queue that is not there is answered with %v", err)
		}
		_, err = m.client.Plan(context.Background(), &masterv1.PlanRequest{Asks: []*masterv1.Ask{small}})
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("a stranger is answered with %v", err)
		}
	})
}
