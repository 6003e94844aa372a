package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// loadResult is what the master saw after it had warmed up.
type loadResult struct {
	AskedPerSecond, GrantedPerSecond float64
	Granted                          int
	P50, P90, P99, Most              time.Duration
}

// master asks at a constant rate, starts what it is given, and gives it back.
type master struct {
	options  options
	stream   grpc.BidiStreamingClient[masterv1.AllocateRequest, masterv1.AllocateResponse]
	managers map[string]nodev1.ContainerManagerClient
	starts   chan *masterv1.Allocation

	mu sync.Mutex
	// asked is when an ask that is not granted yet was sent.
	asked map[string]time.Time
	// back are containers to be given back, in the order of their time.
	back    []giveBack
	waited  []time.Duration
	from    time.Time
	numbers int
}

type giveBack struct {
	container string
	at        time.Time
}

// starters is how many containers the master starts at once.
const starters = 32

// runMaster runs the application master that a node was told to launch in a process of its own, so that what it measures
// is not how busy thousands of nodes are.
func runMaster(ctx context.Context, o options, launch *trackerv1.NodeCommand_Launch) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-master", "-resourcemanager", o.resourceManager, "-rate", fmt.Sprint(o.rate), "-for", o.length.String())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	for name, value := range launch.GetSpec().GetEnv() {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd.Run()
}

// beMaster is the master. It writes "warm" once it has warmed up, and what came out at its end.
func beMaster(ctx context.Context, o options) error {
	connection, err := dial(o.resourceManager)
	if err != nil {
		return err
	}
	defer connection.Close() //nolint:errcheck // nothing is left to be said
	var attempt int32
	if _, err := fmt.Sscan(os.Getenv("MAMMOTH_ATTEMPT"), &attempt); err != nil {
		return err
	}
	outer := ctx
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("MAMMOTH_TOKEN")))
	defer cancel()
	client := masterv1.NewApplicationMasterClient(connection)
	if _, err := client.Register(ctx, &masterv1.RegisterRequest{AppId: os.Getenv("MAMMOTH_APP_ID"), Attempt: attempt}); err != nil {
		return fmt.Errorf("register the master: %w", err)
	}
	m := &master{
		options: o, managers: map[string]nodev1.ContainerManagerClient{}, asked: map[string]time.Time{},
		starts: make(chan *masterv1.Allocation, 100_000), from: time.Now().Add(warmUp),
	}
	if m.stream, err = client.Allocate(ctx); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return ignoreEnd(groupCtx, m.receive()) })
	for range starters {
		group.Go(func() error { return ignoreEnd(groupCtx, m.start(groupCtx)) })
	}
	group.Go(func() error {
		defer cancel()
		return m.ask(groupCtx)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if outer.Err() != nil {
		return outer.Err()
	}
	return json.NewEncoder(os.Stdout).Encode(m.result())
}

// ignoreEnd takes what fails once the load is over for its end.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// ask sends a hundred requests a second until the time is over.
func (m *master) ask(ctx context.Context) error {
	const beat = 10 * time.Millisecond
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	began, end := time.Now(), m.from.Add(m.options.length)
	warm := false
	for sequence := int64(1); ; sequence++ {
		var now time.Time
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			now = time.Now() // not the tick, which is older if the one before took long
		}
		if !warm && now.After(m.from) {
			warm = true
			fmt.Println("warm")
		}
		if now.After(end) {
			return nil
		}
		request := &masterv1.AllocateRequest{Sequence: sequence}
		m.mu.Lock()
		for due := int(now.Sub(began).Seconds() * float64(m.options.rate)); m.numbers < due; m.numbers++ {
			id := fmt.Sprintf("load-%d/1", m.numbers)
			m.asked[id] = now
			request.Asks = append(request.Asks, &masterv1.Ask{Id: id, Count: 1, Resources: &corev1.Resources{CpuMillis: 500, MemoryBytes: 256 << 20, DiskBytes: 64 << 20}})
		}
		for len(m.back) > 0 && !m.back[0].at.After(now) {
			request.Release = append(request.Release, &masterv1.Release{ContainerId: m.back[0].container, Reason: "it has run for long enough"})
			m.back = m.back[1:]
		}
		m.mu.Unlock()
		if err := m.stream.Send(request); err != nil {
			return fmt.Errorf("ask: %w", err)
		}
	}
}

// receive notes how long every ask has waited.
func (m *master) receive() error {
	for {
		answer, err := m.stream.Recv()
		if err != nil {
			return fmt.Errorf("allocate: %w", err)
		}
		now := time.Now()
		m.mu.Lock()
		for _, allocation := range answer.GetAllocated() {
			ask := allocation.GetLease().GetAskId()
			if at, ok := m.asked[ask]; ok {
				delete(m.asked, ask)
				if at.After(m.from) {
					m.waited = append(m.waited, now.Sub(at))
				}
			}
		}
		m.mu.Unlock()
		for _, allocation := range answer.GetAllocated() {
			m.starts <- allocation
		}
	}
}

// start starts containers on their nodes.
func (m *master) start(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case allocation := <-m.starts:
			manager, err := m.manager(allocation.GetContainerManager())
			if err != nil {
				return err
			}
			if _, err := manager.Start(ctx, &nodev1.StartRequest{Token: allocation.GetToken(), Spec: &corev1.ContainerSpec{}}); err != nil {
				return fmt.Errorf("start a container: %w", err)
			}
			m.mu.Lock()
			m.back = append(m.back, giveBack{allocation.GetLease().GetContainerId(), time.Now().Add(heldFor)})
			m.mu.Unlock()
		}
	}
}

func (m *master) manager(address string) (nodev1.ContainerManagerClient, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.managers[address]; known != nil {
		return known, nil
	}
	connection, err := dial(address)
	if err != nil {
		return nil, err
	}
	m.managers[address] = nodev1.NewContainerManagerClient(connection)
	return m.managers[address], nil
}

func (m *master) result() loadResult {
	m.mu.Lock()
	defer m.mu.Unlock()
	// An ask that was never answered has waited until now.
	granted := len(m.waited)
	for _, at := range m.asked {
		if at.After(m.from) {
			m.waited = append(m.waited, time.Since(at))
		}
	}
	slices.Sort(m.waited)
	at := func(share float64) time.Duration {
		if len(m.waited) == 0 {
			return 0
		}
		return m.waited[min(len(m.waited)-1, int(share*float64(len(m.waited))))].Round(10 * time.Microsecond)
	}
	seconds := m.options.length.Seconds()
	return loadResult{
		AskedPerSecond: float64(len(m.waited)) / seconds, GrantedPerSecond: float64(granted) / seconds, Granted: granted,
		P50: at(0.5), P90: at(0.9), P99: at(0.99), Most: at(1),
	}
}
