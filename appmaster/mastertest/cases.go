package mastertest

import (
	"fmt"
	"slices"
	"strings"
	"testing/synctest"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

func registers(s *suite) {
	first := s.attempt(s.Next())
	stranger := s.attempt(Attempt{App: first.App, Number: first.Number, Token: "nonsense"})
	s.code("with another token", stranger.register(), codes.Unauthenticated)
	_, err := first.client.Register(s.ctx, &masterv1.RegisterRequest{AppId: first.App, Attempt: first.Number})
	s.code("without a token", err, codes.Unauthenticated)
	_, err = first.client.Register(first.ctx, &masterv1.RegisterRequest{AppId: first.App, Attempt: first.Number + 1})
	s.code("as another attempt", err, codes.InvalidArgument)
	s.code("as it should", first.register(), codes.OK)
	s.code("once more", first.register(), codes.OK)
	if first.answer.GetSpec().GetName() == "" || first.answer.GetDesired().GetGeneration() == 0 || first.answer.GetDesired().GetVersions()[first.answer.GetDesired().GetVersion()] == nil {
		s.Errorf("it was answered %v", first.answer)
	}
	first.open()
	second := s.attempt(s.Next())
	if first.received().end == nil {
		s.Error("the stream of an attempt that is over goes on")
	}
	s.code("after a newer attempt was started", first.register(), codes.FailedPrecondition)
	if h := first.open(); !h.superseded || h.end == nil {
		s.Errorf("a stream of an attempt that is over is answered %+v", h)
	}
	s.want("the number of the next attempt", second.Number, first.Number+1)
	s.code("the newer attempt", second.register(), codes.OK)
}

func opens(s *suite) {
	m := s.attempt(s.Next())
	s.code("before the registration", m.open().end, codes.FailedPrecondition)
	s.code("register", m.register(), codes.OK)
	first := m.open()
	if first.end != nil || first.desired == nil {
		s.Errorf("the first answer is %+v", first)
	}
	earlier := m.came
	if second := m.open(); second.end != nil || second.desired == nil {
		s.Errorf("the first answer of the second stream is %+v", second)
	}
	later := m.came
	m.came = earlier
	if m.received().end == nil {
		s.Error("the first stream goes on beside the second")
	}
	m.came = later
	s.want("requests that were applied on the second", m.send(&masterv1.AllocateRequest{}).applied, []int64{1})
}

func confirmsRequests(s *suite) {
	m := s.start()
	var applied []int64
	for range 3 {
		applied = append(applied, m.send(&masterv1.AllocateRequest{}).applied...)
	}
	if !slices.IsSorted(applied) || len(applied) == 0 || applied[len(applied)-1] != 3 {
		s.Errorf("requests were confirmed in the order %v", applied)
	}
}

func countsAsks(s *suite) {
	s.node("node-1")
	m := s.start()
	ask := func(count int32) int {
		return len(m.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{m.ask("web", count)}}).allocated)
	}
	s.want("for two", ask(2), 2)
	s.want("for two, sent again", ask(2), 0)
	s.want("for three", ask(3), 1)
	s.want("for one", ask(1), 0)
	s.want("for three again", ask(3), 0)
	s.want("under another name", len(m.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{m.ask("db", 1)}}).allocated), 1)
	m.open()
	s.want("on a new stream, sent again", ask(3), 0)
}

func leasesHaveARole(s *suite) {
	s.node("node-1")
	m := s.start()
	of := func(id, role string) (lease string) {
		ask := m.ask(id, 1)
		ask.Role = role
		for _, granted := range m.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask}}).grants {
			lease = granted.GetLease().GetRole()
		}
		return lease
	}
	s.want("of an ask with a role", of("one", "cache"), "cache")
	s.want("of an ask without one", of("other", ""), "")
}

