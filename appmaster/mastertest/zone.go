// Package mastertest is a simulated zone to test application masters and NodeManagers with: a ResourceManager with leases, asks, a
// registry and attempts, and nodes whose containers are simulated, beside which real NodeManagers may register. It serves the
// real protocols over in-memory connections and records every rule that a master breaks (Violations). It works inside a synctest
// bubble. Run is the suite that this ResourceManager passes, and the real one too.
package mastertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// reportInterval is how often NodeManagers are to report.
const reportInterval = time.Second

// Address is the ResourceManager's, for Dial.
const Address = "resourcemanager:7070"

// Zone is a ResourceManager and its nodes.
type Zone struct {
	masterv1.UnimplementedApplicationMasterServer
	app id.App
	// Name of the app.
	Name string

	mu sync.Mutex
	// managers are the real NodeManagers, by the names of their nodes.
	managers map[string]*Manager
	// keys are the token keys that they receive; refusal is the error of their registrations, nil if they succeed.
	keys    []*trackerv1.TokenKey
	refusal error
	// keepsEnds is true if the ends that they report are not acknowledged.
	keepsEnds bool
	servers   map[string]*grpc.Server
	listeners map[string]*bufconn.Listener
	nodes     map[string]*Node
	leases    map[string]*lease
	// ended are the exits that no master has acknowledged.
	ended     map[string]*corev1.ContainerStatus
	asks      map[string]*askState
	instances map[string]*masterv1.InstanceReport
	desired   *masterv1.DesiredState
	memo      []byte
	status    *apiv1.MasterStatus
	revisions []*masterv1.Revise
	// traffic is true if the master wants the traffic counts of balancers.
	traffic bool
	// commands are the commands without an answer.
	commands   []*command
	generation int64
	finished   bool
	// failed is true if the master ended the app as failed.
	failed  bool
	attempt int32
	// session is the stream of the registered master, nil if there is none.
	session           *session
	registered        bool
	keepsAsks         bool
	registeredAttempt int32
	sequence          int64
	// key is the number of the key that signs tokens. The one before it is valid too.
	key int32
	// down is true while the ResourceManager is stopped.
	down       bool
	closed     bool
	violations []string
}

type lease struct {
	allocation          *masterv1.Allocation
	node                *Node
	status              *corev1.ContainerStatus
	released            bool
	preemptionCancelled bool
}

type askState struct {
	ask     *masterv1.Ask
	granted int32
}

// command is a command with the channel for its answer.
type command struct {
	message *masterv1.Command
	answer  chan *masterv1.CommandAnswer
}

// session is one Allocate stream with what is to be sent next.
type session struct {
	pending *masterv1.AllocateResponse
	wake    chan struct{}
	cancel  context.CancelFunc
}

// NewZone returns a zone for one app, without nodes. It is closed with the test.
func NewZone(t testing.TB, app string) *Zone {
	z := &Zone{
		Name: app, app: id.App{ClusterStart: 1, Seq: 1},
		managers: map[string]*Manager{}, keys: []*trackerv1.TokenKey{{Id: 1, Secret: []byte("a secret of 32 bytes for testing!")}}, servers: map[string]*grpc.Server{}, listeners: map[string]*bufconn.Listener{}, nodes: map[string]*Node{},
		leases: map[string]*lease{}, ended: map[string]*corev1.ContainerStatus{}, asks: map[string]*askState{}, instances: map[string]*masterv1.InstanceReport{},
		desired: &masterv1.DesiredState{
			Version: 1, Generation: 1,
			Spec: &apiv1.AppSpec{Name: app, Roles: []*apiv1.RoleSpec{{}}},
		},
	}
	z.desired.Versions = map[int32]*apiv1.AppSpec{1: z.desired.GetSpec()}
	z.desired.Notes = []*masterv1.VersionNote{{Version: 1}}
	z.Start()
	t.Cleanup(z.close)
	return z
}

// Master begins a new attempt and returns its Config.
func (z *Zone) Master() appmaster.Config {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.attempt++
	z.registered = false
	z.closeSession()
	return appmaster.Config{ResourceManager: Address, AppID: z.app.String(), App: z.Name, Attempt: z.attempt, Token: z.token(z.attempt), Dial: z.Dial}
}

// KeepAsks grants the asks of an attempt also to the next one, which did not make them.
func (z *Zone) KeepAsks() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.keepsAsks = true
}

