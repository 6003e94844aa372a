package zk

import (
	"context"
	"errors"
	"path"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/go-zookeeper/zk"
)

// AnyVersion makes a change whatever the node's version is.
const AnyVersion = -1

// Node is what a node holds.
type Node struct {
	Exists bool
	Data   []byte
	// Rises with each change of the data.
	Version int32
	// The session that an ephemeral node belongs to; zero for others.
	Owner int64
	// The transactions that made the node and changed it last.
	made, changed int64
}

func nodeOf(data []byte, stat *zk.Stat) Node {
	return Node{Exists: true, Data: data, Version: stat.Version, Owner: stat.EphemeralOwner, made: stat.Czxid, changed: stat.Mzxid}
}

// Kind is how long a node stays.
type Kind int32

// Kinds of nodes.
const (
	Persistent Kind = 0
	// Until the session ends.
	Ephemeral Kind = zk.FlagEphemeral
	// Ephemeral, with a number that rises behind its name.
	EphemeralSequence Kind = zk.FlagEphemeral | zk.FlagSequence
)

// Create makes a node and returns its path, which has a number behind it if the kind says so. Parents must exist.
func (c *Client) Create(ctx context.Context, name string, data []byte, kind Kind) (string, error) {
	return call(ctx, c, "creating", name, func(full string) (string, error) {
		created, err := c.conn.Create(full, data, int32(kind), c.acl)
		if err != nil || len(created) <= len(c.config.Chroot) {
			return name, err
		}
		return created[len(c.config.Chroot):], nil
	})
}

// Ensure makes a node without data, and its parents, the chroot's too. It is no error if they exist.
func (c *Client) Ensure(ctx context.Context, name string) error {
	_, err := look(ctx, c, "creating", name, func(full string) (struct{}, error) { return struct{}{}, c.ensure(full) })
	return err
}

func (c *Client) ensure(full string) error {
	if full == "/" {
		return nil
	}
	_, err := c.conn.Create(full, nil, 0, c.acl)
	if errors.Is(err, zk.ErrNoNode) {
		if err := c.ensure(path.Dir(full)); err != nil {
			return err
		}
		_, err = c.conn.Create(full, nil, 0, c.acl)
	}
	if errors.Is(err, zk.ErrNoAuth) {
		// Who may not create a node that is there does not need to.
		if exists, _, lookErr := c.conn.Exists(full); lookErr == nil && exists {
			return nil
		}
	}
	if errors.Is(err, zk.ErrNodeExists) {
		return nil
	}
	return err
}

// Get reads a node; errdefs.ErrNotFound if it does not exist.
func (c *Client) Get(ctx context.Context, name string) (Node, error) {
	return look(ctx, c, "reading", name, func(full string) (Node, error) {
		data, stat, err := c.conn.Get(full)
		if err != nil {
			return Node{}, err
		}
		return nodeOf(data, stat), nil
	})
}

// Children lists the names of a node's children, sorted; errdefs.ErrNotFound if it does not exist.
func (c *Client) Children(ctx context.Context, name string) ([]string, error) {
	return look(ctx, c, "listing", name, func(full string) ([]string, error) {
		names, _, err := c.conn.Children(full)
		slices.Sort(names)
		return names, err
	})
}

// Set changes a node's data if it has the version, or in any case; errdefs.ErrAborted if it has another one.
func (c *Client) Set(ctx context.Context, name string, data []byte, version int32) error {
	_, err := call(ctx, c, "changing", name, func(full string) (*zk.Stat, error) { return c.conn.Set(full, data, version) })
	return err
}

// Delete removes a node if it has the version, or in any case. It is no error if it is not there.
func (c *Client) Delete(ctx context.Context, name string, version int32) error {
	_, err := call(ctx, c, "deleting", name, func(full string) (struct{}, error) { return struct{}{}, c.conn.Delete(full, version) })
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}
