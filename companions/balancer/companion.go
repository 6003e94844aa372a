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

// Proxy is the program that routes. Its methods are called by one goroutine at a time, and block until they are
// done or ctx ends.
type Proxy interface {
	// Start makes sure that the proxy runs, with the newest good configuration it has; before the first one, with
	// one that routes nothing. One that runs already is left alone.
	Start(ctx context.Context) error
	// Apply makes the proxy route by routes, and returns once it routes by nothing older. It is idempotent, and an
	// error leaves what was routed before as it was. What alone cannot be routed is returned, and the rest is.
	Apply(ctx context.Context, routes map[string]Route) ([]*companionv1.Refusal, error)
	// Rest is how long to wait before routes are applied, because the proxy was reloaded recently; zero or less for not at all.
	// It does not block.
	Rest(routes map[string]Route) time.Duration
	// Alive reports whether the proxy runs. It does not block.
	Alive() bool
	// Traffic is what the proxy has counted since the last call.
	Traffic() []*companionv1.Traffic
}

// Config is how a companion follows the zone.
type Config struct {
	// The balancer's name, unique in the zone and the same after a restart.
	Name string
	// How long the zone waits for this balancer after its connection was lost.
	LostAfter time.Duration
	// Whether Run says on its end that the balancer routes no more.
	Leave bool
	// Applied is called once the zone's routes are applied for the first time; may be nil.
	Applied func()
	Log     *slog.Logger
}

