package mastertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// Subject is a ResourceManager that Run is given: it has one app, and no attempt of it yet.
type Subject struct {
	// Conn reaches it.
	Conn *grpc.ClientConn
	// Next ends the app's attempt, if there is one, and starts the next.
	Next func() Attempt
	// Avoid are nodes that it has for itself: the suite asks for nothing on them.
	Avoid []string
}

// Attempt is what a master is told of itself.
type Attempt struct {
	App    string
	Number int32
	Token  string
}

// Run is what every ResourceManager does for application masters and NodeManagers. Each test is given one of its own, in a bubble
// of synctest.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for name, test := range map[string]func(*suite){
		"an attempt registers with its own token, and only the newest may":       registers,
		"a stream is opened after the registration, and again ends the first":    opens,
		"requests are confirmed by their number":                                 confirmsRequests,
		"an ask counts what is granted under it in total":                        countsAsks,
		"an ask may be for more than there is, and waits":                        waits,
		"a grant that a node was not asked to start is repeated on a new stream": repeatsGrants,
		"a release stops a container, and its end is told until it is known":     releases,
		"what ends by itself is told too":                                        tellsEnds,
		"the next attempt is handed what the last one held":                      handsOver,
		"the asks of an attempt end with it":                                     dropsAsks,
		"an instance that leaves service is withdrawn":                           withdraws,
		"a node that registers is given a session, keys and an interval":         registersNodes,
		"a node's session is the last one that it was given":                     replacesSessions,
		"an end that a node reports is stored, and need not be reported again":   forgetsEnds,
		"a node that was away is told again what it is to stop":                  repeatsStops,
		"a node that comes back with what was given up meanwhile ends it":        reaps,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &suite{T: t, Subject: open(t)}
				s.ctx, s.cancel = context.WithCancel(context.Background())
				test(s)
				s.cancel()
				synctest.Wait()
			})
		})
	}
}

type suite struct {
	*testing.T
	Subject
	ctx    context.Context
	cancel context.CancelFunc
}

// code fails unless an error has a code.
func (s *suite) code(what string, err error, want codes.Code) {
	s.Helper()
	if status.Code(err) != want {
		s.Errorf("%s: %v, want %v", what, err, want)
	}
}

// master is an application master that does as the suite says.
type master struct {
	*suite
	Attempt
	client   masterv1.ApplicationMasterClient
	ctx      context.Context
	answer   *masterv1.RegisterResponse
	stream   masterv1.ApplicationMaster_AllocateClient
	sequence int64
	came     chan any
}

func (s *suite) attempt(a Attempt) *master {
	ctx := metadata.AppendToOutgoingContext(s.ctx, "authorization", "Bearer "+a.Token)
	return &master{suite: s, Attempt: a, client: masterv1.NewApplicationMasterClient(s.Conn), ctx: ctx}
}

func (m *master) register() error {
	var err error
	m.answer, err = m.client.Register(m.ctx, &masterv1.RegisterRequest{AppId: m.App, Attempt: m.Number})
	return err
}

// open opens a stream, and gives its first answers.
func (m *master) open() heard {
	m.Helper()
	stream, err := m.client.Allocate(m.ctx)
	if err != nil {
		m.Fatal(err)
	}
	m.stream, m.sequence, m.came = stream, 0, make(chan any, 1000)
	came := m.came
	go func() {
		for {
			answer, err := stream.Recv()
			if err != nil {
				came <- err
				return
			}
			came <- answer
		}
	}()
	return m.heard()
}

// start registers the app's next attempt and opens its stream.
func (s *suite) start() *master {
	s.Helper()
	m := s.attempt(s.Next())
	if err := m.register(); err != nil {
		s.Fatalf("register attempt %d: %v", m.Number, err)
	}
	m.open()
	return m
}

// heard is what has come on a stream since the last look.
type heard struct {
	allocated, completed, withdrawn []string
	grants                          []*masterv1.Allocation
	applied                         []int64
	wanted                          *masterv1.Wanted
	superseded                      bool
	// end is how the stream ended, nil if it did not.
	end error
}

