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
	// How many requests are under way at a time.
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
	said map[string]string
}

func newCopier(client *zk.Client, config Config) *copier {
	return &copier{client: client, base: config.Path, zone: config.Zone, log: config.Log, said: map[string]string{}}
}

// whole makes everything below the base as it should be. Services that nobody wants lose what the zone has written.
func (c *copier) whole(ctx context.Context, services map[string]map[string][]byte) ([]string, error) {
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
	return c.some(ctx, all)
}

// some writes services; a nil list of entries is a service to be deleted. It returns the services that could not be written in full and
// are to be tried again; all others are written. An error is one of ZooKeeper as a whole.
func (c *copier) some(ctx context.Context, services map[string]map[string][]byte) ([]string, error) {
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
				c.settled(folder)
				return nil
			case errors.Is(err, errdefs.ErrUnavailable), errors.Is(err, errdefs.ErrUnauthenticated), ctx.Err() != nil:
				return err
			}
			c.say(folder, "a service could not be copied to ZooKeeper as it is; it is tried again", err)
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, name)
			return nil
		})
	}
	return failed, group.Wait()
}

// say logs what is wrong with a path, once until it is right or something else is wrong.
func (c *copier) say(name, message string, reason error) {
	why := message
	if reason != nil {
		why += reason.Error()
	}
	c.mu.Lock()
	told := c.said[name] == why
	c.said[name] = why
	c.mu.Unlock()
	switch {
	case told:
	case reason == nil:
		c.log.Warn(message, "path", name)
	default:
		c.log.Warn(message, "path", name, "reason", reason)
	}
}

// settled notes that nothing is wrong with a path.
func (c *copier) settled(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.said, name)
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
		if err := c.folder(ctx, folder); err != nil {
			return err
		}
	case errors.Is(err, errdefs.ErrPermissionDenied):
		return c.closed(folder, wanted, err)
	case err != nil:
		return err
	}
	return c.entries(ctx, folder, ids, wanted)
}

// folder makes a service's folder. The mark says that the zone made it, and may delete it.
func (c *copier) folder(ctx context.Context, folder string) error {
	_, err := c.client.Create(ctx, folder, []byte(owner(c.zone)), zk.Persistent)
	if errors.Is(err, errdefs.ErrNotFound) {
		// Somebody has deleted what is above it.
		if err = c.client.Ensure(ctx, c.base); err == nil {
			_, err = c.client.Create(ctx, folder, []byte(owner(c.zone)), zk.Persistent)
		}
	}
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil
	}
	return err
}

// closed says that a folder is somebody else's, if something is wanted there.
func (c *copier) closed(folder string, wanted map[string][]byte, reason error) error {
	if wanted != nil {
		c.say(folder+"/", "a service cannot be copied: its folder in ZooKeeper belongs to somebody else; give the zone's digest all rights there, or delete it", reason)
	}
	return nil
}

// entries makes what is in a service's folder as it should be. What cannot be done with one entry keeps no other from being done.
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
		return c.closed(folder, wanted, problem)
	}
	if problem != nil {
		return problem
	}
	c.settled(folder + "/")
	if wanted == nil && foreign == 0 {
		return c.removeFolder(ctx, folder)
	}
	return nil
}

// first is the problem that says most: what can be tried again before what only somebody else can change.
func first(problems []error) error {
	for _, problem := range problems {
		if !errors.Is(problem, errdefs.ErrPermissionDenied) {
			return problem
		}
	}
	return errors.Join(problems...)
}

// remove deletes an entry if the zone wrote it. One that somebody has put a node under cannot be deleted: it is marked as one that
// nobody is to be led to.
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
			c.settled(name)
		}
		return err == nil, err
	}
	c.say(name, "the entry of an instance that is gone stays, as one that is not enabled: somebody has put a node under it; it goes when that is deleted", nil)
	if off := disabled(node.Data); !bytes.Equal(off, node.Data) {
		return false, c.client.Set(ctx, name, off, node.Version)
	}
	return false, nil
}

// put writes an entry unless it is there already, or somebody else's is.
func (c *copier) put(ctx context.Context, name string, entry []byte, there bool) error {
	if !there {
		_, err := c.client.Create(ctx, name, entry, zk.Persistent)
		if !errors.Is(err, errdefs.ErrAlreadyExists) {
			if err == nil {
				c.settled(name)
			}
			return err
		}
	}
	node, err := c.client.Get(ctx, name)
	switch {
	case err != nil:
		return err
	case bytes.Equal(node.Data, entry):
		c.settled(name)
		return nil
	case !isOurs(c.zone, node.Data):
		c.say(name, "an entry of somebody else is in the way, and stays", nil)
		return nil
	}
	c.settled(name)
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
