package zookeeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/mammoth-os/mammoth/internal/zk"
)

const (
	// How many requests are under way at a time.
	parallel = 32
	// How long one comparison or change may take.
	limit = time.Minute
)

// copier writes entries. It is used by one goroutine.
type copier struct {
	client *zk.Client
	base   string
	zone   string
	log    *slog.Logger
}

func newCopier(client *zk.Client, config Config) *copier {
	return &copier{client: client, base: config.Path, zone: config.Zone, log: config.Log}
}

// whole makes everything below the base as it should be. Services that nobody wants lose what the zone has written.
func (c *copier) whole(ctx context.Context, services map[string]map[string][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := c.client.Ensure(ctx, c.base); err != nil {
		return err
	}
	names, err := c.client.Children(ctx, c.base)
	if err != nil {
		return err
	}
	all := make(map[string]map[string][]byte, len(services)+len(names))
	for _, name := range names {
		all[name] = nil
	}
	for name, list := range services {
		all[name] = list
	}
	return c.some(ctx, all)
}

// some makes services as they should be; nil is one that should not be.
func (c *copier) some(ctx context.Context, services map[string]map[string][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for name, wanted := range services {
		group.Go(func() error { return c.service(ctx, name, wanted) })
	}
	return group.Wait()
}

// service makes one service's entries as they should be. A folder that is closed to the zone keeps no other service from
// being copied.
func (c *copier) service(ctx context.Context, name string, wanted map[string][]byte) error {
	folder := path.Join(c.base, name)
	ids, err := c.client.Children(ctx, folder)
	switch {
	case errors.Is(err, errdefs.ErrNotFound) && wanted == nil:
		return nil
	case errors.Is(err, errdefs.ErrNotFound):
		// The mark says that the zone made the folder, and may delete it.
		if _, err := c.client.Create(ctx, folder, []byte(owner(c.zone)), zk.Persistent); err != nil && !errors.Is(err, errdefs.ErrAlreadyExists) {
			return err
		}
		err = nil
	}
	if err == nil {
		err = c.entries(ctx, folder, ids, wanted)
	}
	if !errors.Is(err, errdefs.ErrPermissionDenied) {
		return err
	}
	if wanted != nil {
		c.log.Error("a service cannot be copied: its folder in ZooKeeper belongs to somebody else; give the zone's digest all rights there, or delete it",
			"path", folder, "reason", err)
	}
	return nil
}

// entries makes what is in a service's folder as it should be.
func (c *copier) entries(ctx context.Context, folder string, ids []string, wanted map[string][]byte) error {
	foreign := 0
	there := map[string]bool{}
	for _, id := range ids {
		there[id] = true
		if _, keep := wanted[id]; keep {
			continue
		}
		gone, err := c.remove(ctx, path.Join(folder, id))
		if err != nil {
			return err
		}
		if !gone {
			foreign++
		}
	}
	for id, entry := range wanted {
		if err := c.put(ctx, path.Join(folder, id), entry, there[id]); err != nil {
			return err
		}
	}
	if wanted == nil && foreign == 0 {
		return c.removeFolder(ctx, folder)
	}
	return nil
}

// remove deletes an entry if the zone wrote it.
func (c *copier) remove(ctx context.Context, name string) (gone bool, err error) {
	node, err := c.client.Get(ctx, name)
	if errors.Is(err, errdefs.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if !isOurs(c.zone, node.Data) {
		return false, nil
	}
	return true, c.client.Delete(ctx, name, node.Version)
}

// put writes an entry unless it is there already, or somebody else's is.
func (c *copier) put(ctx context.Context, name string, entry []byte, there bool) error {
	if !there {
		_, err := c.client.Create(ctx, name, entry, zk.Persistent)
		if !errors.Is(err, errdefs.ErrAlreadyExists) {
			return err
		}
	}
	node, err := c.client.Get(ctx, name)
	switch {
	case err != nil:
		return err
	case bytes.Equal(node.Data, entry):
		return nil
	case !isOurs(c.zone, node.Data):
		c.log.Warn("an entry of somebody else is in the way, and stays", "path", name)
		return nil
	}
	if err := c.client.Set(ctx, name, entry, node.Version); err != nil {
		return fmt.Errorf("replacing an entry: %w", err)
	}
	return nil
}

// removeFolder deletes a service that is gone, unless somebody else made it, or has put something there meanwhile.
func (c *copier) removeFolder(ctx context.Context, folder string) error {
	node, err := c.client.Get(ctx, folder)
	if errors.Is(err, errdefs.ErrNotFound) || err == nil && string(node.Data) != owner(c.zone) {
		return nil
	}
	if err != nil {
		return err
	}
	err = c.client.Delete(ctx, folder, node.Version)
	if errors.Is(err, errdefs.ErrFailedPrecondition) {
		return nil
	}
	return err
}