func (m *master) heard() heard {
	synctest.Wait()
	var h heard
	for len(m.came) > 0 {
		switch came := (<-m.came).(type) {
		case error:
			h.end = came
		case *masterv1.AllocateResponse:
			h.grants = append(h.grants, came.GetAllocated()...)
			for _, grant := range came.GetAllocated() {
				h.allocated = append(h.allocated, grant.GetLease().GetContainerId())
			}
			for _, ended := range came.GetCompleted() {
				h.completed = append(h.completed, ended.GetLease().GetContainerId())
			}
			h.withdrawn = append(h.withdrawn, came.GetWithdrawn()...)
			if came.GetAppliedSequence() > 0 {
				h.applied = append(h.applied, came.GetAppliedSequence())
			}
			if came.GetWanted() != nil {
				h.wanted = came.GetWanted()
			}
			h.superseded = h.superseded || came.GetSuperseded()
		}
	}
	return h
}

func (m *master) send(request *masterv1.AllocateRequest) heard {
	m.Helper()
	m.sequence++
	request.Sequence = m.sequence
	if err := m.stream.Send(request); err != nil {
		m.Fatal(err)
	}
	return m.heard()
}

// ask is for so many containers of a fourth of a node's cpu.
func (m *master) ask(id string, count int32) *masterv1.Ask {
	return &masterv1.Ask{
		Id: id, Count: count, AvoidNodes: m.Avoid,
		Resources: &corev1.Resources{CpuMillis: 1000, MemoryBytes: 64 << 20, DiskBytes: 64 << 20, Ports: 1},
	}
}

// grant asks for one container and gives it.
func (m *master) grant(id string) string {
	m.Helper()
	h := m.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{m.ask(id, 1)}})
	if len(h.allocated) != 1 {
		m.Fatalf("%s was granted %v", id, h.allocated)
	}
	return h.allocated[0]
}

// probe is a node that does as the suite says.
type probe struct {
	*suite
	name    string
	client  trackerv1.ResourceTrackerClient
	answer  *trackerv1.RegisterResponse
	stream  trackerv1.ResourceTracker_SessionClient
	came    chan any
	cut     context.CancelFunc
	numbers map[string]int64
}

// node registers a node that has four cores, and opens its session.
func (s *suite) node(name string) *probe {
	s.Helper()
	n := &probe{suite: s, name: name, client: trackerv1.NewResourceTrackerClient(s.Conn), numbers: map[string]int64{}}
	n.register()
	n.open()
	return n
}

func (n *probe) register(containers ...*corev1.ContainerStatus) {
	n.Helper()
	answer, err := n.client.Register(n.ctx, &trackerv1.RegisterRequest{
		NodeId: n.name, Address: "10.0.0.1", ContainerManager: n.name + ":7071", Version: "test", Health: &corev1.NodeHealth{Healthy: true},
		Capacity: &corev1.Resources{CpuMillis: 4000, MemoryBytes: 4 << 30, DiskBytes: 40 << 30, Ports: 100},
		FolderId: "folder of " + n.name, ProcessId: "process of " + n.name, Containers: containers,
	})
	if err != nil {
		n.Fatalf("register %s: %v", n.name, err)
	}
	n.answer = answer
}

func (n *probe) open() {
	n.Helper()
	ctx, cancel := context.WithCancel(n.ctx)
	stream, err := n.client.Session(ctx)
	if err != nil {
		n.Fatal(err)
	}
	n.stream, n.cut, n.came = stream, cancel, make(chan any, 1000)
	_ = stream.Send(&trackerv1.NodeReport{Session: n.answer.GetSession()})
	came := n.came
	go func() {
		for {
			command, err := stream.Recv()
			if err != nil {
				came <- err
				return
			}
			came <- command
		}
	}()
	synctest.Wait()
}

