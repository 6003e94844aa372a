package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// fleet is the nodes of a process. One ContainerManager serves all of them.
type fleet struct {
	nodev1.UnimplementedContainerManagerServer
	options options
	nodes   map[string]*node
	order   []*node
	// launched is told of the application master that the ResourceManager has launched on one of the nodes.
	launched chan *trackerv1.NodeCommand_Launch
}

// node is a NodeManager as far as the ResourceManager can tell.
type node struct {
	fleet  *fleet
	name   string
	stream grpc.BidiStreamingClient[trackerv1.NodeReport, trackerv1.NodeCommand]
	mu     sync.Mutex
	// sequence numbers every status: they only have to rise for each container.
	sequence int64
}

// beNodes is a process of nodes until ctx ends.
func beNodes(ctx context.Context, o options) error {
	f := &fleet{options: o, nodes: map[string]*node{}, launched: make(chan *trackerv1.NodeCommand_Launch, 1)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	nodev1.RegisterContainerManagerServer(server, f)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Serve(listener) })
	group.Go(func() error {
		<-ctx.Done() // also when a node's stream has broken: the figures would be worth nothing
		server.Stop()
		return nil
	})

	var connections []*grpc.ClientConn
	for range o.connections {
		connection, err := dial(o.resourceManager)
		if err != nil {
			return err
		}
		connections = append(connections, connection)
	}
	for i := range o.count {
		n := &node{fleet: f, name: fmt.Sprintf("node-%05d", o.first+i)}
		f.nodes[n.name], f.order = n, append(f.order, n)
	}
	group.Go(func() error { return f.beat(ctx) }) // the first nodes are not to be lost before the last one is there
	registering, registerCtx := errgroup.WithContext(ctx)
	registering.SetLimit(32)
	for i, n := range f.order {
		registering.Go(func() error {
			return n.register(registerCtx, ctx, connections[i%len(connections)], listener.Addr().String())
		})
	}
	if err := registering.Wait(); err != nil {
		return err
	}
	for _, n := range f.order {
		group.Go(func() error { return n.listen() })
	}
	if _, err := fmt.Fprintln(os.Stdout, "ready"); err != nil {
		return err
	}
	select {
	case launch := <-f.launched:
		if err := runMaster(ctx, o, launch); err != nil {
			return err
		}
	case <-ctx.Done():
	}
	return group.Wait()
}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// register gives up with ctx; the stream lives as long as life.
func (n *node) register(ctx, life context.Context, connection *grpc.ClientConn, manager string) error {
	client := trackerv1.NewResourceTrackerClient(connection)
	response, err := client.Register(ctx, &trackerv1.RegisterRequest{
		NodeId: n.name, Address: "127.0.0.1", ContainerManager: manager, Version: "sim",
		Capacity:   &corev1.Resources{CpuMillis: 16_000, MemoryBytes: 64 << 30, DiskBytes: 1 << 40, Ports: 1000},
		Attributes: map[string]*corev1.Attribute{"rack": {Value: &corev1.Attribute_Text{Text: fmt.Sprint("rack-", len(n.name))}}},
		Health:     &corev1.NodeHealth{Healthy: true},
	})
	if err != nil {
		return fmt.Errorf("register %s: %w", n.name, err)
	}
	stream, err := client.Session(life)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stream = stream
	return stream.Send(&trackerv1.NodeReport{Session: response.GetSession()})
}

// send reports, once the node is registered.
func (n *node) send(report *trackerv1.NodeReport) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stream == nil {
		return nil
	}
	return n.stream.Send(report)
}

// beat sends one report of each node every second, spread evenly over it.
func (f *fleet) beat(ctx context.Context) error {
	const slots = 100
	ticker := time.NewTicker(reportsPer / slots)
	defer ticker.Stop()
	for slot := 0; ; slot = (slot + 1) % slots {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		for i := slot; i < len(f.order); i += slots {
			if err := f.order[i].send(&trackerv1.NodeReport{}); err != nil {
				return fmt.Errorf("report of %s: %w", f.order[i].name, err)
			}
		}
	}
}

func (n *node) listen() error {
	for {
		command, err := n.stream.Recv()
		if err != nil {
			return err
		}
		switch {
		case command.GetLaunch() != nil:
			name, err := containerOf(command.GetLaunch().GetToken())
			if err == nil {
				err = n.tell(name, corev1.ContainerStatus_RUNNING, nil)
			}
			if err != nil {
				return err
			}
			n.fleet.launched <- command.GetLaunch()
		case command.GetStop() != nil:
			stop := command.GetStop()
			if err := n.tell(stop.GetContainerId(), corev1.ContainerStatus_DONE, &corev1.Exit{Reason: stop.GetReason(), Code: 143}); err != nil {
				return err
			}
		}
	}
}

// tell reports a container's state.
func (n *node) tell(container string, state corev1.ContainerStatus_State, exit *corev1.Exit) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sequence++
	return n.stream.Send(&trackerv1.NodeReport{Containers: []*corev1.ContainerStatus{{
		Lease: &corev1.Lease{ContainerId: container}, State: state, Exit: exit, Sequence: n.sequence,
	}}})
}

// Start has a container run at once.
func (f *fleet) Start(_ context.Context, request *nodev1.StartRequest) (*nodev1.StartResponse, error) {
	claims, err := claimsOf(request.GetToken())
	if err != nil {
		return nil, err
	}
	n := f.nodes[claims.GetLease().GetNodeId()]
	if n == nil {
		return nil, fmt.Errorf("no node %q is here", claims.GetLease().GetNodeId())
	}
	if err := n.tell(claims.GetLease().GetContainerId(), corev1.ContainerStatus_RUNNING, nil); err != nil {
		return nil, err
	}
	return &nodev1.StartResponse{Status: &corev1.ContainerStatus{Lease: claims.GetLease(), State: corev1.ContainerStatus_RUNNING}}, nil
}

func claimsOf(token *corev1.ContainerToken) (*corev1.TokenClaims, error) {
	claims := &corev1.TokenClaims{}
	return claims, proto.Unmarshal(token.GetClaims(), claims)
}

func containerOf(token *corev1.ContainerToken) (string, error) {
	claims, err := claimsOf(token)
	return claims.GetLease().GetContainerId(), err
}
