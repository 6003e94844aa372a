package mastertest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"google.golang.org/protobuf/types/known/anypb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// Subject is a ResourceManager under test. It has one app, without an attempt.
type Subject struct {
	// Conn is a connection to it.
	Conn *grpc.ClientConn
	// Restart restarts it with what it has stored, and returns a new connection to it.
	Restart func() *grpc.ClientConn
	// Next ends the app's attempt, if there is one, and starts the next.
	Next func() Attempt
	// Command hands a command to the app's master, and waits for its answer.
	Command func(context.Context, *anypb.Any) (*anypb.Any, error)
	// Deploy makes a version of the app with these roles.
	Deploy func(...*apiv1.RoleSpec)
	// Status is the app's newest master status as people are shown it.
	Status func() *apiv1.MasterStatus
	// Avoid are nodes of its own, on which the suite asks for nothing.
	Avoid []string
}

// Attempt is what a master knows of its attempt.
type Attempt struct {
	App    string
	Number int32
	Token  string
}

// Run tests what every ResourceManager has to do for application masters and NodeManagers. Each case opens a Subject of its own, in
// a synctest bubble.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for name, test := range map[string]func(*suite){
		"an attempt registers with its own token, and only the newest may":              registers,
		"a stream is opened after the registration, and a second one ends the first":    opens,
		"requests are confirmed by their number":                                        confirmsRequests,
		"an ask counts what is granted under it in total":                               countsAsks,
		"a lease has the role of its ask":                                               leasesHaveARole,
		"an ask may be for more than there is, and waits":                               waits,
		"a gang is granted whole or not at all":                                         grantsGangs,
		"a grant that a node was not asked to start is repeated on a new stream":        repeatsGrants,
		"a release stops a container, and its end is repeated until it is acknowledged": releases,
		"the end of a container that ends by itself is reported too":                    reportsEnds,
		"the next attempt is handed what the last one held":                             handsOver,
		"the asks of an attempt end with it":                                            dropsAsks,
		"a restart loses nothing that was granted":                                      restarts,
		"an instance that leaves service is withdrawn":                                  withdraws,
		"a command is repeated on a new stream until it is answered":                    handsOverCommands,
		"the status of a master is shown, whatever its framework is":                    showsStatuses,
		"a master makes an earlier version the desired one again, or some of its roles": revises,
		"asks are planned, and nothing is granted":                                      plans,
		"an attempt that leaves hands over what it holds":                               leaves,
		"a node that registers is given a session, keys and an interval":                registersNodes,
		"a node's session is the last one that it was given":                            replacesSessions,
		"an end that a node reports is stored, and need not be reported again":          forgetsEnds,
		"a node that was away receives its stops again":                                 repeatsStops,
		"a node that still has a container whose end was seen is told to end it":        reaps,
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

// master is an application master that the suite drives.
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

// open opens a stream and returns its first answers.
func (m *master) open() received {
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
	return m.received()
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

// received is what has come on a stream since the last call.
type received struct {
	allocated, completed, withdrawn []string
	grants                          []*masterv1.Allocation
	applied                         []int64
	commands                        []*masterv1.Command
	desired                         *masterv1.DesiredState
	superseded                      bool
	// end is how the stream ended, nil if it did not.
	end error
}

func (m *master) received() received {
	synctest.Wait()
	var h received
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
			h.commands = append(h.commands, came.GetCommands()...)
			if came.GetAppliedSequence() > 0 {
				h.applied = append(h.applied, came.GetAppliedSequence())
			}
			if came.GetDesired() != nil {
				h.desired = came.GetDesired()
			}
			h.superseded = h.superseded || came.GetSuperseded()
		}
	}
	return h
}

func (m *master) send(request *masterv1.AllocateRequest) received {
	m.Helper()
	m.sequence++
	request.Sequence = m.sequence
	if err := m.stream.Send(request); err != nil {
		m.Fatal(err)
	}
	return m.received()
}

// ask is an ask for count containers, each with a quarter of a node's cpu.
func (m *master) ask(id string, count int32) *masterv1.Ask {
	return &masterv1.Ask{
		Id: id, Count: count, AvoidNodes: m.Avoid,
		Resources: &corev1.Resources{CpuMillis: 1000, MemoryBytes: 64 << 20, DiskBytes: 64 << 20, Ports: 1},
	}
}

// grant asks for one container and returns it.
func (m *master) grant(id string) string {
	m.Helper()
	h := m.send(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{m.ask(id, 1)}})
	if len(h.allocated) != 1 {
		m.Fatalf("%s was granted %v", id, h.allocated)
	}
	return h.allocated[0]
}

// testNode is a node that the suite drives.
type testNode struct {
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
func (s *suite) node(name string) *testNode {
	s.Helper()
	n := &testNode{suite: s, name: name, client: trackerv1.NewResourceTrackerClient(s.Conn), numbers: map[string]int64{}}
	n.register()
	n.open()
	return n
}

func (n *testNode) register(containers ...*corev1.ContainerStatus) {
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

func (n *testNode) open() {
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

// received lists the commands that have come since the last call, and how the stream ended.
func (n *testNode) received() (commands []string, end error) {
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
func (n *testNode) report(container string, state corev1.ContainerStatus_State) {
	n.Helper()
	if err := n.stream.Send(&trackerv1.NodeReport{Containers: []*corev1.ContainerStatus{n.status(container, state)}}); err != nil {
		n.Fatal(err)
	}
	synctest.Wait()
}

func (n *testNode) status(container string, state corev1.ContainerStatus_State) *corev1.ContainerStatus {
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
