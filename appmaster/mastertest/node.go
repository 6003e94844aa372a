package mastertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
)

// Node is a NodeManager that simulates its containers. Its Zone's lock guards it.
type Node struct {
	nodev1.UnimplementedContainerManagerServer
	Name string
	// Capacity is how many containers fit on it.
	Capacity int

	// manager is a real NodeManager in the place of this one; nil if there is none.
	manager    *Manager
	behave     func(*corev1.ContainerSpec) Behaviour
	zone       *Zone
	address    string
	port       int
	state      apiv1.NodeState
	held       int
	containers map[string]*running
	watchers   map[chan *corev1.ContainerStatus]bool
	ctx        context.Context
	cancel     context.CancelFunc
	// starts is how many containers were started.
	starts int
}

// Behaviour is what happens after a container is started.
type Behaviour struct {
	// Refuse is the error with which the start is refused.
	Refuse error
	// Launch is the time until the container runs. Healthy is the time from then until it is healthy; zero is never.
	Launch, Healthy time.Duration
	// LaunchFails ends the container before it runs.
	LaunchFails bool
	// Exit is the time until the running container ends; zero is never.
	Exit time.Duration
	// Succeeds gives the exit code 0 instead of 1.
	Succeeds bool
}

// Normal containers run and become healthy soon.
func Normal(*corev1.ContainerSpec) Behaviour {
	return Behaviour{Launch: 50 * time.Millisecond, Healthy: 50 * time.Millisecond}
}

type running struct {
	status *corev1.ContainerStatus
	spec   *corev1.ContainerSpec
}

// AddNode adds a node to the zone.
func (z *Zone) AddNode(name string, capacity int) *Node {
	ctx, cancel := context.WithCancel(context.Background())
	n := &Node{
		Name: name, Capacity: capacity, zone: z, behave: Normal, state: apiv1.NodeState_READY, containers: map[string]*running{},
		watchers: map[chan *corev1.ContainerStatus]bool{}, ctx: ctx, cancel: cancel,
	}
	n.open()
	z.mu.Lock()
	defer z.mu.Unlock()
	z.nodes[name] = n
	z.send(func(due *masterv1.AllocateResponse) { due.Nodes = append(due.Nodes, n.update()) })
	z.schedule()
	return n
}

// Restart restarts the NodeManager on another address. Its containers keep running.
func (n *Node) Restart() {
	n.close()
	n.open()
	n.zone.mu.Lock()
	defer n.zone.mu.Unlock()
	n.zone.send(func(due *masterv1.AllocateResponse) { due.Nodes = append(due.Nodes, n.update()) })
}

// Lose disconnects the node. Its containers keep running unseen.
func (n *Node) Lose() {
	n.close()
	n.Set(apiv1.NodeState_LOST)
}

// Return reconnects a lost node, which stops what was released meanwhile.
func (n *Node) Return() {
	n.open()
	n.Set(apiv1.NodeState_READY)
	n.zone.mu.Lock()
	defer n.zone.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(n.zone.leases)) {
		held := n.zone.leases[name]
		if held.node != n {
			continue
		}
		if container, ok := n.containers[name]; ok {
			n.zone.report(container.status)
		}
		if held.released {
			n.stop(name)
		}
	}
}

// Set sets the state that the ResourceManager has for the node.
func (n *Node) Set(state apiv1.NodeState) {
	n.zone.mu.Lock()
	defer n.zone.mu.Unlock()
	n.state = state
	n.zone.send(func(due *masterv1.AllocateResponse) { due.Nodes = append(due.Nodes, n.update()) })
	n.zone.schedule()
}

// SetBehaviour sets the behaviour of containers that are started from now on; the default is Normal.
func (n *Node) SetBehaviour(behave func(*corev1.ContainerSpec) Behaviour) {
	n.zone.mu.Lock()
	defer n.zone.mu.Unlock()
	n.behave = behave
}