func waits(s *suite) {
	n := s.node("node-1")
	m := s.start()
	granted := m.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{m.ask("web", 5)}}).allocated
	s.want("of five on a node for four", len(granted), 4)
	n.report(granted[0], corev1.ContainerStatus_RUNNING)
	n.report(granted[0], corev1.ContainerStatus_DONE)
	s.want("once one has ended", len(m.received().allocated), 1)
	m.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{m.ask("web", 6)}})
	s.node("node-2")
	s.want("once there is another node", len(m.received().allocated), 1)
}

func grantsGangs(s *suite) {
	s.node("node-1")
	m := s.start()
	gang := m.ask("gang", 5)
	gang.Gang = true
	s.want("of five on a node for four", len(m.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{gang}}).allocated), 0)
	s.node("node-2")
	s.want("once there is another node", len(m.received().allocated), 5)
}

func repeatsGrants(s *suite) {
	n := s.node("node-1")
	m := s.start()
	started, silent := m.grant("started"), m.grant("silent")
	n.report(started, corev1.ContainerStatus_RUNNING)
	m.received()
	s.want("on a new stream", m.open().allocated, []string{silent})
}

func releases(s *suite) {
	n := s.node("node-1")
	m := s.start()
	container := m.grant("web")
	n.report(container, corev1.ContainerStatus_RUNNING)
	n.received()
	s.want("its release ends it", m.send(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: container}}}).completed, []string(nil))
	commands, _ := n.received()
	s.want("the node receives", commands, []string{"stop " + container})
	n.report(container, corev1.ContainerStatus_DONE)
	s.want("its end is reported", m.received().completed, []string{container})
	s.want("again on a new stream", m.open().completed, []string{container})
	m.send(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: container}}})
	s.want("not once it is known", m.open().completed, []string(nil))
}

func reportsEnds(s *suite) {
	n := s.node("node-1")
	m := s.start()
	container := m.grant("web")
	n.report(container, corev1.ContainerStatus_RUNNING)
	n.report(container, corev1.ContainerStatus_DONE)
	s.want("its end is reported", m.received().completed, []string{container})
}

func handsOver(s *suite) {
	n := s.node("node-1")
	m := s.start()
	container := m.grant("web")
	n.report(container, corev1.ContainerStatus_RUNNING)
	m.send(&masterv1.AllocateRequest{Memo: []byte("what I know")})
	next := s.start()
	s.want("the memo", string(next.answer.GetMemo()), "what I know")
	if held := next.answer.GetContainers(); len(held) != 1 || held[0].GetLease().GetContainerId() != container || held[0].GetLabels()["instance"] != "one" {
		s.Errorf("what it holds: %v", held)
	}
	claims := &corev1.TokenClaims{}
	if err := proto.Unmarshal(next.answer.GetContainers()[0].GetToken().GetClaims(), claims); err != nil || claims.GetLease().GetContainerId() != container {
		s.Errorf("the container's token is of %v, %v", claims, err)
	}
	commands, _ := n.received()
	s.want("the node receives", commands, []string(nil))
}

func dropsAsks(s *suite) {
	s.node("node-1")
	m := s.start()
	s.want("granted", len(m.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{m.ask("web", 5)}}).allocated), 4)
	next := s.start()
	s.node("node-2")
	s.want("granted to the next attempt, which asked for nothing", next.received().allocated, []string(nil))
	s.want("granted to the next attempt", len(next.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{next.ask("more", 1)}}).allocated), 1)
}

func restarts(s *suite) {
	n := s.node("node-1")
	m := s.start()
	granted := m.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{m.ask("web", 2)}, Memo: []byte("what I know")}).allocated
	n.report(granted[0], corev1.ContainerStatus_RUNNING)
	s.Conn = s.Restart()
	if _, end := n.received(); end == nil || m.received().end == nil {
		s.Error("a stream outlives the restart")
	}
	n.client = trackerv1.NewResourceTrackerClient(s.Conn)
	n.open()
	_, end := n.received()
	s.code("the session from before", end, codes.Aborted)
	n.register(n.status(granted[0], corev1.ContainerStatus_RUNNING))
	s.want("of what it was granted before, the node is to reap", n.answer.GetReap(), []string(nil))
	n.open()
	again := s.attempt(m.Attempt)
	s.code("the same attempt", again.register(), codes.OK)
	s.want("the containers that it holds", len(again.answer.GetContainers()), 2)
	s.want("the memo", string(again.answer.GetMemo()), "what I know")
	again.open()
	s.want("for two, sent again", again.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{again.ask("web", 2)}}).allocated, []string(nil))
	s.want("for three", len(again.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{again.ask("web", 3)}}).allocated), 1)
}