// told is what has come since the last look, in words.
func (n *probe) told() (commands []string, end error) {
	synctest.Wait()
	for len(n.came) > 0 {
		switch came := (<-n.came).(type) {
		case error:
			end = came
		case *trackerv1.NodeCommand:
			switch {
			case came.GetStop() != nil:
				commands = append(commands, "stop "+came.GetStop().GetContainerId())
			case came.GetForget() != nil:
				commands = append(commands, "forget "+strings.Join(came.GetForget().GetContainerIds(), " "))
			}
		}
	}
	return commands, end
}

// report reports a container.
func (n *probe) report(container string, state corev1.ContainerStatus_State) {
	n.Helper()
	if err := n.stream.Send(&trackerv1.NodeReport{Containers: []*corev1.ContainerStatus{n.status(container, state)}}); err != nil {
		n.Fatal(err)
	}
	synctest.Wait()
}

func (n *probe) status(container string, state corev1.ContainerStatus_State) *corev1.ContainerStatus {
	n.numbers[container]++
	s := &corev1.ContainerStatus{
		Lease: &corev1.Lease{ContainerId: container}, State: state, Sequence: n.numbers[container], Labels: map[string]string{"instance": "one"},
	}
	switch state {
	case corev1.ContainerStatus_RUNNING:
		s.Health = corev1.ContainerStatus_HEALTHY
	case corev1.ContainerStatus_DONE:
		s.Exit = &corev1.Exit{Reason: corev1.Exit_STOPPED}
	}
	return s
}

func (s *suite) want(what string, got, want any) {
	s.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("%s: %v, want %v", what, got, want)
	}
}

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
	if first.answer.GetSpec().GetName() == "" || first.answer.GetWanted().GetGeneration() == 0 || first.answer.GetWanted().GetVersions()[first.answer.GetWanted().GetVersion()] == nil {
		s.Errorf("it was answered %v", first.answer)
	}
	first.open()
	second := s.attempt(s.Next())
	if first.heard().end == nil {
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
	if first.end != nil || first.wanted == nil {
		s.Errorf("the first answer is %+v", first)
	}
	earlier := m.came
	if second := m.open(); second.end != nil || second.wanted == nil {
		s.Errorf("the first answer of the second stream is %+v", second)
	}
	later := m.came
	m.came = earlier
	if m.heard().end == nil {
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

func waits(s *suite) {
	n := s.node("node-1")
	m := s.start()
	granted := m.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{m.ask("web", 5)}}).allocated
	s.want("of five on a node for four", len(granted), 4)
	n.report(granted[0], corev1.ContainerStatus_RUNNING)
	n.report(granted[0], corev1.ContainerStatus_DONE)
	s.want("once one has ended", len(m.heard().allocated), 1)
	m.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{m.ask("web", 6)}})
	s.node("node-2")
	s.want("once there is another node", len(m.heard().allocated), 1)
}

func repeatsGrants(s *suite) {
	n := s.node("node-1")
	m := s.start()
	started, silent := m.grant("started"), m.grant("silent")
	n.report(started, corev1.ContainerStatus_RUNNING)
	m.heard()
	s.want("on a new stream", m.open().allocated, []string{silent})
}

func releases(s *suite) {
	n := s.node("node-1")
	m := s.start()
	container := m.grant("web")
	n.report(container, corev1.ContainerStatus_RUNNING)
	n.told()
	s.want("its release ends it", m.send(&masterv1.AllocateRequest{Release: []string{container}}).completed, []string(nil))
	told, _ := n.told()
	s.want("the node is told", told, []string{"stop " + container})
	n.report(container, corev1.ContainerStatus_DONE)
	s.want("its end is told", m.heard().completed, []string{container})
	s.want("again on a new stream", m.open().completed, []string{container})
	m.send(&masterv1.AllocateRequest{Release: []string{container}})
	s.want("not once it is known", m.open().completed, []string(nil))
}

func tellsEnds(s *suite) {
	n := s.node("node-1")
	m := s.start()
	container := m.grant("web")
	n.report(container, corev1.ContainerStatus_RUNNING)
	n.report(container, corev1.ContainerStatus_DONE)
	s.want("its end is told", m.heard().completed, []string{container})
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
	told, _ := n.told()
	s.want("the node is told", told, []string(nil))
}

