// Package zookeeper copies the zone's registry into ZooKeeper, as entries of Apache Curator's service discovery, so that
// programs that use it find the zone's instances. Foreign entries are left alone.
//
// It owns the entries below its path that carry its zone's mark. It compares them with the registry after every change and at an interval.
package zookeeper

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/companions/mirror"
	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/zk"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// DefaultPath is the parent of services, each a node with its instances below it.
const DefaultPath = "/mammoth/services"

// Config is the configuration of a Companion.
type Config struct {
	ZooKeeper zk.Config `yaml:"zookeeper"`
	// Default DefaultPath.
	Path string `yaml:"path"`
	// The zone's name: it marks the entries as this zone's. Default "mammoth".
	Zone string `yaml:"zone"`
	// How often everything is compared without a change. Default 1m.
	Compare time.Duration `yaml:"compare"`
	Log     *slog.Logger  `yaml:"-"`
}

// Validate sets defaults and returns what is wrong.
func (c *Config) Validate() error {
	if c.Path == "" {
		c.Path = DefaultPath
	}
	if c.Zone == "" {
		c.Zone = "mammoth"
	}
	if c.Compare == 0 {
		c.Compare = time.Minute
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if !strings.HasPrefix(c.Path, "/") || path.Clean(c.Path) != c.Path || c.Path == "/" {
		return fmt.Errorf("the path %q must be absolute, and not the root: %w", c.Path, errdefs.ErrInvalidArgument)
	}
	if c.Compare < 0 {
		return fmt.Errorf("the time between comparisons must not be negative: %w", errdefs.ErrInvalidArgument)
	}
	return c.ZooKeeper.Validate()
}

// Companion copies the registry.
type Companion struct {
	config Config
	conn   grpc.ClientConnInterface
}

// New returns a companion that does not run yet; the connection leads to the ResourceManager.
func New(config Config, conn grpc.ClientConnInterface) (*Companion, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	return &Companion{config: config, conn: conn}, nil
}

var retryWrite = backoff.Policy{Min: 200 * time.Millisecond, Max: 15 * time.Second}

// Run keeps the copy up to date until ctx ends. Without ZooKeeper, or without the zone, it waits; the entries stay as they
// are, also when it ends.
func (c *Companion) Run(ctx context.Context) error {
	client, err := zk.New(c.config.ZooKeeper)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wanted := newDesired()
	var receiver sync.WaitGroup
	receiver.Go(func() {
		mirror.Follow(ctx, c.conn, c.config.Log, func(update *companionv1.MirrorUpdate) { wanted.update(c.config.Zone, update) })
	})
	defer receiver.Wait()
	defer cancel()
	c.write(ctx, newCopier(client, c.config), wanted)
	return nil
}

// desired is the newest state of the registry, and which services have changed since the copier asked.
type desired struct {
	mu       sync.Mutex
	known    bool
	services map[string]map[string][]byte
	dirty    map[string]bool
	changed  chan struct{}
}

func newDesired() *desired {
	return &desired{services: map[string]map[string][]byte{}, dirty: map[string]bool{}, changed: make(chan struct{}, 1)}
}

// update applies an update of the zone.
func (w *desired) update(zone string, update *companionv1.MirrorUpdate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if update.GetSnapshot() {
		for name := range w.services {
			w.dirty[name] = true
		}
		clear(w.services)
		w.known = true
	}
	for _, service := range update.GetServices() {
		if isNodeName(service.GetName()) {
			w.services[service.GetName()] = entries(zone, service)
			w.dirty[service.GetName()] = true
		}
	}
	for _, name := range update.GetRemoved() {
		delete(w.services, name)
		w.dirty[name] = true
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func entries(zone string, service *apiv1.Service) map[string][]byte {
	list := map[string][]byte{}
	for _, endpoint := range service.GetEndpoints() {
		if isNodeName(endpoint.GetId()) {
			list[endpoint.GetId()] = encode(zone, service.GetName(), endpoint)
		}
	}
	return list
}

// all returns every service with its entries by id; ready is false before the first update.
func (w *desired) all() (services map[string]map[string][]byte, ready bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.dirty)
	services = make(map[string]map[string][]byte, len(w.services))
	for name, list := range w.services {
		services[name] = list
	}
	return services, w.known
}

// changes returns the services that have changed, and those of again; nil means a removed one.
func (w *desired) changes(again []string) map[string]map[string][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	changes := make(map[string]map[string][]byte, len(w.dirty)+len(again))
	for _, name := range again {
		changes[name] = w.services[name]
	}
	for name := range w.dirty {
		changes[name] = w.services[name]
	}
	clear(w.dirty)
	return changes
}

// retries are the services with a problem of their own, which are tried again later.
type retries struct {
	names []string
	// How often in a row they were tried, and when they are tried again.
	tries int
	next  time.Time
}

// due returns the services that are to be tried again now.
func (s *retries) due() []string {
	if time.Now().Before(s.next) {
		return nil
	}
	return s.names
}

// update records the result of a round in which tried was written, or everything.
func (s *retries) update(tried map[string]map[string][]byte, failed []string) {
	left := slices.DeleteFunc(s.names, func(name string) bool {
		_, again := tried[name]
		return again || tried == nil
	})
	s.names = append(left, failed...)
	switch {
	case len(s.names) == 0:
		s.tries = 0
	case len(failed) > 0:
		s.tries++
		s.next = time.Now().Add(retryWrite.After(s.tries))
	}
}

// wait is how long no retry is due, at most limit.
func (s *retries) wait(limit time.Duration) time.Duration {
	if len(s.names) == 0 {
		return limit
	}
	return min(limit, time.Until(s.next))
}

// write updates ZooKeeper: everything after each new connection, at intervals, and after a failure; otherwise what has
// changed. A service with a problem is tried again later, and delays no other.
func (c *Companion) write(ctx context.Context, copier *copier, w *desired) {
	var connection int64
	var compared time.Time
	var left retries
	for failures := 0; ctx.Err() == nil; {
		state, err := c.connected(ctx, copier.client)
		if err != nil {
			continue
		}
		if failures > 0 || state.Connection != connection || time.Since(compared) >= c.config.Compare {
			services, ready := w.all()
			if !ready {
				wait(ctx, w.changed, nil, time.Hour)
				continue
			}
			connection, compared = state.Connection, time.Now()
			var failed []string
			failed, err = copier.writeAll(ctx, services)
			left.update(nil, failed)
		} else {
			changes := w.changes(left.due())
			var failed []string
			failed, err = copier.writeChanged(ctx, changes)
			left.update(changes, failed)
		}
		if err != nil && ctx.Err() == nil {
			failures++
			c.config.Log.Error("cannot copy the registry to ZooKeeper; it is tried again", "reason", err)
			_ = backoff.Sleep(ctx, retryWrite.After(failures))
			continue
		}
		failures = 0
		_, changed := copier.client.State()
		wait(ctx, w.changed, changed, left.wait(c.config.Compare-time.Since(compared)))
	}
}

// connectTimeout is how long a connection may take before that is logged.
const connectTimeout = 5 * time.Second

// connected waits for a connection, and logs if there is none for long.
func (c *Companion) connected(ctx context.Context, client *zk.Client) (zk.State, error) {
	waiting, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	state, err := client.AwaitConnected(waiting)
	if err == nil || ctx.Err() != nil {
		return state, err
	}
	c.config.Log.Warn("ZooKeeper cannot be reached; its copy of the registry stays as it is", "servers", strings.Join(c.config.ZooKeeper.Servers, ","))
	return client.AwaitConnected(ctx)
}

// wait returns when there may be something to do.
func wait(ctx context.Context, a, b <-chan struct{}, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-a:
	case <-b:
	case <-timer.C:
	}
}
