package mastertest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// Manager is what the zone knows of a real NodeManager, as opposed to a Node with simulated containers. Its Zone's lock guards it.
type Manager struct {
	zone *Zone
	node *Node
	// session is its newest session, and link the stream of that; nil if there is none.
	session string
	link    *link

	registrations []*trackerv1.RegisterRequest
	// reports is how many reports came on its streams.
	reports  int
	statuses map[string]*corev1.ContainerStatus
	states   map[string][]corev1.ContainerStatus_State
	health   *corev1.NodeHealth
	capacity *corev1.Resources
	// late are commands that wait for the next stream.
	late []*trackerv1.NodeCommand
	// reap are containers that its next registrations are to reap, whatever the zone knows of them.
	reap []string
}

// link is one stream of a NodeManager.
type link struct {
	commands chan *trackerv1.NodeCommand
	over     chan error
}

// Manager is the NodeManager of a node. It need not have registered yet.
func (z *Zone) Manager(node string) *Manager {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.manager(node)
}

func (z *Zone) manager(node string) *Manager {
	m := z.managers[node]
	if m == nil {
		m = &Manager{zone: z, statuses: map[string]*corev1.ContainerStatus{}, states: map[string][]corev1.ContainerStatus_State{}}
		z.managers[node] = m
	}
	return m
}

// SetKeys sets the keys that NodeManagers are given when they register.
func (z *Zone) SetKeys(keys ...*trackerv1.TokenKey) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.keys = keys
}

// RefuseNodes makes registrations of NodeManagers fail, until it is called with nil.
func (z *Zone) RefuseNodes(why error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.refusal = why
}

// KeepEnds stops the zone from acknowledging ends as they are reported: NodeManagers have to report them until a Forget command is sent with
// Command, or a registration's answer has them to reap.
func (z *Zone) KeepEnds() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.keepsEnds = true
}

// tracker serves ResourceTracker.
type tracker struct {
	trackerv1.UnimplementedResourceTrackerServer
	zone *Zone
}

// Register serves ResourceTracker.
func (t tracker) Register(_ context.Context, request *trackerv1.RegisterRequest) (*trackerv1.RegisterResponse, error) {
	z := t.zone
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.refusal != nil {
		return nil, z.refusal
	}
	m := z.manager(request.GetNodeId())
	m.closeStream(status.Error(codes.Aborted, "the node has registered anew"))
	m.registrations = append(m.registrations, request)
	m.session = fmt.Sprintf("session %d of %s", len(m.registrations), request.GetNodeId())
	m.health, m.capacity = request.GetHealth(), request.GetCapacity()
	m.join(request)
	m.recordStatuses(request.GetContainers())
	answer := &trackerv1.RegisterResponse{
		Zone: "test", Epoch: 1, Session: m.session, ReportInterval: durationpb.New(reportInterval), Keys: z.keys, Reap: slices.Clone(m.reap),
	}
	for _, container := range request.GetContainers() {
		name := container.GetLease().GetContainerId()
		if z.leaseOver(name) || container.GetState() == corev1.ContainerStatus_DONE && !z.keepsEnds {
			answer.Reap = append(answer.Reap, name)
		}
	}
	return answer, nil
}

// join makes the node available for grants.
func (m *Manager) join(request *trackerv1.RegisterRequest) {
	z := m.zone
	if m.node == nil {
		ctx, cancel := context.WithCancel(context.Background())
		m.node = &Node{
			Name: request.GetNodeId(), zone: z, manager: m, state: apiv1.NodeState_READY, containers: map[string]*running{}, ctx: ctx, cancel: cancel,
		}
		z.nodes[m.node.Name] = m.node
	}
	m.node.address = request.GetContainerManager()
	z.send(func(due *masterv1.AllocateResponse) { due.Nodes = append(due.Nodes, m.node.update()) })
	z.schedule()
}

// leaseOver reports whether the zone has granted a container and its lease has ended.
func (z *Zone) leaseOver(name string) bool {
	container, err := id.ParseContainer(name)
	return err == nil && container.App == z.app && container.Seq <= z.sequence && z.leases[name] == nil
}

// Session serves ResourceTracker.
func (t tracker) Session(stream grpc.BidiStreamingServer[trackerv1.NodeReport, trackerv1.NodeCommand]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	z := t.zone
	z.mu.Lock()
	m := z.inSession(first.GetSession())
	if m == nil {
		z.mu.Unlock()
		return status.Error(codes.Aborted, "this session is over; the node has to register again")
	}
	m.closeStream(status.Error(codes.Aborted, "the node has opened another stream"))
	mine := &link{commands: make(chan *trackerv1.NodeCommand, 1000), over: make(chan error, 1)}
	m.link = mine
	for _, name := range slices.Sorted(maps.Keys(z.leases)) {
		if held := z.leases[name]; held.node == m.node && held.released {
			m.stop(name, corev1.Exit_STOPPED)
		}
	}
	for _, command := range m.late {
		m.command(command)
	}
	m.late = nil
	m.receive(mine, first)
	z.mu.Unlock()

	received := make(chan error, 1)
	go func() {
		for {
			report, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			z.mu.Lock()
			m.receive(mine, report)
			z.mu.Unlock()
		}
	}()
	for {
		select {
		case err := <-mine.over:
			return err
		case err := <-received:
			return err
		case <-stream.Context().Done():
			return stream.Context().Err()
		case command := <-mine.commands:
			if err := stream.Send(command); err != nil {
				return err
			}
		}
	}
}