func dropsAsks(s *suite) {
	s.node("node-1")
	m := s.start()
	s.want("granted", len(m.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{m.ask("web", 5)}}).allocated), 4)
	next := s.start()
	s.node("node-2")
	s.want("granted to the next attempt, which asked for nothing", next.heard().allocated, []string(nil))
	s.want("granted to the next attempt", len(next.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{next.ask("more", 1)}}).allocated), 1)
}

func withdraws(s *suite) {
	n := s.node("node-1")
	m := s.start()
	container := m.grant("web")
	n.report(container, corev1.ContainerStatus_RUNNING)
	report := func(inService bool, state apiv1.Instance_State) heard {
		return m.send(&masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{{
			Id: "one", ContainerId: container, Version: 1, State: state, InService: inService, Weight: 100,
		}}})
	}
	s.want("in service", report(true, apiv1.Instance_RUNNING).withdrawn, []string(nil))
	s.want("out of service", report(false, apiv1.Instance_DRAINING).withdrawn, []string{"one"})
	s.want("on a new stream, while it drains", m.open().withdrawn, []string{"one"})
}

func registersNodes(s *suite) {
	n := s.node("node-1")
	if n.answer.GetSession() == "" || n.answer.GetEpoch() == 0 || n.answer.GetReportInterval().AsDuration() <= 0 || len(n.answer.GetKeys()) == 0 {
		s.Errorf("it was answered %v", n.answer)
	}
	if _, end := n.told(); end != nil {
		s.Errorf("its session ended: %v", end)
	}
	stranger := &probe{suite: s, client: n.client, answer: &trackerv1.RegisterResponse{Session: "nonsense"}}
	stranger.open()
	_, end := stranger.told()
	s.code("a session that nobody was given", end, codes.Aborted)
}

func replacesSessions(s *suite) {
	n := s.node("node-1")
	before := n.answer
	n.register()
	if n.answer.GetSession() == before.GetSession() {
		s.Error("it is given the same session again")
	}
	_, end := n.told()
	s.code("the stream of the session before", end, codes.Aborted)
	n.open()
	if _, end := n.told(); end != nil {
		s.Errorf("the stream of its session: %v", end)
	}
	later, session := n.came, n.answer
	n.answer = before
	n.open()
	_, end = n.told()
	s.code("a stream of the session before", end, codes.Aborted)
	n.answer, n.came = session, later
	n.open()
	second := n.came
	n.came = later
	_, end = n.told()
	s.code("the first of two streams of a session", end, codes.Aborted)
	n.came = second
	if _, end := n.told(); end != nil {
		s.Errorf("the second of two streams of a session: %v", end)
	}
}

func forgetsEnds(s *suite) {
	n := s.node("node-1")
	m := s.start()
	container := m.grant("web")
	n.report(container, corev1.ContainerStatus_RUNNING)
	n.told()
	n.report(container, corev1.ContainerStatus_DONE)
	told, _ := n.told()
	s.want("it is told", told, []string{"forget " + container})
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
	m.send(&masterv1.AllocateRequest{Release: []string{container}})
	n.open()
	told, _ := n.told()
	s.want("it is told", told, []string{"stop " + container})
	n.register(n.status(container, corev1.ContainerStatus_RUNNING))
	s.want("registered anew, it is to reap", n.answer.GetReap(), []string(nil))
	n.open()
	told, _ = n.told()
	s.want("it is told again", told, []string{"stop " + container})
	n.report(container, corev1.ContainerStatus_DONE)
	s.want("its end is told", m.heard().completed, []string{container})
}

func reaps(s *suite) {
	n := s.node("node-1")
	m := s.start()
	container := m.grant("web")
	n.report(container, corev1.ContainerStatus_RUNNING)
	n.report(container, corev1.ContainerStatus_DONE)
	m.send(&masterv1.AllocateRequest{Release: []string{container}})
	n.register(n.status(container, corev1.ContainerStatus_RUNNING))
	s.want("of a container whose end was seen", n.answer.GetReap(), []string{container})
}
