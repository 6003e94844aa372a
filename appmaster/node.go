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

// retry is the pause before the ResourceManager or a node is tried again. It is short, because the app waits meanwhile.
var retry = backoff.Policy{Min: 50 * time.Millisecond, Max: 500 * time.Millisecond}

// node is a NodeManager with containers of the app: one connection for its watch and all starts.
type node struct {
	name   string
	client *Client
	cancel context.CancelFunc

	mu      sync.Mutex
	address string
	token   *corev1.ContainerToken
	conn    *grpc.ClientConn
	// changed is closed and replaced when the address or the token changes.
	changed chan struct{}
	// containers are the app's containers on the node. The watch ends with the last one.
	containers map[string]bool
}

func (c *Client) newNode(name string) *node {
	ctx, cancel := context.WithCancel(c.ctx)
	n := &node{name: name, client: c, cancel: cancel, changed: make(chan struct{}), containers: map[string]bool{}}
	c.watches.Go(func() { n.run(ctx) })
	return n
}

// update sets the node's address and token. An empty address or a nil token changes nothing.
func (n *node) update(address string, token *corev1.ContainerToken) {
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
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// connection returns the present connection and opens one if there is none.
func (n *node) connection() (*grpc.ClientConn, *corev1.ContainerToken, <-chan struct{}, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.address == "" || n.token == nil {
		return nil, nil, n.changed, fmt.Errorf("node %q has no known address: %w", n.name, errdefs.ErrUnavailable)
	}
	if n.conn == nil {
		conn, err := n.client.config.dial(n.address)
		if err != nil {
			return nil, nil, n.changed, err
		}
		n.conn = conn
	}
	return n.conn, n.token, n.changed, nil
}

// run keeps the watch open until ctx ends.
func (n *node) run(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		received, changed, err := n.watch(ctx)
		if ctx.Err() != nil {
			break
		}
		if received {
			failures = 0
		}
		failures++
		if status.Code(err) == codes.Unauthenticated || status.Code(err) == codes.PermissionDenied {
			// The signing key was rotated: only a new registration brings a valid token.
			n.client.reregister()
		}
		if failures == 1 {
			n.client.emit(NodeDisconnected{Node: n.name})
		}
		n.client.log.Debug("watch of a node ended", "node", n.name, "error", err)
		timer := time.NewTimer(retry.After(failures))
		select {
		case <-timer.C:
		case <-changed:
			failures = 0
		case <-ctx.Done():
		}
		timer.Stop()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.address = "" // a late start must not connect again
	if n.conn != nil {
		_ = n.conn.Close()
		n.conn = nil
	}
}

// watch emits what one stream sends until it ends or the node's address changes. It reports whether it received anything.
func (n *node) watch(ctx context.Context) (received bool, changed <-chan struct{}, err error) {
	conn, token, changed, err := n.connection()
	if err != nil {
		return false, changed, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	}()
	stream, err := nodev1.NewContainerManagerClient(conn).Watch(ctx, &nodev1.WatchRequest{Token: token, AppId: n.client.config.AppID}, grpc.WaitForReady(true))
	if err != nil {
		return false, changed, err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return received, changed, err
		}
		received = true
		if answer.GetSnapshot() {
			n.client.emit(NodeSnapshot{Node: n.name, Containers: answer.GetContainers()})
			continue
		}
		for _, container := range answer.GetContainers() {
			n.client.emit(StatusChanged{Status: container})
		}
	}
}

// watchContainer watches the node of a container, with its newest address and token.
func (c *Client) watchContainer(allocation *masterv1.Allocation) {
	name := allocation.GetLease().GetNodeId()
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.nodes[name]
	if !ok {
		n = c.newNode(name)
		c.nodes[name] = n
	}
	n.containers[allocation.GetLease().GetContainerId()] = true
	n.update(allocation.GetContainerManager(), allocation.GetWatchToken())
}

// unwatchContainer ends the watch of a node after its last container.
func (c *Client) unwatchContainer(name, container string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.nodes[name]
	if !ok {
		return
	}
	delete(n.containers, container)
	if len(n.containers) == 0 {
		delete(c.nodes, name)
		n.cancel()
	}
}

// Start runs spec in a granted container. It returns before the container runs; StatusChanged events follow. It may be
// repeated. It fails with errdefs.ErrUnavailable when the node does not answer: the container may run or not.
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

// dial opens a connection with small buffers.
func (c Config) dial(address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	options = append(options, grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10))
	if c.Dial != nil {
		options = append(options, grpc.WithContextDialer(c.Dial))
	}
	return credentials.Dial(address, options...)
}