// Validate says what is wrong with a config.
func (c Config) Validate() error {
	switch {
	case !isServiceName(c.Name):
		return fmt.Errorf("the balancer's name %q must be of letters, digits, \"-\", \"_\" and \".\": %w", c.Name, errdefs.ErrInvalidArgument)
	case c.LostAfter < 0:
		return fmt.Errorf("the time to be waited for must not be negative: %w", errdefs.ErrInvalidArgument)
	case c.Log == nil:
		return fmt.Errorf("a balancer's companion needs a logger: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

const (
	// How often the proxy is looked after.
	lookAfter = 100 * time.Millisecond
	// How often traffic is reported.
	countEvery = time.Second
	// A snapshot of some hundred thousand instances.
	largestUpdate = 64 << 20
	// How often an unchanged plan is applied again, for what changes without the zone: certificates.
	applyAgain = time.Minute
	// How often Rest is asked again while the companion waits: old processes may have ended.
	askAgain = time.Second
)

var (
	retryConnection = backoff.Policy{Min: 50 * time.Millisecond, Max: 2 * time.Second}
	retryApply      = backoff.Policy{Min: time.Second, Max: 30 * time.Second}
	// Two balancers of one name take the place from each other, each time they connect.
	retryReplaced = backoff.Policy{Min: 5 * time.Second, Max: time.Minute}
)

// Companion keeps one proxy in step with the zone.
type Companion struct {
	config Config
	proxy  Proxy
	client companionv1.CompanionsClient
	// Has the connection try at once, whatever pause it has come to by itself; nil if it cannot be told.
	hurry func()
}

// New returns a companion that has yet to Run.
func New(config Config, conn grpc.ClientConnInterface, proxy Proxy) (*Companion, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	c := &Companion{config: config, proxy: proxy, client: companionv1.NewCompanionsClient(conn)}
	if dialer, ok := conn.(interface{ ResetConnectBackoff() }); ok {
		c.hurry = dialer.ResetConnectBackoff
	}
	return c, nil
}

// Run keeps the proxy in step until ctx ends. Without the zone the proxy goes on as it was.
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
	err := c.keep(ctx, connections)
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

// receive connects, and passes every update on, for ever.
func (c *Companion) receive(ctx context.Context, connections chan<- *connection) {
	replaced := 0
	for failures := 1; ctx.Err() == nil; failures++ {
		began := time.Now()
		told, err := c.connect(ctx, connections)
		if ctx.Err() != nil {
			return
		}
		if told {
			failures = 0
		}
		if time.Since(began) > retryReplaced.Max {
			replaced = 0
		}
		if errdefs.IsAborted(wire.Error(err)) {
			replaced++
			c.config.Log.Error("this balancer has lost its place in the zone; what is routed stays as it is", "balancer", c.config.Name, "reason", wire.Sentence(err))
			_ = backoff.Sleep(ctx, retryReplaced.After(replaced))
			continue
		}
		c.config.Log.Warn("the zone cannot be reached; what is routed stays as it is", "balancer", c.config.Name, "reason", wire.Sentence(err))
		_ = backoff.Sleep(ctx, retryConnection.After(failures))
		if c.hurry != nil {
			c.hurry()
		}
	}
}

func (c *Companion) connect(ctx context.Context, connections chan<- *connection) (told bool, err error) {
	// The stream outlives ctx by as much as it takes to say good-bye.
	streamCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stopped := context.AfterFunc(ctx, func() {
		time.AfterFunc(2*time.Second, cancel)
	})
	defer stopped()
	stream, err := c.client.Route(streamCtx, grpc.MaxCallRecvMsgSize(largestUpdate))
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
			return told, err
		}
		told = true
		select {
		case conn.updates <- update:
		case <-ctx.Done():
			// Wait for the other side's end, so that the good-bye is not cut off.
			for err == nil {
				_, err = stream.Recv()
			}
			return told, err
		}
	}
}

// state is what keep knows.
type state struct {
	conn *connection
	// What the zone wants, and the update that this is of; nil before the first.
	wanted     map[string]Route
	generation int64
	// Whether anything was applied yet.
	applied bool
	// Whether wanted has changed since it was applied.
	dirty bool
	// When it may be applied next, or is asked whether it may.
	next     time.Time
	failures int
	refusals int
}

// keep is the one goroutine that uses the proxy.
func (c *Companion) keep(ctx context.Context, connections <-chan *connection) error {
	s := &state{}
	look := time.NewTicker(lookAfter)
	defer look.Stop()
	count := time.NewTicker(countEvery)
	defer count.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for {
		if s.dirty && !time.Now().Before(s.next) {
			if rest := c.proxy.Rest(s.wanted); rest > 0 {
				s.next = time.Now().Add(min(rest, askAgain))
			} else {
				c.apply(ctx, s)
			}
		}
		switch {
		case s.dirty:
			due.Reset(time.Until(s.next))
		case s.wanted != nil:
			due.Reset(applyAgain)
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
			s.dirty = s.wanted != nil
		case <-look.C:
			if c.revive(ctx) {
				// What it was started with may be older than what was applied last.
				s.dirty = s.wanted != nil
			}
		case <-count.C:
			c.count(s)
		}
	}
}

// take makes an update part of what is wanted.
func (s *state) take(update *companionv1.RouteUpdate) {
	wanted := map[string]Route{}
	if !update.GetSnapshot() {
		wanted = maps.Clone(s.wanted)
	}
	for _, route := range update.GetRoutes() {
		wanted[route.GetService().GetName()] = Route{Service: route.GetService(), Expose: route.GetExpose()}
	}
	for _, name := range update.GetRemoved() {
		delete(wanted, name)
	}
	s.wanted, s.generation, s.dirty = wanted, update.GetGeneration(), true
	if s.failures == 0 {
		// Other routes may need no rest.
		s.next = time.Time{}
		return
	}
	// It may well take what is without the fault of the routes before.
	if soon := time.Now().Add(retryApply.Min); soon.Before(s.next) {
		s.next = soon
	}
}

// apply has the proxy route what is wanted, and confirms it.
func (c *Companion) apply(ctx context.Context, s *state) {
	started := time.Now()
	refusals, err := c.proxy.Apply(ctx, s.wanted)
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		s.failures++
		s.next = time.Now().Add(retryApply.After(s.failures))
		c.config.Log.Error("the new routes could not be applied; the old ones stay", "balancer", c.config.Name, "reason", err)
		return
	}
	if !s.applied && c.config.Applied != nil {
		c.config.Applied()
	}
	s.dirty, s.failures, s.applied = false, 0, true
	s.next = time.Time{}
	if len(refusals) != s.refusals {
		s.refusals = len(refusals)
		for _, refusal := range refusals {
			c.config.Log.Warn("a service is not routed", "balancer", c.config.Name, "app", refusal.GetService(), "reason", refusal.GetReason())
		}
	}
	c.config.Log.Debug("routes are applied", "balancer", c.config.Name, "generation", s.generation, "services", len(s.wanted), "took", time.Since(started))
	s.send(&companionv1.RouteReport{Applied: s.generation, Refusals: refusals})
}

// send reports on the present connection. If it is lost, the next one begins with everything anew.
func (s *state) send(report *companionv1.RouteReport) {
	if s.conn != nil {
		_ = s.conn.stream.Send(report)
	}
}

// revive starts a proxy that has died, and reports whether it did.
func (c *Companion) revive(ctx context.Context) bool {
	if c.proxy.Alive() {
		return false
	}
	c.config.Log.Warn("the proxy is gone; it is started again", "balancer", c.config.Name)
	if err := c.proxy.Start(ctx); err != nil && !errors.Is(err, context.Canceled) {
		c.config.Log.Error("the proxy cannot be started", "balancer", c.config.Name, "reason", err)
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

// leave says good-bye if the proxy ends with the companion.
func (c *Companion) leave(s *state) {
	if c.config.Leave {
		s.send(&companionv1.RouteReport{Leaving: true})
	}
	if s.conn != nil {
		_ = s.conn.stream.CloseSend()
	}
}