func withdraws(s *suite) {
	n := s.node("node-1")
	m := s.start()
	container := m.grant("web")
	n.report(container, corev1.ContainerStatus_RUNNING)
	report := func(inService bool, state apiv1.Instance_State) received {
		return m.send(&masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{{
			Id: "one", ContainerId: container, Version: 1, State: state, InService: inService, Weight: 100,
		}}})
	}
	s.want("in service", report(true, apiv1.Instance_RUNNING).withdrawn, []string(nil))
	s.want("out of service", report(false, apiv1.Instance_DRAINING).withdrawn, []string{"one"})
	s.want("on a new stream, while it drains", m.open().withdrawn, []string{"one"})
}

func handsOverCommands(s *suite) {
	m := s.start()
	type outcome struct {
		answer *anypb.Any
		err    error
	}
	give := func(content string) <-chan outcome {
		command, err := anypb.New(wrapperspb.String(content))
		s.code("encode a command", err, codes.OK)
		came := make(chan outcome, 1)
		go func() {
			answer, err := s.Command(s.ctx, command)
			came <- outcome{answer, err}
		}()
		return came
	}
	given := func(h received) []string {
		var contents []string
		for _, command := range h.commands {
			content := &wrapperspb.StringValue{}
			s.code("decode a command", command.GetCommand().UnmarshalTo(content), codes.OK)
			contents = append(contents, content.GetValue())
		}
		return contents
	}
	first := give("first")
	s.want("on the stream", given(m.received()), []string{"first"})
	second := give("second")
	h := m.received()
	s.want("the next one", given(h), []string{"second"})
	h = m.open()
	s.want("on a new stream", given(h), []string{"first", "second"})
	answer, err := anypb.New(wrapperspb.String("done"))
	s.code("encode an answer", err, codes.OK)
	m.send(&masterv1.AllocateRequest{Answers: []*masterv1.CommandAnswer{
		{Id: h.commands[0].GetId(), Answer: answer},
		{Id: h.commands[1].GetId(), Code: int32(codes.FailedPrecondition), Refusal: "not now"},
		{Id: h.commands[1].GetId(), Answer: answer}, // one answer counts
		{Id: "nobody's", Answer: answer},
	}})
	if got := <-first; got.err != nil || !proto.Equal(got.answer, answer) {
		s.Errorf("the first command is answered %v, %v", got.answer, got.err)
	}
	if got := <-second; !errdefs.IsFailedPrecondition(got.err) || !strings.Contains(got.err.Error(), "not now") {
		s.Errorf("the second command is answered %v, %v", got.answer, got.err)
	}
	s.want("on another stream", given(m.open()), []string(nil))
}

func showsStatuses(s *suite) {
	m := s.start()
	for _, state := range []apiv1.MasterStatus_State{
		apiv1.MasterStatus_WORKING, apiv1.MasterStatus_WAITING, apiv1.MasterStatus_FAILED, apiv1.MasterStatus_DONE,
	} {
		reported := &apiv1.MasterStatus{
			State: state, Version: 1, Text: "the ring is " + state.String(), Reason: "a reason", Help: "some help", Done: 2, Total: 3,
			Outlook: &apiv1.Outlook{Text: "it breaks", At: timestamppb.Now(), Unless: "it is mended"},
			Detail:  &anypb.Any{TypeUrl: "type.googleapis.com/somebody.else.Ring", Value: []byte{8, 1}},
		}
		m.send(&masterv1.AllocateRequest{Status: reported})
		if shown := s.Status(); !proto.Equal(shown, reported) {
			s.Errorf("it reported %v, but people are shown %v", reported, shown)
		}
	}
}

