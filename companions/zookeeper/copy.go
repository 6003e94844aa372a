package zookeeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/mammoth-os/mammoth/internal/zk"
)

const (
	// How many requests are in progress at a time.
	parallel = 32
	// How long one comparison or change may take.
	limit = time.Minute
)

// copier writes entries. One goroutine calls it; it starts others for its requests and waits for them.
type copier struct {
	client *zk.Client
	base   string
	zone   string
	log    *slog.Logger

	mu sync.Mutex
	// The problem that was last logged for a path.
	logged map[string]string
}

func newCopier(client *zk.Client, config Config) *copier {
	return &copier{client: client, base: config.Path, zone: config.Zone, log: config.Log, logged: map[string]string{}}
}

// writeAll makes everything below the base match the services. For other services it deletes what the zone has written.
func (c *copier) writeAll(ctx context.Context, services map[string]map[string][]byte) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := c.client.Ensure(ctx, c.base); err != nil {
		return nil, err
	}
	names, err := c.client.Children(ctx, c.base)
	if err != nil {
		return nil, err
	}
	all := make(map[string]map[string][]byte, len(services)+len(names))
	for _, name := range names {
		all[name] = nil
	}
	for name, list := range services {
		all[name] = list
	}
	return c.writeChanged(ctx, all)
}

// writeChanged writes services; nil entries delete a service. It returns the services that were not written completely and
// are to be tried again. An error is one of ZooKeeper as a whole.
func (c *copier) writeChanged(ctx context.Context, services map[string]map[string][]byte) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	var mu sync.Mutex
	var failed []string
	for name, wanted := range services {
		group.Go(func() error {
			err := c.service(ctx, name, wanted)
			folder := path.Join(c.base, name)
			switch {
			case err == nil:
				c.clearLogged(folder)
				return nil
			case errors.Is(err, errdefs.ErrUnavailable), errors.Is(err, errdefs.ErrUnauthenticated), ctx.Err() != nil:
				return err
			}
			c.logOnce(folder, "cannot copy a service to ZooKeeper completely; it is tried again", err)
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, name)
			return nil
		})
	}
	err := group.Wait()
	return failed, err
}

// logOnce logs a problem of a path, once until it is solved or a different one appears.
func (c *copier) logOnce(name, message string, reason error) {
	why := message
	if reason != nil {
		why += reason.Error()
	}
	c.mu.Lock()
	known := c.logged[name] == why
	c.logged[name] = why
	c.mu.Unlock()
	switch {
	case known:
	case reason == nil:
		c.log.Warn(message, "path", name)
	default:
		c.log.Warn(message, "path", name, "reason", reason)
	}
}

// clearLogged records that a path has no problem.
func (c *copier) clearLogged(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.logged, name)
}

// service makes one service's entries match. A folder without access affects no other service.
func (c *copier) service(ctx context.Context, name string, wanted map[string][]byte) error {
	folder := path.Join(c.base, name)
	ids, err := c.client.Children(ctx, folder)
	switch {
	case errors.Is(err, errdefs.ErrNotFound) && wanted == nil:
		return nil
	case errors.Is(err, errdefs.ErrNotFound):
		if err := c.folder(ctx, folder); err != nil {
			return err
		}
	case errors.Is(err, errdefs.ErrPermissionDenied):
		return c.forbidden(folder, wanted, err)
	case err != nil:
		return err
	}
	return c.entries(ctx, folder, ids, wanted)
}

// folder creates a service's folder. The mark shows that the zone created it and may delete it.
func (c *copier) folder(ctx context.Context, folder string) error {
	err := c.client.Create(ctx, folder, []byte(owner(c.zone)))
	if errors.Is(err, errdefs.ErrNotFound) {
		// A parent was deleted.
		if err = c.client.Ensure(ctx, c.base); err == nil {
			err = c.client.Create(ctx, folder, []byte(owner(c.zone)))
		}
	}
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil
	}
	return err
}

// forbidden logs that a folder cannot be written, if something is to be written there.
func (c *copier) forbidden(folder string, wanted map[string][]byte, reason error) error {
	if wanted != nil {
		c.logOnce(folder+"/", "a service cannot be copied: its folder in ZooKeeper belongs to somebody else; give the zone's digest all rights there, or delete it", reason)
	}
	return nil
}

// entries makes the content of a service's folder match. A problem with one entry affects no other.
func (c *copier) entries(ctx context.Context, folder string, ids []string, wanted map[string][]byte) error {
	foreign := 0
	there := map[string]bool{}
	var problems []error
	for _, id := range ids {
		there[id] = true
		if _, keep := wanted[id]; keep {
			continue
		}
		gone, err := c.remove(ctx, path.Join(folder, id))
		if err != nil {
			problems = append(problems, err)
		}
		if !gone {
			foreign++
		}
	}
	for id, entry := range wanted {
		if err := c.put(ctx, path.Join(folder, id), entry, there[id]); err != nil {
			problems = append(problems, err)
		}
	}
	problem := first(problems)
	if errors.Is(problem, errdefs.ErrPermissionDenied) {
		return c.forbidden(folder, wanted, problem)
	}
	if problem != nil {
		return problem
	}
	c.clearLogged(folder + "/")
	if wanted == nil && foreign == 0 {
		return c.removeFolder(ctx, folder)
	}
	return nil
}

// first is the most useful problem: one that can be solved by another attempt before others.
func first(problems []error) error {
	for _, problem := range problems {
		if !errors.Is(problem, errdefs.ErrPermissionDenied) {
			return problem
		}
	}
	return errors.Join(problems...)
}

// remove deletes an entry if the zone wrote it. An entry with foreign children cannot be deleted: it is marked as disabled.
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
	err = c.client.Delete(ctx, name, node.Version)
	if !errors.Is(err, errdefs.ErrFailedPrecondition) {
		if err == nil {
			c.clearLogged(name)
		}
		return err == nil, err
	}
	c.logOnce(name, "the entry of a removed instance is disabled, not deleted: another program has created a node under it; the entry is deleted after that node", nil)
	if off := disabled(node.Data); !bytes.Equal(off, node.Data) {
		return false, c.client.Set(ctx, name, off, node.Version)
	}
	return false, nil
}

// put writes an entry unless it exists already, or is foreign.
func (c *copier) put(ctx context.Context, name string, entry []byte, there bool) error {
	if !there {
		err := c.client.Create(ctx, name, entry)
		if !errors.Is(err, errdefs.ErrAlreadyExists) {
			if err == nil {
				c.clearLogged(name)
			}
			return err
		}
	}
	node, err := c.client.Get(ctx, name)
	switch {
	case err != nil:
		return err
	case bytes.Equal(node.Data, entry):
		c.clearLogged(name)
		return nil
	case !isOurs(c.zone, node.Data):
		c.logOnce(name, "an entry of another program has this name and stays", nil)
		return nil
	}
	c.clearLogged(name)
	if err := c.client.Set(ctx, name, entry, node.Version); err != nil {
		return fmt.Errorf("replace an entry: %w", err)
	}
	return nil
}

// removeFolder deletes the folder of a removed service, unless it is foreign or has foreign content.
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
