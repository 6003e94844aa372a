package balancer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/wire"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// Proxy is the program that routes. Its methods are called by one goroutine at a time, and block until they are done or ctx
// ends.
type Proxy interface {
	// Start starts the proxy unless it runs, with its last good configuration, or with one that routes nothing if there is
	// none.
	Start(ctx context.Context) error
	// Apply applies the routes, and returns once the proxy uses no older ones. It may be repeated. An error leaves the
	// earlier routes in force. It returns the services that cannot be routed; the others are.
	Apply(ctx context.Context, routes map[string]Route) ([]*companionv1.Refusal, error)
	// ReloadDelay is how long to wait before the routes are applied, because the proxy was reloaded recently; zero or less
	// for no wait. It does not block.
	ReloadDelay(routes map[string]Route) time.Duration
	// Alive reports whether the proxy runs. It does not block.
	Alive() bool
	// Traffic returns the counts since the last call.
	Traffic() []*companionv1.Traffic
}

// Config is the configuration of a Companion.
type Config struct {
	// The balancer's name, unique in the zone and the same after a restart.
	Name string
	// How long the zone waits for this balancer after its connection was lost.
	LostAfter time.Duration
	// Whether Run reports at its end that the balancer does not route any more.
	LeaveOnExit bool
	// Applied is called once the zone's routes are applied for the first time; may be nil.
	Applied func()
	Log     *slog.Logger
}