func revises(s *suite) {
	m := s.start()
	role := func(name, program string, instances int32) *apiv1.RoleSpec {
		return &apiv1.RoleSpec{Name: name, Image: "web:1", Env: map[string]string{"PROGRAM": program}, Instances: instances, Resources: &corev1.Resources{CpuMillis: 500, MemoryBytes: 64 << 20, DiskBytes: 64 << 20}}
	}
	first := m.answer.GetDesired().GetVersion()
	s.Deploy(role("front", "front:1", 1), role("db", "db:1", 1))
	s.Deploy(role("front", "front:2", 2), role("db", "db:2", 3))
	whole := func(desired *masterv1.DesiredState) (text string) {
		for _, role := range desired.GetSpec().GetRoles() {
			text += fmt.Sprintf("%d of %s, ", role.GetInstances(), role.GetEnv()["PROGRAM"])
		}
		return text + fmt.Sprintf("version %d, revised %t, from %d, roles %v", desired.GetVersion()-first, desired.GetRevised(), desired.GetFromVersion()-first, desired.GetFromRoles())
	}
	revised := func(revise *masterv1.Revise) string {
		revise.Cause = "it does not hold"
		revise.Version, revise.ToVersion = revise.GetVersion()+first, revise.GetToVersion()+first
		m.send(&masterv1.AllocateRequest{Revise: revise})
		return whole(m.open().desired)
	}
	s.want("one of two roles again", revised(&masterv1.Revise{Version: 2, ToVersion: 1, Roles: []string{"db"}}),
		"2 of front:2, 3 of db:1, version 3, revised true, from 1, roles [db]")
	s.want("of a version that is not wanted any more", revised(&masterv1.Revise{Version: 2, ToVersion: 1}),
		"2 of front:2, 3 of db:1, version 3, revised true, from 1, roles [db]")
	s.want("a role that the earlier version did not have", revised(&masterv1.Revise{Version: 3, ToVersion: 0, Roles: []string{"db"}}),
		"2 of front:2, 3 of db:1, version 3, revised true, from 1, roles [db]")
	s.want("all roles again", revised(&masterv1.Revise{Version: 3, ToVersion: 1}),
		"2 of front:1, 3 of db:1, version 4, revised true, from 1, roles []")
	s.Deploy(role("front", "front:3", 1), role("db", "db:1", 1))
	s.want("another deployment", whole(m.received().desired), "1 of front:3, 1 of db:1, version 5, revised false, from "+fmt.Sprint(-first)+", roles []")
}

func plans(s *suite) {
	s.node("node-1")
	m := s.start()
	response, err := m.client.Plan(m.ctx, &masterv1.PlanRequest{Asks: []*masterv1.Ask{m.ask("few", 2), m.ask("many", 6)}})
	s.code("plan two asks", err, codes.OK)
	if len(response.GetPlanned()) != 2 {
		s.Fatalf("of two asks it says %v", response)
	}
	few, many := response.GetPlanned()[0], response.GetPlanned()[1]
	s.want("of the few", few.GetNodes(), []string{"node-1", "node-1"})
	s.want("of the many", len(many.GetNodes()), 4)
	if few.GetReason() != "" || many.GetReason() == "" {
		s.Errorf("why they would wait: %q and %q", few.GetReason(), many.GetReason())
	}
	s.want("what is granted", m.received().allocated, []string(nil))
	_, err = s.attempt(Attempt{App: m.App, Number: m.Number, Token: "nonsense"}).client.Plan(
		metadata.AppendToOutgoingContext(s.ctx, "authorization", "Bearer nonsense"), &masterv1.PlanRequest{})
	s.code("plan with a token that is nobody's", err, codes.Unauthenticated)
}

