package zk

import (
	"context"
	"errors"
	"path"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/go-zookeeper/zk"
)

// AnyVersion changes a node whatever its version is.
const AnyVersion = -1

// Node is the content of a node.
type Node struct {
	Data []byte
	// Rises with each change of the data.
	Version int32
}

// Create creates a node, which exists until it is deleted. Its parent must exist.
func (c *Client) Create(ctx context.Context, name string, data []byte) error {
	_, err := call(ctx, c, "creating", name, func(full string) (string, error) { return c.conn.Create(full, data, 0, c.acl) })
	return err
}

// Ensure creates a node without data, and its parents, including the chroot's. Existing ones are not an error.
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
		// The permission to create an existing node is not needed.
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
		return Node{Data: data, Version: stat.Version}, nil
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

// Set changes a node's data if it has the version; errdefs.ErrAborted if it has another one.
func (c *Client) Set(ctx context.Context, name string, data []byte, version int32) error {
	_, err := call(ctx, c, "changing", name, func(full string) (*zk.Stat, error) { return c.conn.Set(full, data, version) })
	return err
}

// Delete deletes a node if it has the version. A missing node is not an error.
func (c *Client) Delete(ctx context.Context, name string, version int32) error {
	_, err := call(ctx, c, "deleting", name, func(full string) (struct{}, error) { return struct{}{}, c.conn.Delete(full, version) })
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}
