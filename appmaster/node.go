package appmaster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/wire"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
)

// retry spaces attempts to reach the ResourceManager or a node again. It stays short: work stands still meanwhile.
var retry = backoff.Policy{Min: 50 * time.Millisecond, Max: 500 * time.Millisecond}

// node is one NodeManager on which the app holds containers: one connection, shared by its watch and all starts.
type node struct {
	name   string
	client *Client
	cancel context.CancelFunc

	mu      sync.Mutex
	address string
	token   *corev1.ContainerToken
	conn    *grpc.ClientConn
	// moved is closed, and made anew, when the address or the token changed.
	moved chan struct{}
	// held counts the containers for whose sake the watch is kept.
	held map[string]bool
}

func (c *Client) newNode(name string) *node {
	ctx, cancel := context.WithCancel(c.ctx)
	n := &node{name: name, client: c, cancel: cancel, moved: make(chan struct{}), held: map[string]bool{}}
	c.watches.Go(func() { n.run(ctx) })
	return n
}

// move tells where the node is reached now. An empty address or a nil token leaves what was known.
func (n *node) move(address string, token *corev1.ContainerToken) {
	n.mu.Lock()
	defer n.mu.Unlock()
	changed := false
	if address != "" && address != n.address {
		n.address, changed = address, true
		if n.conn != nil {
			_ = n.conn.Close()
			n.conn = nil
		}
	}
	if token != nil {
		changed = changed || n.token == nil
		n.token = token
	}
	if changed {
		close(n.moved)
		n.moved = make(chan struct{})
	}
}

// connection is the present one, made when there is none.
func (n *node) connection() (*grpc.ClientConn, *corev1.ContainerToken, <-chan struct{}, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.address == "" || n.token == nil {
		return nil, nil, n.moved, fmt.Errorf("node %q has told no address yet: %w", n.name, errdefs.ErrUnavailable)
	}
	if n.conn == nil {
		conn, err := n.client.config.dial(n.address)
		if err != nil {
			return nil, nil, n.moved, err
		}
		n.conn = conn
	}
	return n.conn, n.token, n.moved, nil
}

// run keeps a watch open until ctx ends.
func (n *node) run(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		heard, moved, err := n.watch(ctx)
		if ctx.Err() != nil {
			break
		}
		if heard {
			failures = 0
		}
		failures++
		if status.Code(err) == codes.Unauthenticated || status.Code(err) == codes.PermissionDenied {
			// The key that signed the token has been rolled: only a new registration brings a new one.
			n.client.reregister()
		}
		if failures == 1 {
			n.client.tell(NodeUnseen{Node: n.name})
		}
		n.client.log.Debug("watch of a node ended", "node", n.name, "error", err)
		timer := time.NewTimer(retry.After(failures))
		select {
		case <-timer.C:
		case <-moved:
			failures = 0
		case <-ctx.Done():
		}
		timer.Stop()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.address = "" // a start that is late does not connect anew
	if n.conn != nil {
		_ = n.conn.Close()
		n.conn = nil
	}
}

// watch tells what one stream says until it ends or the node has moved, and whether it said anything.
func (n *node) watch(ctx context.Context) (heard bool, moved <-chan struct{}, err error) {
	conn, token, moved, err := n.connection()
	if err != nil {
		return false, moved, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-moved:
			cancel()
		case <-ctx.Done():
		}
	}()
	stream, err := nodev1.NewContainerManagerClient(conn).Watch(ctx, &nodev1.WatchRequest{Token: token, AppId: n.client.config.AppID}, grpc.WaitForReady(true))
	if err != nil {
		return false, moved, err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return heard, moved, err
		}
		heard = true
		if answer.GetSnapshot() {
			n.client.tell(NodeSnapshot{Node: n.name, Containers: answer.GetContainers()})
			continue
		}
		for _, container := range answer.GetContainers() {
			n.client.tell(StatusChanged{Status: container})
		}
	}
}

// watchContainer sees to it that the node of a container is watched, under its newest address and token.
func (c *Client) watchContainer(allocation *masterv1.Allocation) {
	name := allocation.GetLease().GetNodeId()
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.nodes[name]
	if !ok {
		n = c.newNode(name)
		c.nodes[name] = n
	}
	n.held[allocation.GetLease().GetContainerId()] = true
	n.move(allocation.GetContainerManager(), allocation.GetWatchToken())
}

// unwatchContainer ends the watch of a node with its last container.
func (c *Client) unwatchContainer(name, container string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.nodes[name]
	if !ok {
		return
	}
	delete(n.held, container)
	if len(n.held) == 0 {
		delete(c.nodes, name)
		n.cancel()
	}
}

// Start has a granted container run spec and answers before it runs; StatusChanged events tell the rest. Starting a
// container twice is harmless. It fails with errdefs.ErrUnavailable when the node does not answer: the container may
// then run or not.
func (c *Client) Start(ctx context.Context, allocation *masterv1.Allocation, spec *corev1.ContainerSpec) (*corev1.ContainerStatus, error) {
	c.mu.Lock()
	n, ok := c.nodes[allocation.GetLease().GetNodeId()]
	c.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("container %s is no longer held: %w", allocation.GetLease().GetContainerId(), errdefs.ErrNotFound)
	}
	conn, _, _, err := n.connection()
	if err != nil {
		return nil, err
	}
	answer, err := nodev1.NewContainerManagerClient(conn).Start(ctx, &nodev1.StartRequest{Token: allocation.GetToken(), Spec: spec})
	if err != nil {
		return nil, fmt.Errorf("start container %s on node %s: %w", allocation.GetLease().GetContainerId(), n.name, wire.Error(err))
	}
	return answer.GetStatus(), nil
}

// dial makes a connection that costs little memory.
func (c Config) dial(address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	options = append(options, grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10))
	if c.Dial != nil {
		options = append(options, grpc.WithContextDialer(c.Dial))
	}
	return credentials.Dial(address, options...)
}