// inSession returns the NodeManager of a session; nil if the session is over.
func (z *Zone) inSession(session string) *Manager {
	for _, m := range z.managers {
		if m.session != "" && m.session == session {
			return m
		}
	}
	return nil
}

// receive applies a report that came on a stream.
func (m *Manager) receive(on *link, report *trackerv1.NodeReport) {
	if m.link != on {
		return
	}
	m.reports++
	if report.GetHealth() != nil {
		m.health = report.GetHealth()
	}
	m.recordStatuses(report.GetContainers())
	var ended []string
	for _, container := range report.GetContainers() {
		if container.GetState() == corev1.ContainerStatus_DONE && !m.zone.keepsEnds {
			ended = append(ended, container.GetLease().GetContainerId())
		}
	}
	if len(ended) > 0 {
		m.command(&trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Forget_{Forget: &trackerv1.NodeCommand_Forget{ContainerIds: ended}}})
	}
}

// recordStatuses stores the statuses of a report.
func (m *Manager) recordStatuses(statuses []*corev1.ContainerStatus) {
	for _, container := range statuses {
		name := container.GetLease().GetContainerId()
		m.statuses[name] = container
		if states := m.states[name]; len(states) == 0 || states[len(states)-1] != container.GetState() {
			m.states[name] = append(states, container.GetState())
		}
		if held := m.zone.leases[name]; held != nil && held.node == m.node {
			m.zone.report(container)
		}
	}
}

// room is how many more containers of an ask fit on its node, by cpu.
func (m *Manager) room(ask *masterv1.Ask) int {
	free := m.capacity.GetCpuMillis()
	for _, held := range m.zone.leases {
		if held.node == m.node {
			free -= held.allocation.GetLease().GetResources().GetCpuMillis()
		}
	}
	return int(max(0, free) / max(1, ask.GetResources().GetCpuMillis()))
}

func (m *Manager) stop(container string, reason corev1.Exit_Reason) {
	m.command(&trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Stop_{Stop: &trackerv1.NodeCommand_Stop{
		ContainerId: container, Reason: reason, Message: "its application master gave it back",
	}}})
}

// command sends a command, if there is a stream.
func (m *Manager) command(command *trackerv1.NodeCommand) {
	if m.link != nil {
		m.link.commands <- command
	}
}

func (m *Manager) closeStream(why error) {
	if m.link != nil {
		m.link.over <- why
		m.link = nil
	}
}

// Command sends a command of the test, now or on the next stream.
func (m *Manager) Command(command *trackerv1.NodeCommand) {
	m.zone.mu.Lock()
	defer m.zone.mu.Unlock()
	if m.link == nil {
		m.late = append(m.late, command)
		return
	}
	m.command(command)
}

// Break ends its stream with an error.
func (m *Manager) Break(why error) {
	m.zone.mu.Lock()
	defer m.zone.mu.Unlock()
	m.closeStream(why)
}

// Reap sets the containers that the answers to its next registrations reap.
func (m *Manager) Reap(containers ...string) {
	m.zone.mu.Lock()
	defer m.zone.mu.Unlock()
	m.reap = containers
}

// Registrations lists its registrations, the newest last.
func (m *Manager) Registrations() []*trackerv1.RegisterRequest {
	m.zone.mu.Lock()
	defer m.zone.mu.Unlock()
	return slices.Clone(m.registrations)
}

// Reports is the number of reports on its streams.
func (m *Manager) Reports() int {
	m.zone.mu.Lock()
	defer m.zone.mu.Unlock()
	return m.reports
}

// Status is its newest report of a container; nil if there is none.
func (m *Manager) Status(container string) *corev1.ContainerStatus {
	m.zone.mu.Lock()
	defer m.zone.mu.Unlock()
	return m.statuses[container]
}

// States lists the states of a container in the order in which they were reported.
func (m *Manager) States(container string) []corev1.ContainerStatus_State {
	m.zone.mu.Lock()
	defer m.zone.mu.Unlock()
	return slices.Clone(m.states[container])
}

// ForgetStatus deletes its newest report of a container.
func (m *Manager) ForgetStatus(container string) {
	m.zone.mu.Lock()
	defer m.zone.mu.Unlock()
	delete(m.statuses, container)
}

// Health is the newest health that it has reported.
func (m *Manager) Health() *corev1.NodeHealth {
	m.zone.mu.Lock()
	defer m.zone.mu.Unlock()
	return m.health
}