func leaves(s *suite) {
	s.node("node-1")
	first := s.start()
	held := first.grant("web")
	_, err := first.client.Leave(first.ctx, &masterv1.LeaveRequest{Reason: "it is tired"})
	s.code("leave", err, codes.OK)
	if first.received().end == nil {
		s.Error("the stream of an attempt that has left is open")
	}
	next := s.start()
	var handed []string
	for _, container := range next.answer.GetContainers() {
		handed = append(handed, container.GetLease().GetContainerId())
	}
	s.want("what the next one is handed", handed, []string{held})
}

func registersNodes(s *suite) {
	n := s.node("node-1")
	if n.answer.GetSession() == "" || n.answer.GetEpoch() == 0 || n.answer.GetReportInterval().AsDuration() <= 0 || len(n.answer.GetKeys()) == 0 {
		s.Errorf("it was answered %v", n.answer)
	}
	if _, end := n.received(); end != nil {
		s.Errorf("its session ended: %v", end)
	}
	stranger := &testNode{suite: s, client: n.client, answer: &trackerv1.RegisterResponse{Session: "nonsense"}}
	stranger.open()
	_, end := stranger.received()
	s.code("a session that nobody was given", end, codes.Aborted)
}

func replacesSessions(s *suite) {
	n := s.node("node-1")
	before := n.answer
	n.register()
	if n.answer.GetSession() == before.GetSession() {
		s.Error("it is given the same session again")
	}
	_, end := n.received()
	s.code("the stream of the session before", end, codes.Aborted)
	n.open()
	if _, end := n.received(); end != nil {
		s.Errorf("the stream of its session: %v", end)
	}
	later, session := n.came, n.answer
	n.answer = before
	n.open()
	_, end = n.received()
	s.code("a stream of the session before", end, codes.Aborted)
	n.answer, n.came = session, later
	n.open()
	second := n.came
	n.came = later
	_, end = n.received()
	s.code("the first of two streams of a session", end, codes.Aborted)
	n.came = second
	if _, end := n.received(); end != nil {
		s.Errorf("the second of two streams of a session: %v", end)
	}
}

func forgetsEnds(s *suite) {
	n := s.node("node-1")
	m := s.start()
	container := m.grant("web")
	n.report(container, corev1.ContainerStatus_RUNNING)
	n.received()
	n.report(container, corev1.ContainerStatus_DONE)
	commands, _ := n.received()
	s.want("it receives", commands, []string{"forget " + container})
	n.register(n.status(container, corev1.ContainerStatus_DONE))
	s.want("registered with the end once more, it is to reap", n.answer.GetReap(), []string{container})
}

func repeatsStops(s *suite) {
	n := s.node("node-1")
	m := s.start()
	container := m.grant("web")
	n.report(container, corev1.ContainerStatus_RUNNING)
	n.cut()
	synctest.Wait()
	m.send(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: container}}})
	n.open()
	commands, _ := n.received()
	s.want("it receives", commands, []string{"stop " + container})
	n.register(n.status(container, corev1.ContainerStatus_RUNNING))
	s.want("registered anew, it is to reap", n.answer.GetReap(), []string(nil))
	n.open()
	commands, _ = n.received()
	s.want("it receives again", commands, []string{"stop " + container})
	n.report(container, corev1.ContainerStatus_DONE)
	s.want("its end is reported", m.received().completed, []string{container})
}

func reaps(s *suite) {
	n := s.node("node-1")
	m := s.start()
	container := m.grant("web")
	n.report(container, corev1.ContainerStatus_RUNNING)
	n.report(container, corev1.ContainerStatus_DONE)
	m.send(&masterv1.AllocateRequest{Release: []*masterv1.Release{{ContainerId: container}}})
	n.register(n.status(container, corev1.ContainerStatus_RUNNING))
	s.want("of a container whose end was seen", n.answer.GetReap(), []string{container})
}