// SetDesired changes the desired state and raises the generation.
func (z *Zone) SetDesired(change func(*masterv1.DesiredState)) {
	z.mu.Lock()
	defer z.mu.Unlock()
	desired := proto.CloneOf(z.desired)
	change(desired)
	desired.Generation++
	z.want(desired)
}

// Deploy makes a new version the desired one.
func (z *Zone) Deploy(change func(*apiv1.RoleSpec)) {
	z.SetDesired(func(desired *masterv1.DesiredState) {
		change(desired.GetSpec().GetRoles()[0])
		desired.Version++
		anew(desired)
	})
}

// DeployRoles makes a new version with these roles the desired one.
func (z *Zone) DeployRoles(roles ...*apiv1.RoleSpec) {
	z.SetDesired(func(desired *masterv1.DesiredState) {
		desired.Spec.Roles = nil
		for _, role := range roles {
			desired.Spec.Roles = append(desired.Spec.Roles, proto.CloneOf(role))
		}
		desired.Version++
		anew(desired)
	})
}

// anew says of a version that it repeats none.
func anew(desired *masterv1.DesiredState) {
	desired.Revised, desired.FromVersion, desired.FromRoles = false, 0, nil
}

// Command hands a command to the master, and waits for its answer. It fails with the master's refusal.
func (z *Zone) Command(ctx context.Context, content *anypb.Any) (*anypb.Any, error) {
	z.mu.Lock()
	z.sequence++
	given := &command{
		message: &masterv1.Command{Id: fmt.Sprint("command ", z.sequence), By: `user "root"`, Command: content},
		answer:  make(chan *masterv1.CommandAnswer, 1),
	}
	z.commands = append(z.commands, given)
	z.send(func(answer *masterv1.AllocateResponse) { answer.Commands = append(answer.Commands, given.message) })
	z.mu.Unlock()
	select {
	case answer := <-given.answer:
		return answer.GetAnswer(), wire.Refused(answer.GetCode(), answer.GetRefusal())
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// answered passes a master's answer to the caller of Command.
func (z *Zone) answered(answer *masterv1.CommandAnswer) {
	for i, given := range z.commands {
		if given.message.GetId() == answer.GetId() {
			z.commands = slices.Delete(z.commands, i, i+1)
			given.answer <- answer
			return
		}
	}
}

// Restart stops the ResourceManager for a while, unless it is stopped. Its records are kept.
func (z *Zone) Restart(pause time.Duration) {
	if z.Stop() {
		time.AfterFunc(pause, z.Start)
	}
}

// RotateKey signs watch tokens with a new key. Of the earlier ones only the last stays valid.
func (z *Zone) RotateKey() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.key++
}

// CancelPreemption cancels the preemption of a container.
func (z *Zone) CancelPreemption(container string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if held, ok := z.leases[container]; ok {
		held.preemptionCancelled = true
		z.send(func(answer *masterv1.AllocateResponse) {
			answer.Preemptions = append(answer.Preemptions, &masterv1.PreemptionNotice{ContainerId: container, Withdrawn: true})
		})
	}
}

// Preempt sends a preemption notice and ends the container at the deadline.
func (z *Zone) Preempt(container string, notice time.Duration) {
	z.mu.Lock()
	defer z.mu.Unlock()
	deadline := time.Now().Add(notice)
	z.send(func(answer *masterv1.AllocateResponse) {
		answer.Preemptions = append(answer.Preemptions, &masterv1.PreemptionNotice{ContainerId: container, Deadline: timestamppb.New(deadline), Reason: "the lender wants it back"})
	})
	time.AfterFunc(notice, func() {
		z.mu.Lock()
		defer z.mu.Unlock()
		if held, ok := z.leases[container]; ok && !held.preemptionCancelled {
			held.node.end(container, &corev1.Exit{Reason: corev1.Exit_PREEMPTED, Message: "preempted"})
		}
	})
}

// Register serves ApplicationMaster.
func (z *Zone) Register(ctx context.Context, request *masterv1.RegisterRequest) (*masterv1.RegisterResponse, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if err := z.authenticate(ctx); err != nil {
		return nil, err
	}
	if request.GetAppId() != z.app.String() || request.GetAttempt() != z.attempt {
		return nil, status.Errorf(codes.InvalidArgument, "the token is that of attempt %d of %s", z.attempt, z.app)
	}
	z.closeSession()
	if z.registeredAttempt != request.GetAttempt() && !z.keepsAsks {
		maps.DeleteFunc(z.asks, func(_ string, state *askState) bool { return state.granted < state.ask.GetCount() })
	}
	z.registered, z.registeredAttempt = true, request.GetAttempt()
	answer := &masterv1.RegisterResponse{Spec: z.desired.GetSpec(), Desired: z.desired, Memo: z.memo}
	for _, container := range slices.Sorted(maps.Keys(z.leases)) {
		answer.Containers = append(answer.Containers, z.leases[container].repeated(z.key))
	}
	return answer, nil
}

// Allocate serves ApplicationMaster.
func (z *Zone) Allocate(stream masterv1.ApplicationMaster_AllocateServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	z.mu.Lock()
	if err := z.authenticate(ctx); err != nil || !z.registered {
		z.mu.Unlock()
		switch {
		case errors.Is(err, errSuperseded):
			return stream.Send(&masterv1.AllocateResponse{Superseded: true})
		case err != nil:
			return err
		}
		return status.Error(codes.FailedPrecondition, "register first")
	}
	z.closeSession()
	mine := &session{pending: &masterv1.AllocateResponse{Desired: z.desired}, wake: make(chan struct{}, 1), cancel: cancel}
	z.session = mine
	for _, name := range slices.Sorted(maps.Keys(z.nodes)) {
		mine.pending.Nodes = append(mine.pending.Nodes, z.nodes[name].update())
	}
	for _, name := range slices.Sorted(maps.Keys(z.leases)) {
		if held := z.leases[name]; held.status.GetState() == corev1.ContainerStatus_STATE_UNSPECIFIED && !held.released {
			mine.pending.Allocated = append(mine.pending.Allocated, held.repeated(z.key))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(z.ended)) {
		mine.pending.Completed = append(mine.pending.Completed, z.ended[name])
	}
	for _, name := range slices.Sorted(maps.Keys(z.instances)) {
		if report := z.instances[name]; !report.GetInService() && report.GetState() == apiv1.Instance_DRAINING {
			mine.pending.Withdrawn = append(mine.pending.Withdrawn, name)
		}
	}
	for _, given := range z.commands {
		mine.pending.Commands = append(mine.pending.Commands, given.message)
	}
	z.send(func(*masterv1.AllocateResponse) {})
	z.mu.Unlock()

	received := make(chan error, 1)
	go func() {
		for {
			request, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			z.mu.Lock()
			if z.session == mine {
				z.apply(request)
			}
			z.mu.Unlock()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return status.Error(codes.Unavailable, "the stream was replaced")
		case err := <-received:
			return err
		case <-mine.wake:
			z.mu.Lock()
			answer := mine.pending
			mine.pending = &masterv1.AllocateResponse{}
			z.mu.Unlock()
			if err := stream.Send(answer); err != nil {
				return err
			}
		}
	}
}

// Plan serves ApplicationMaster.
func (z *Zone) Plan(ctx context.Context, request *masterv1.PlanRequest) (*masterv1.PlanResponse, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if err := z.authenticate(ctx); err != nil {
		return nil, err
	}
	response := &masterv1.PlanResponse{}
	for _, ask := range request.GetAsks() {
		planned := &masterv1.PlannedAsk{}
		for _, name := range slices.Sorted(maps.Keys(z.nodes)) {
			for range min(z.nodes[name].room(ask), int(ask.GetCount())-len(planned.GetNodes())) {
				planned.Nodes = append(planned.Nodes, name)
			}
		}
		if len(planned.GetNodes()) < int(ask.GetCount()) {
			planned.Reason = "every node is full"
		}
		response.Planned = append(response.Planned, planned)
	}
	return response, nil
}

// Leave serves ApplicationMaster.
func (z *Zone) Leave(ctx context.Context, _ *masterv1.LeaveRequest) (*masterv1.LeaveResponse, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if err := z.authenticate(ctx); err != nil {
		return nil, err
	}
	z.closeSession()
	return &masterv1.LeaveResponse{}, nil
}

// Finish serves ApplicationMaster.
func (z *Zone) Finish(_ context.Context, request *masterv1.FinishRequest) (*masterv1.FinishResponse, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.finished, z.failed = true, request.GetFailed()
	clear(z.instances)
	for _, container := range slices.Sorted(maps.Keys(z.leases)) {
		z.release(container)
	}
	return &masterv1.FinishResponse{}, nil
}

func (z *Zone) apply(request *masterv1.AllocateRequest) {
	for _, ask := range request.GetAsks() {
		known, ok := z.asks[ask.GetId()]
		if !ok {
			known = &askState{}
			z.asks[ask.GetId()] = known
		}
		known.ask = ask
	}
	for _, report := range request.GetInstances() {
		before := z.instances[report.GetId()]
		z.instances[report.GetId()] = report
		if !report.GetInService() && (before.GetInService() || report.GetState() == apiv1.Instance_DRAINING) {
			z.send(func(answer *masterv1.AllocateResponse) { answer.Withdrawn = append(answer.Withdrawn, report.GetId()) })
		}
	}
	for _, instance := range request.GetGoneInstances() {
		delete(z.instances, instance)
	}
	for _, release := range request.GetRelease() {
		z.release(release.GetContainerId())
	}
	if request.GetStatus() != nil {
		z.status = request.GetStatus()
	}
	if request.GetMemo() != nil {
		z.memo = request.GetMemo()
		if len(z.memo) > 64<<10 {
			z.violation("a memo of %d bytes", len(z.memo))
		}
	}
	if request.Traffic != nil {
		z.traffic = request.GetTraffic()
	}
	for _, note := range request.GetNotes() {
		z.note(note)
	}
	if revise := request.GetRevise(); revise != nil {
		z.revisions = append(z.revisions, revise)
		z.revise(revise)
	}
	for _, answer := range request.GetAnswers() {
		z.answered(answer)
	}
	z.generation = max(z.generation, request.GetObservedGeneration())
	z.schedule()
	z.send(func(answer *masterv1.AllocateResponse) { answer.AppliedSequence = request.GetSequence() })
}

// note stores a note on a version, and sends the master all notes.
func (z *Zone) note(note *masterv1.VersionNote) {
	desired := proto.CloneOf(z.desired)
	i := slices.IndexFunc(desired.GetNotes(), func(n *masterv1.VersionNote) bool { return n.GetVersion() == note.GetVersion() })
	if i < 0 {
		return
	}
	desired.Notes[i] = &masterv1.VersionNote{
		Version: note.GetVersion(), CameUp: desired.Notes[i].GetCameUp() || note.GetCameUp(), Failure: note.GetFailure(),
	}
	z.want(desired)
}

// revise makes the spec of an earlier version the desired one, or that of some of its roles. The counts of instances stay.
func (z *Zone) revise(revise *masterv1.Revise) {
	earlier, known := z.desired.GetVersions()[revise.GetToVersion()]
	if revise.GetVersion() != z.desired.GetVersion() || !known {
		return
	}
	desired := proto.CloneOf(z.desired)
	roles := map[string]*apiv1.RoleSpec{}
	for _, role := range proto.CloneOf(earlier).GetRoles() {
		roles[role.GetName()] = role
	}
	if len(revise.GetRoles()) == 0 {
		desired.Spec = proto.CloneOf(earlier)
	}
	for i, role := range desired.GetSpec().GetRoles() {
		if len(revise.GetRoles()) == 0 || slices.Contains(revise.GetRoles(), role.GetName()) {
			if roles[role.GetName()] == nil {
				return
			}
			desired.Spec.Roles[i] = roles[role.GetName()]
		}
		for _, present := range z.desired.GetSpec().GetRoles() {
			if present.GetName() == role.GetName() {
				desired.Spec.Roles[i].Instances = present.GetInstances()
			}
		}
	}
	desired.Version++
	desired.Generation++
	desired.Revised, desired.FromVersion, desired.FromRoles = true, revise.GetToVersion(), revise.GetRoles()
	z.want(desired)
}

// want sets the desired state.
func (z *Zone) want(desired *masterv1.DesiredState) {
	version := desired.GetVersion()
	desired.Versions[version] = proto.CloneOf(desired.GetSpec())
	if !slices.ContainsFunc(desired.GetNotes(), func(n *masterv1.VersionNote) bool { return n.GetVersion() == version }) {
		desired.Notes = append(desired.Notes, &masterv1.VersionNote{Version: version})
	}
	z.desired = desired
	z.send(func(answer *masterv1.AllocateResponse) { answer.Desired = desired })
}

func (z *Zone) release(container string) {
	delete(z.ended, container)
	held, ok := z.leases[container]
	if !ok || held.released {
		return
	}
	held.released = true
	if instance := held.status.GetLabels()["instance"]; instance != "" {
		report := z.instances[instance]
		if serving(held.status) && report.GetContainerId() == container && report.GetInService() && held.node.reachable() {
			z.violation("%s was stopped while it was in the registry", instance)
		}
	}
	if held.node.reachable() {
		held.node.stop(container)
	}
}

// schedule grants asks, each on the node with the fewest containers.
func (z *Zone) schedule() {
	for _, name := range slices.Sorted(maps.Keys(z.asks)) {
		state := z.asks[name]
		if state.ask.GetGang() && int(state.ask.GetCount()-state.granted) > z.room(state.ask) {
			continue
		}
		for state.granted < state.ask.GetCount() {
			var best *Node
			for _, node := range slices.Sorted(maps.Keys(z.nodes)) {
				n := z.nodes[node]
				if n.room(state.ask) > 0 && (best == nil || n.held < best.held) {
					best = n
				}
			}
			if best == nil {
				break
			}
			state.granted++
			z.grant(state.ask, best)
		}
	}
}

// room is how many containers of an ask fit on all nodes.
func (z *Zone) room(ask *masterv1.Ask) int {
	sum := 0
	for _, n := range z.nodes {
		sum += max(0, n.room(ask))
	}
	return sum
}

func (z *Zone) grant(ask *masterv1.Ask, node *Node) {
	z.sequence++
	container := id.Container{Epoch: 1, App: z.app, Seq: z.sequence}.String()
	granted := &corev1.Lease{
		ContainerId: container, AppId: z.app.String(), AppName: z.Name, Attempt: z.attempt, NodeId: node.Name,
		Resources: ask.GetResources(), AskId: ask.GetId(), Role: ask.GetRole(), GrantedAt: timestamppb.Now(),
	}
	claims, _ := proto.Marshal(&corev1.TokenClaims{Scope: corev1.TokenClaims_CONTAINER, Lease: granted, NodeId: node.Name})
	watch, _ := proto.Marshal(&corev1.TokenClaims{Scope: corev1.TokenClaims_APP, AppId: z.app.String(), NodeId: node.Name})
	allocation := &masterv1.Allocation{
		Lease: granted, Token: &corev1.ContainerToken{Claims: claims}, WatchToken: &corev1.ContainerToken{Claims: watch, KeyId: z.key},
		ContainerManager: node.address,
	}
	node.held++
	z.leases[container] = &lease{allocation: allocation, node: node, status: &corev1.ContainerStatus{Lease: granted}}
	z.send(func(answer *masterv1.AllocateResponse) { answer.Allocated = append(answer.Allocated, allocation) })
}

// report records a node's status of a container.
func (z *Zone) report(container *corev1.ContainerStatus) {
	name := container.GetLease().GetContainerId()
	held, ok := z.leases[name]
	if !ok {
		return
	}
	held.status = container
	if container.GetState() != corev1.ContainerStatus_DONE {
		return
	}
	delete(z.leases, name)
	z.ended[name] = container
	held.node.held--
	delete(held.node.containers, name)
	z.send(func(answer *masterv1.AllocateResponse) { answer.Completed = append(answer.Completed, container) })
	z.schedule()
}

// send adds to the next answer to the master.
func (z *Zone) send(add func(answer *masterv1.AllocateResponse)) {
	if z.session == nil {
		return
	}
	add(z.session.pending)
	select {
	case z.session.wake <- struct{}{}:
	default:
	}
}

func (z *Zone) closeSession() {
	if z.session != nil {
		z.session.cancel()
		z.session = nil
	}
}

func (z *Zone) violation(format string, arguments ...any) {
	z.violations = append(z.violations, fmt.Sprintf(format, arguments...))
}

func (z *Zone) serve(address string, register func(*grpc.Server)) {
	server := credentials.NewServer(16 << 20)
	register(server)
	listener := bufconn.Listen(64 << 10)
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.closed {
		return
	}
	z.servers[address], z.listeners[address] = server, listener
	go func() { _ = server.Serve(listener) }()
}

func (z *Zone) stop(address string) {
	z.mu.Lock()
	server := z.servers[address]
	delete(z.servers, address)
	delete(z.listeners, address)
	z.mu.Unlock()
	if server != nil {
		server.Stop()
	}
}

// Dial connects to whoever listens at an address of the zone.
func (z *Zone) Dial(ctx context.Context, address string) (net.Conn, error) {
	z.mu.Lock()
	listener := z.listeners[address]
	z.mu.Unlock()
	if listener == nil {
		return nil, fmt.Errorf("no server listens on %s", address)
	}
	return listener.DialContext(ctx)
}

func (z *Zone) close() {
	z.mu.Lock()
	z.closed = true
	addresses := slices.Collect(maps.Keys(z.servers))
	for _, node := range z.nodes {
		node.cancel()
	}
	z.mu.Unlock()
	for _, address := range addresses {
		z.stop(address)
	}
}

var _ nodev1.ContainerManagerServer = (*Node)(nil)