// Start serves ContainerManager.
func (n *Node) Start(_ context.Context, request *nodev1.StartRequest) (*nodev1.StartResponse, error) {
	n.zone.mu.Lock()
	defer n.zone.mu.Unlock()
	claims := &corev1.TokenClaims{}
	if err := proto.Unmarshal(request.GetToken().GetClaims(), claims); err != nil || claims.GetNodeId() != n.Name {
		return nil, status.Error(codes.Unauthenticated, "that is no token for this node")
	}
	name := claims.GetLease().GetContainerId()
	if known, ok := n.containers[name]; ok {
		return &nodev1.StartResponse{Status: known.status}, nil
	}
	if held, ok := n.zone.leases[name]; !ok || held.released {
		return nil, status.Errorf(codes.FailedPrecondition, "container %s has no lease", name)
	}
	behaviour := n.behave(request.GetSpec())
	if behaviour.Refuse != nil {
		return nil, behaviour.Refuse
	}
	n.checkDuplicate(request.GetSpec().GetLabels()["instance"])
	n.starts++
	container := &running{spec: request.GetSpec(), status: &corev1.ContainerStatus{
		Lease: claims.GetLease(), State: corev1.ContainerStatus_LOCALIZING, Labels: request.GetSpec().GetLabels(),
	}}
	n.containers[name] = container
	n.change(name, func(*corev1.ContainerStatus) {})
	n.after(behaviour.Launch, name, func() { n.launch(name, behaviour) })
	return &nodev1.StartResponse{Status: container.status}, nil
}

// checkDuplicate records a violation if the instance already runs on a reachable node.
func (n *Node) checkDuplicate(instance string) {
	for _, node := range n.zone.nodes {
		for name, other := range node.containers {
			if instance != "" && other.status.GetLabels()["instance"] == instance && node.reachable() {
				if held, ok := n.zone.leases[name]; !ok || !held.released {
					n.zone.violation("%s was started while %s runs as %s", instance, name, instance)
				}
			}
		}
	}
}

func (n *Node) launch(name string, behaviour Behaviour) {
	if behaviour.LaunchFails {
		n.end(name, &corev1.Exit{Reason: corev1.Exit_LAUNCH_FAILED, Code: -1, Message: "no free port"})
		return
	}
	n.change(name, func(s *corev1.ContainerStatus) {
		s.State, s.Health, s.StartedAt = corev1.ContainerStatus_RUNNING, corev1.ContainerStatus_STARTING, timestamppb.Now()
	})
	if behaviour.Healthy > 0 {
		n.after(behaviour.Healthy, name, func() {
			n.change(name, func(s *corev1.ContainerStatus) {
				s.Health, s.HealthySince = corev1.ContainerStatus_HEALTHY, timestamppb.Now()
			})
		})
	}
	if behaviour.Exit > 0 {
		exit := &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 1}
		if behaviour.Succeeds {
			exit.Code = 0
		}
		n.after(behaviour.Exit, name, func() { n.end(name, exit) })
	}
}

// after runs f under the zone's lock after a pause, if the container still exists.
func (n *Node) after(wait time.Duration, name string, f func()) {
	time.AfterFunc(wait, func() {
		n.zone.mu.Lock()
		defer n.zone.mu.Unlock()
		container, ok := n.containers[name]
		if ok && n.ctx.Err() == nil && container.status.GetState() < corev1.ContainerStatus_STOPPING {
			f()
		}
	})
}

func (n *Node) change(name string, change func(*corev1.ContainerStatus)) {
	container, ok := n.containers[name]
	if !ok {
		return
	}
	container.status = proto.CloneOf(container.status)
	change(container.status)
	container.status.Sequence++
	if !n.reachable() {
		return
	}
	for watcher := range n.watchers {
		watcher <- container.status
	}
	n.zone.report(container.status)
}