// Validate returns what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case !isServiceName(c.Name):
		return fmt.Errorf("the balancer's name %q must be of letters, digits, \"-\", \"_\" and \".\": %w", c.Name, errdefs.ErrInvalidArgument)
	case c.LostAfter < 0:
		return fmt.Errorf("the time that the zone waits must not be negative: %w", errdefs.ErrInvalidArgument)
	case c.Log == nil:
		return fmt.Errorf("a balancer's companion needs a logger: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

const (
	// How often the proxy is checked.
	checkInterval = 100 * time.Millisecond
	// How often traffic is reported.
	trafficInterval = time.Second
	// A snapshot of some hundred thousand instances.
	maxUpdate = 64 << 20
	// How often unchanged routes are applied again, for changes outside the zone: certificates.
	reapplyInterval = time.Minute
	// How often ReloadDelay is called while the companion waits: old processes may have ended.
	retryInterval = time.Second
)

var (
	retryConnection = backoff.Policy{Min: 50 * time.Millisecond, Max: 2 * time.Second}
	retryApply      = backoff.Policy{Min: time.Second, Max: 30 * time.Second}
	// Two balancers of one name replace each other, each time they connect.
	retryReplaced = backoff.Policy{Min: 5 * time.Second, Max: time.Minute}
)

// Companion applies the zone's routes to one proxy.
type Companion struct {
	config Config
	proxy  Proxy
	client companionv1.CompanionsClient
	// Reconnects at once, without waiting for the connection's own back-off; nil if that is not possible.
	reconnect func()
}

// New returns a companion that does not run yet.
func New(config Config, conn grpc.ClientConnInterface, proxy Proxy) (*Companion, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	c := &Companion{config: config, proxy: proxy, client: companionv1.NewCompanionsClient(conn)}
	if dialer, ok := conn.(interface{ ResetConnectBackoff() }); ok {
		c.reconnect = dialer.ResetConnectBackoff
	}
	return c, nil
}

// Run keeps the proxy up to date until ctx ends. Without the zone the proxy keeps its routes.
func (c *Companion) Run(ctx context.Context) error {
	if err := c.proxy.Start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	connections := make(chan *connection)
	received := make(chan struct{})
	go func() {
		defer close(received)
		c.receive(ctx, connections)
	}()
	err := c.run(ctx, connections)
	cancel()
	<-received
	return err
}

// connection is one stream to the zone.
type connection struct {
	// Ended by cancel.
	stream  grpc.BidiStreamingClient[companionv1.RouteReport, companionv1.RouteUpdate]
	updates chan *companionv1.RouteUpdate
}

// receive connects again and again, and passes on every update.
func (c *Companion) receive(ctx context.Context, connections chan<- *connection) {
	replaced := 0
	for failures := 1; ctx.Err() == nil; failures++ {
		began := time.Now()
		received, err := c.connect(ctx, connections)
		if ctx.Err() != nil {
			return
		}
		if received {
			failures = 0
		}
		if time.Since(began) > retryReplaced.Max {
			replaced = 0
		}
		if errdefs.IsAborted(wire.Error(err)) {
			replaced++
			c.config.Log.Error("another balancer of the same name has connected; the routes stay as they are", "balancer", c.config.Name, "reason", wire.Sentence(err))
			_ = backoff.Sleep(ctx, retryReplaced.After(replaced))
			continue
		}
		c.config.Log.Warn("the zone cannot be reached; the routes stay as they are", "balancer", c.config.Name, "reason", wire.Sentence(err))
		_ = backoff.Sleep(ctx, retryConnection.After(failures))
		if c.reconnect != nil {
			c.reconnect()
		}
	}
}

func (c *Companion) connect(ctx context.Context, connections chan<- *connection) (received bool, err error) {
	// The stream outlives ctx by the time that the last report takes.
	streamCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stopped := context.AfterFunc(ctx, func() {
		time.AfterFunc(2*time.Second, cancel)
	})
	defer stopped()
	stream, err := c.client.Route(streamCtx, grpc.MaxCallRecvMsgSize(maxUpdate))
	if err != nil {
		return false, err
	}
	hello := &companionv1.RouteReport{Balancer: c.config.Name}
	if c.config.LostAfter > 0 {
		hello.LostAfter = durationpb.New(c.config.LostAfter)
	}
	if err := stream.Send(hello); err != nil {
		_, err = stream.Recv()
		return false, err
	}
	conn := &connection{stream: stream, updates: make(chan *companionv1.RouteUpdate)}
	select {
	case connections <- conn:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	defer close(conn.updates)
	for {
		update, err := stream.Recv()
		if err != nil {
			return received, err
		}
		received = true
		select {
		case conn.updates <- update:
		case <-ctx.Done():
			// Wait for the other end, so that the last report arrives.
			for err == nil {
				_, err = stream.Recv()
			}
			return received, err
		}
	}
}

// state belongs to the goroutine of run.
type state struct {
	conn *connection
	// The routes of the zone, and the generation of the update; nil before the first.
	desired    map[string]Route
	generation int64
	// Whether anything was applied yet.
	applied bool
	// Whether desired has changed since it was applied.
	dirty bool
	// When it may be applied next, or when ReloadDelay is called again.
	next time.Time
	// When unchanged routes are applied again.
	again    time.Time
	failures int
	refusals int
}

// run is the only goroutine that uses the proxy.
func (c *Companion) run(ctx context.Context, connections <-chan *connection) error {
	s := &state{}
	look := time.NewTicker(checkInterval)
	defer look.Stop()
	count := time.NewTicker(trafficInterval)
	defer count.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for {
		if s.dirty && !time.Now().Before(s.next) {
			if rest := c.proxy.ReloadDelay(s.desired); rest > 0 {
				s.next = time.Now().Add(min(rest, retryInterval))
			} else {
				c.apply(ctx, s)
			}
		}
		switch {
		case s.dirty:
			due.Reset(time.Until(s.next))
		case s.desired != nil:
			due.Reset(time.Until(s.again))
		}
		var updates <-chan *companionv1.RouteUpdate
		if s.conn != nil {
			updates = s.conn.updates
		}
		select {
		case <-ctx.Done():
			c.leave(s)
			return nil
		case s.conn = <-connections:
		case update, open := <-updates:
			if !open {
				s.conn = nil
				continue
			}
			s.take(update)
		case <-due.C:
			s.dirty = s.desired != nil
		case <-look.C:
			if c.restart(ctx) {
				// It may have been started with older routes than the last ones.
				s.dirty = s.desired != nil
			}
		case <-count.C:
			c.count(s)
		}
	}
}

// take applies an update to the desired routes.
func (s *state) take(update *companionv1.RouteUpdate) {
	wanted := map[string]Route{}
	if !update.GetSnapshot() {
		wanted = maps.Clone(s.desired)
	}
	for _, route := range update.GetRoutes() {
		wanted[route.GetService().GetName()] = Route{Service: route.GetService(), Expose: route.GetExpose()}
	}
	for _, name := range update.GetRemoved() {
		delete(wanted, name)
	}
	s.desired, s.generation, s.dirty = wanted, update.GetGeneration(), true
	if s.failures == 0 {
		// Other routes may need no delay.
		s.next = time.Time{}
		return
	}
	// The proxy may accept the new routes although it refused the ones before.
	if soon := time.Now().Add(retryApply.Min); soon.Before(s.next) {
		s.next = soon
	}
}

// apply applies the desired routes to the proxy, and confirms them.
func (c *Companion) apply(ctx context.Context, s *state) {
	started := time.Now()
	refusals, err := c.proxy.Apply(ctx, s.desired)
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		s.failures++
		s.next = time.Now().Add(retryApply.After(s.failures))
		c.config.Log.Error("cannot apply the new routes; the old ones stay", "balancer", c.config.Name, "reason", err)
		return
	}
	if !s.applied && c.config.Applied != nil {
		c.config.Applied()
	}
	s.dirty, s.failures, s.applied = false, 0, true
	s.next, s.again = time.Time{}, time.Now().Add(reapplyInterval)
	if len(refusals) != s.refusals {
		s.refusals = len(refusals)
		for _, refusal := range refusals {
			c.config.Log.Warn("a service is not routed", "balancer", c.config.Name, "app", refusal.GetService(), "reason", refusal.GetReason())
		}
	}
	c.config.Log.Debug("routes are applied", "balancer", c.config.Name, "generation", s.generation, "services", len(s.desired), "took", time.Since(started))
	s.send(&companionv1.RouteReport{Applied: s.generation, Refusals: refusals})
}

// send sends a report on the present connection. If it is lost, the next one begins with everything.
func (s *state) send(report *companionv1.RouteReport) {
	if s.conn != nil {
		_ = s.conn.stream.Send(report)
	}
}

// restart starts the proxy if it has ended, and reports whether it had.
func (c *Companion) restart(ctx context.Context) bool {
	if c.proxy.Alive() {
		return false
	}
	c.config.Log.Warn("the proxy has ended; it is started again", "balancer", c.config.Name)
	if err := c.proxy.Start(ctx); err != nil && !errors.Is(err, context.Canceled) {
		c.config.Log.Error("cannot start the proxy", "balancer", c.config.Name, "reason", err)
		_ = backoff.Sleep(ctx, time.Second)
	}
	return true
}

func (c *Companion) count(s *state) {
	if s.conn == nil {
		return
	}
	if traffic := c.proxy.Traffic(); len(traffic) > 0 {
		s.send(&companionv1.RouteReport{Traffic: traffic})
	}
}

// leave reports that the balancer does not route any more, if the proxy ends with the companion.
func (c *Companion) leave(s *state) {
	if c.config.LeaveOnExit {
		s.send(&companionv1.RouteReport{Leaving: true})
	}
	if s.conn != nil {
		_ = s.conn.stream.CloseSend()
	}
}
