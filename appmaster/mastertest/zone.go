// Package mastertest is a simulated zone to test application masters and NodeManagers with: a ResourceManager with leases, asks, a
// registry and attempts, and nodes whose containers are simulated, beside which real NodeManagers may register. It serves the
// real protocols over in-memory connections and records every rule that a master breaks (Violations). It works inside a synctest
// bubble. Run is the suite that this ResourceManager passes, and the real one too.
package mastertest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// reportInterval is how often NodeManagers are to report.
const reportInterval = time.Second

// Address is the ResourceManager's, for Dial.
const Address = "resourcemanager:7070"

// Zone is a ResourceManager and its nodes.
type Zone struct {
	app id.App
	// App is the name of the app.
	App string

	network *network

	mu sync.Mutex
	// managers are the real NodeManagers, by the names of their nodes.
	managers map[string]*Manager
	// keys are the token keys that they receive; refusal is the error of their registrations, nil if they succeed.
	keys    []*trackerv1.TokenKey
	refusal error
	// keepsEnds is true if the ends that they report are not acknowledged.
	keepsEnds bool
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
	// stream is the stream of the registered master, nil if there is none.
	stream            *masterStream
	registered        bool
	keepsAsks         bool
	registeredAttempt int32
	sequence          int64
	// key is the number of the key that signs tokens. The one before it is valid too.
	key int32
	// down is true while the ResourceManager is stopped.
	down       bool
	violations []string
}

type lease struct {
	allocation *masterv1.Allocation
	node       *Node
	status     *corev1.ContainerStatus
	released   bool
	// preemption counts the notices and cancellations that it was sent.
	preemption int
}

type askState struct {
	ask     *masterv1.Ask
	granted int32
}

// NewZone returns a zone for one app, without nodes. It is closed with the test.
func NewZone(t testing.TB, app string) *Zone {
	z := &Zone{
		App: app, app: id.App{ClusterStart: 1, Seq: 1}, network: newNetwork(),
		managers: map[string]*Manager{}, keys: []*trackerv1.TokenKey{{Id: 1, Secret: []byte("a secret of 32 bytes for testing!")}}, nodes: map[string]*Node{},
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
	z.closeMasterStream()
	return appmaster.Config{ResourceManager: Address, AppID: z.app.String(), App: z.App, Attempt: z.attempt, Token: bearer(z.attempt), Dial: z.Dial}
}

// KeepAsks grants the asks of an attempt also to the next one, which did not make them.
func (z *Zone) KeepAsks() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.keepsAsks = true
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
		held.preemption++
		z.send(func(answer *masterv1.AllocateResponse) {
			answer.Preemptions = append(answer.Preemptions, &masterv1.PreemptionNotice{ContainerId: container, Withdrawn: true})
		})
	}
}

// Preempt sends a preemption notice, and ends the container at the deadline unless the preemption was cancelled or another followed.
func (z *Zone) Preempt(container string, notice time.Duration) {
	z.mu.Lock()
	defer z.mu.Unlock()
	held, ok := z.leases[container]
	if !ok {
		return
	}
	held.preemption++
	this, deadline := held.preemption, time.Now().Add(notice)
	z.send(func(answer *masterv1.AllocateResponse) {
		answer.Preemptions = append(answer.Preemptions, &masterv1.PreemptionNotice{ContainerId: container, Deadline: timestamppb.New(deadline), Reason: "the lender wants it back"})
	})
	time.AfterFunc(notice, func() {
		z.mu.Lock()
		defer z.mu.Unlock()
		if held, ok := z.leases[container]; ok && held.preemption == this {
			held.node.end(container, &corev1.Exit{Reason: corev1.Exit_PREEMPTED, Message: "preempted"})
		}
	})
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
		ContainerId: container, AppId: z.app.String(), AppName: z.App, Attempt: z.attempt, NodeId: node.Name,
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
	if z.stream == nil {
		return
	}
	add(z.stream.pending)
	select {
	case z.stream.wake <- struct{}{}:
	default:
	}
}

func (z *Zone) closeMasterStream() {
	if z.stream != nil {
		z.stream.cancel()
		z.stream = nil
	}
}

func (z *Zone) violation(format string, arguments ...any) {
	z.violations = append(z.violations, fmt.Sprintf(format, arguments...))
}

// Dial connects to the server at an address of the zone: the ResourceManager's, or a node's.
func (z *Zone) Dial(ctx context.Context, address string) (net.Conn, error) {
	return z.network.dial(ctx, address)
}

func (z *Zone) close() {
	z.mu.Lock()
	for _, node := range z.nodes {
		node.cancel()
	}
	z.mu.Unlock()
	z.network.close()
}