func (n *Node) end(name string, exit *corev1.Exit) {
	if n.manager != nil {
		n.manager.stop(name, exit.GetReason())
		return
	}
	if _, ok := n.containers[name]; !ok {
		held, granted := n.zone.leases[name]
		if !granted {
			return
		}
		done := proto.CloneOf(held.status)
		done.State, done.Exit = corev1.ContainerStatus_DONE, exit
		n.zone.report(done)
		return
	}
	n.change(name, func(s *corev1.ContainerStatus) {
		s.State, s.Exit = corev1.ContainerStatus_DONE, exit
	})
}

// stop ends a container after 100 ms, and at once if it never ran.
func (n *Node) stop(name string) {
	if n.manager != nil {
		n.manager.stop(name, corev1.Exit_STOPPED)
		return
	}
	exit := &corev1.Exit{Reason: corev1.Exit_STOPPED}
	if _, ok := n.containers[name]; !ok {
		n.end(name, exit)
		return
	}
	n.change(name, func(s *corev1.ContainerStatus) { s.State = corev1.ContainerStatus_STOPPING })
	time.AfterFunc(100*time.Millisecond, func() {
		n.zone.mu.Lock()
		defer n.zone.mu.Unlock()
		n.end(name, exit)
	})
}

// Watch serves ContainerManager.
func (n *Node) Watch(request *nodev1.WatchRequest, stream nodev1.ContainerManager_WatchServer) error {
	changes := make(chan *corev1.ContainerStatus, 4096)
	n.zone.mu.Lock()
	if request.GetToken().GetKeyId() < n.zone.key-1 {
		n.zone.mu.Unlock()
		return status.Error(codes.Unauthenticated, "the token is not signed by this zone's ResourceManager")
	}
	snapshot := &nodev1.WatchResponse{Snapshot: true}
	for _, name := range slices.Sorted(maps.Keys(n.containers)) {
		snapshot.Containers = append(snapshot.Containers, n.containers[name].status)
	}
	n.watchers[changes] = true
	n.zone.mu.Unlock()
	defer func() {
		n.zone.mu.Lock()
		delete(n.watchers, changes)
		n.zone.mu.Unlock()
	}()
	if err := stream.Send(snapshot); err != nil {
		return err
	}
	for {
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-n.ctx.Done():
			return status.Error(codes.Unavailable, "the node is going away")
		case change := <-changes:
			if err := stream.Send(&nodev1.WatchResponse{Containers: []*corev1.ContainerStatus{change}}); err != nil {
				return err
			}
		}
	}
}

func (n *Node) open() {
	n.zone.mu.Lock()
	n.port++
	n.address = fmt.Sprintf("%s:%d", n.Name, 7000+n.port)
	address := n.address
	n.zone.mu.Unlock()
	n.zone.network.serve(address, func(s *grpc.Server) { nodev1.RegisterContainerManagerServer(s, n) })
}

func (n *Node) close() {
	n.zone.mu.Lock()
	address := n.address
	n.zone.mu.Unlock()
	n.zone.network.stop(address)
}

// room is how many more containers of an ask fit.
func (n *Node) room(ask *masterv1.Ask) int {
	switch {
	case n.state != apiv1.NodeState_READY || slices.Contains(ask.GetAvoidNodes(), n.Name):
		return 0
	case n.manager != nil:
		return n.manager.room(ask)
	}
	return n.Capacity - n.held
}

func (n *Node) reachable() bool { return n.state != apiv1.NodeState_LOST }

func (n *Node) update() *masterv1.NodeUpdate {
	return &masterv1.NodeUpdate{NodeId: n.Name, State: n.state, ContainerManager: n.address}
}

func serving(container *corev1.ContainerStatus) bool {
	return container.GetState() == corev1.ContainerStatus_RUNNING &&
		(container.GetHealth() == corev1.ContainerStatus_HEALTHY || container.GetHealth() == corev1.ContainerStatus_NONE)
}
