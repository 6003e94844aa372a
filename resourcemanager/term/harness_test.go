package term

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/companions/registry/registrytest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/eventlog"
	"github.com/mammoth-os/mammoth/resourcemanager/images"
	"github.com/mammoth-os/mammoth/resourcemanager/recording"
	"github.com/mammoth-os/mammoth/resourcemanager/server"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// imageShelf is an image store with images that say a command.
type imageShelf map[string]images.Config

func (s imageShelf) Resolve(_ context.Context, name string) (string, images.Config, error) {
	config, ok := s[name]
	if !ok {
		return "", images.Config{}, fmt.Errorf("no image is named %q: %w", name, errdefs.ErrNotFound)
	}
	return "sha256:" + name, config, nil
}
func (s imageShelf) List(context.Context) ([]*apiv1.Image, error)            { return nil, nil }
func (s imageShelf) StoredBytes() (int64, error)                             { return 0, nil }
func (s imageShelf) Remove(context.Context, string) (freed int64, err error) { return 0, nil }
func (s imageShelf) Handler() http.Handler                                   { return http.NotFoundHandler() }

// testZone is a ResourceManager in a bubble, whose network is a pipe.
type testZone struct {
	t      *testing.T
	config Config
	board  *registrytest.Board
	images imageShelf
	queues string
	// local keeps out whom the kernel does not know, such as nodes that come through the pipe.
	local    bool
	open     func() store.Store
	rm       *Term
	listener *bufconn.Listener
	reports  time.Duration
	conn     *grpc.ClientConn
	end      context.CancelFunc
	ended    chan error
}

// inZone runs a test in a bubble with a ResourceManager on a memory store.
func inZone(t *testing.T, test func(*testZone)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		disk := &store.Disk{}
		z := newTestZone(t, func() store.Store {
			return store.OpenMemory(disk, store.Options{Now: time.Now(), EventRetention: 10_000})
		})
		defer z.stop()
		test(z)
	})
}

// daysInZone is inZone for tests of whole days: nodes report every minute, so that a day does not take seconds.
func daysInZone(t *testing.T, test func(*testZone)) {
	t.Helper()
	inZone(t, func(z *testZone) {
		z.reports = time.Minute
		z.restart()
		test(z)
	})
}

func newTestZone(t *testing.T, open func() store.Store) *testZone {
	z := &testZone{
		t: t, open: open,
		images: imageShelf{
			"web:1":  {Entrypoint: []string{"/web"}},
			"web:2":  {Entrypoint: []string{"/web"}},
			"bare:1": {},
		},
	}
	z.start()
	return z
}

func (z *testZone) start() {
	z.t.Helper()
	reports := cmp.Or(z.reports, time.Second)
	z.config = Config{
		Settings: zone.Settings{
			Name: "local", Version: "test", Listen: "127.0.0.1:7070", Address: "bufconn", QueueFile: z.queues,
			NodeTimeout: 10 * reports, ReportInterval: reports, KeyRotation: 24 * time.Hour, AllowInsecure: !z.local,
		},
		EventRetention: 10_000, Images: z.images, Metrics: NewMetrics(), Logger: slog.New(slog.DiscardHandler),
		Registry: func(epoch int64, _ Observer) Registry {
			z.board = registrytest.NewBoard(epoch)
			return z.board
		},
	}
	if z.reports == 0 && !underRace { // days have too many turns
		z.config.Record = filepath.Join(z.t.TempDir(), "recording")
	}
	z.listener = bufconn.Listen(1 << 20)
	rm, err := Begin(z.t.Context(), z.config, z.open())
	if err != nil {
		z.t.Fatal(err)
	}
	served := server.New(server.Config{
		Version: "test", AllowInsecure: !z.local, Uploads: z.images.Handler(), Metrics: z.config.Metrics.Handler(), Logger: z.config.Logger,
	}, z.listener)
	ctx, cancel := context.WithCancel(context.Background())
	stepDown, err := served.Lead(ctx, server.Term{Services: rm.Services(), Ready: rm.Ready})
	if err != nil {
		z.t.Fatal(err)
	}
	z.rm, z.end, z.ended = rm, cancel, make(chan error, 1)
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return served.Run(running) })
	group.Go(func() error {
		defer stepDown()
		return rm.Run(running)
	})
	go func() { z.ended <- group.Wait() }()
	z.conn = z.dial()
	synctest.Wait()
}

func (z *testZone) dial() *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///zone",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return z.listener.DialContext(ctx) }),
	)
	if err != nil {
		z.t.Fatal(err)
	}
	return conn
}

func (z *testZone) stop() {
	z.t.Helper()
	_ = z.conn.Close()
	z.end()
	if err := <-z.ended; err != nil {
		z.t.Errorf("the ResourceManager ended with %v", err)
	}
	z.replay()
}

// replay plays back what was recorded since the start, and compares every decision.
func (z *testZone) replay() {
	z.t.Helper()
	if z.config.Record == "" {
		return
	}
	file, err := os.Open(z.config.Record)
	if err != nil {
		z.t.Fatal(err)
	}
	defer file.Close()
	_, err = recording.Replay(file, func(turn recording.Turn) error {
		if !turn.Same {
			return fmt.Errorf("turn %d at %v, of %+v, decided %+v, and something else before", turn.Number, turn.Now, turn.Inputs, turn.Ready)
		}
		return nil
	})
	if err != nil {
		z.t.Errorf("played back: %v", err)
	}
}

func (z *testZone) restart() {
	z.t.Helper()
	z.stop()
	z.start()
}

// pass lets the bubble's clock go on.
func (z *testZone) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (z *testZone) apps() apiv1.AppsClient { return apiv1.NewAppsClient(z.conn) }

func (z *testZone) deploy(spec *apiv1.AppSpec) *apiv1.App {
	z.t.Helper()
	response, err := z.apps().Deploy(context.Background(), &apiv1.DeployRequest{Spec: spec, IfGeneration: -1})
	if err != nil {
		z.t.Fatalf("deploy %s: %v", spec.GetName(), err)
	}
	synctest.Wait()
	return response.GetApp()
}

func (z *testZone) app(name string) *apiv1.App {
	z.t.Helper()
	synctest.Wait()
	app, err := z.apps().GetApp(context.Background(), &apiv1.GetAppRequest{Name: name})
	if err != nil {
		z.t.Fatalf("get %s: %v", name, err)
	}
	return app
}

func (z *testZone) node(name string) *apiv1.Node {
	z.t.Helper()
	synctest.Wait()
	node, err := apiv1.NewNodesClient(z.conn).GetNode(context.Background(), &apiv1.GetNodeRequest{Name: name})
	if err != nil {
		z.t.Fatalf("get node %s: %v", name, err)
	}
	return node
}

// events gives the messages of stored events of an app or, without one, of all.
func (z *testZone) events(app string) []*apiv1.Event {
	z.t.Helper()
	synctest.Wait()
	stream, err := apiv1.NewEventsClient(z.conn).WatchEvents(context.Background(), &apiv1.WatchEventsRequest{App: app})
	if err != nil {
		z.t.Fatal(err)
	}
	var events []*apiv1.Event
	for {
		event, err := stream.Recv()
		if err != nil {
			return events
		}
		if err := eventlog.CheckKind(event.GetKind()); err != nil {
			z.t.Errorf("nobody can look for %v: %v", event, err)
		}
		events = append(events, event)
	}
}

func webSpec(instances int32) *apiv1.AppSpec {
	return &apiv1.AppSpec{Name: "web", Framework: "dynamicdeploy", Roles: []*apiv1.RoleSpec{{
		Image: "web:1", Instances: instances,
		Resources: &corev1.Resources{CpuMillis: 500, MemoryBytes: 64 << 20, DiskBytes: 64 << 20},
		Ports:     []*corev1.Port{{Name: "http", ContainerPort: 8080}},
	}}}
}

// fakeNode is a NodeManager that does as the test says.
type fakeNode struct {
	restarts int
	z        *testZone
	name     string
	capacity *corev1.Resources
	keys     []*trackerv1.TokenKey
	reap     []string
	session  string
	cancel   context.CancelFunc
	stream   grpc.BidiStreamingClient[trackerv1.NodeReport, trackerv1.NodeCommand]

	mu         sync.Mutex
	containers map[string]*corev1.ContainerStatus
	launches   []*trackerv1.NodeCommand_Launch
	stops      []*trackerv1.NodeCommand_Stop
	forgotten  []string
	// companions are what it says that it has of companion apps, ended what it was told to end.
	companions, ended []string
	// deaf ignores commands to stop.
	deaf atomic.Bool
}

func (z *testZone) addNode(name string) *fakeNode {
	z.t.Helper()
	n := &fakeNode{
		z: z, name: name, containers: map[string]*corev1.ContainerStatus{},
		capacity: &corev1.Resources{CpuMillis: 4000, MemoryBytes: 4 << 30, DiskBytes: 40 << 30, Ports: 100},
	}
	n.register()
	return n
}

// port is where its NodeManager listens; one that was restarted may listen elsewhere.
func (n *fakeNode) port() string { return fmt.Sprintf(":%d", 7071+n.restarts) }

// register tells the node's truth and opens its stream.
func (n *fakeNode) register() {
	n.z.t.Helper()
	n.mu.Lock()
	var statuses []*corev1.ContainerStatus
	for _, status := range n.containers {
		statuses = append(statuses, proto.CloneOf(status))
	}
	n.mu.Unlock()
	client := trackerv1.NewResourceTrackerClient(n.z.conn)
	response, err := client.Register(context.Background(), &trackerv1.RegisterRequest{
		NodeId: n.name, Address: "10.0.0.1", ContainerManager: n.name + n.port(), Capacity: n.capacity, Containers: statuses,
		Health: &corev1.NodeHealth{Healthy: true}, Version: "test", StateDirs: n.companions,
		FolderId: "folder of " + n.name, ProcessId: "process of " + n.name,
	})
	if err != nil {
		n.z.t.Fatalf("register %s: %v", n.name, err)
	}
	n.keys, n.reap, n.session = response.GetKeys(), response.GetReap(), response.GetSession()
	for _, name := range n.reap {
		delete(n.containers, name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	n.stream, err = client.Session(ctx)
	if err != nil {
		n.z.t.Fatal(err)
	}
	if err := n.stream.Send(&trackerv1.NodeReport{Session: n.session}); err != nil {
		n.z.t.Fatal(err)
	}
	go n.listen(n.stream)
	go n.beat(n.stream, response.GetReportInterval().AsDuration())
	synctest.Wait()
}

func (n *fakeNode) beat(stream grpc.BidiStreamingClient[trackerv1.NodeReport, trackerv1.NodeCommand], interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-stream.Context().Done():
			return
		case <-ticker.C:
			n.mu.Lock()
			err := stream.Send(&trackerv1.NodeReport{})
			n.mu.Unlock()
			if err != nil {
				return
			}
		}
	}
}

func (n *fakeNode) listen(stream grpc.BidiStreamingClient[trackerv1.NodeReport, trackerv1.NodeCommand]) {
	for {
		command, err := stream.Recv()
		if err != nil {
			return
		}
		n.mu.Lock()
		switch {
		case command.GetLaunch() != nil:
			n.launches = append(n.launches, command.GetLaunch())
		case command.GetStop() != nil:
			n.stops = append(n.stops, command.GetStop())
		case command.GetForget() != nil:
			n.forgotten = append(n.forgotten, command.GetForget().GetContainerIds()...)
			for _, name := range command.GetForget().GetContainerIds() {
				delete(n.containers, name)
			}
		case command.GetRemoveStateDir() != nil:
			n.ended = append(n.ended, command.GetRemoveStateDir().GetName())
		case command.GetKeys() != nil:
			n.keys = command.GetKeys().GetKeys()
		}
		deaf := n.deaf.Load()
		n.mu.Unlock()
		if stop := command.GetStop(); stop != nil && !deaf {
			n.done(stop.GetContainerId(), &corev1.Exit{Reason: stop.GetReason(), Message: stop.GetMessage()})
		}
	}
}

// cut ends the node's connection without a word: it goes on running what it runs.
func (n *fakeNode) cut() {
	n.cancel()
	synctest.Wait()
}

// report tells a container's state.
func (n *fakeNode) report(container string, change func(*corev1.ContainerStatus)) {
	n.mu.Lock()
	status := n.containers[container]
	if status == nil {
		status = &corev1.ContainerStatus{Lease: &corev1.Lease{ContainerId: container}, Phases: []*corev1.Phase{{Name: "run", DurationMs: 1}}}
		n.containers[container] = status
	}
	change(status)
	status.Sequence++
	_ = n.stream.Send(&trackerv1.NodeReport{Containers: []*corev1.ContainerStatus{proto.CloneOf(status)}})
	n.mu.Unlock()
}

func (n *fakeNode) run(container string, labels map[string]string) {
	n.report(container, func(s *corev1.ContainerStatus) {
		s.State, s.Health, s.Labels = corev1.ContainerStatus_RUNNING, corev1.ContainerStatus_HEALTHY, labels
		s.Ports = []*corev1.PortMapping{{Name: "http", ContainerPort: 8080, HostPort: 30001}}
	})
}

func (n *fakeNode) done(container string, exit *corev1.Exit) {
	n.report(container, func(s *corev1.ContainerStatus) { s.State, s.Exit = corev1.ContainerStatus_DONE, exit })
}

// lastLaunch is the master that the node was told to launch most recently.
func (n *fakeNode) lastLaunch() *trackerv1.NodeCommand_Launch {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.launches) == 0 {
		n.z.t.Fatalf("%s was told to launch nothing", n.name)
	}
	return n.launches[len(n.launches)-1]
}

func (n *fakeNode) stopped(container string) bool {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.stops, func(stop *trackerv1.NodeCommand_Stop) bool { return stop.GetContainerId() == container })
}

// fakeMaster is an application master that does as the test says.
type fakeMaster struct {
	z       *testZone
	ctx     context.Context
	cancel  context.CancelFunc
	client  masterv1.ApplicationMasterClient
	app     string
	attempt int32
	// container is the one that it runs in.
	container string
	bearer    string
	register  *masterv1.RegisterResponse
	stream    grpc.BidiStreamingClient[masterv1.AllocateRequest, masterv1.AllocateResponse]
	sequence  int64

	mu      sync.Mutex
	answers []*masterv1.AllocateResponse
}

// launchMaster does what a node does with a Launch: the master runs, registers and opens its stream.
func (n *fakeNode) launchMaster() *fakeMaster {
	n.z.t.Helper()
	launch := n.lastLaunch()
	env := launch.GetSpec().GetEnv()
	claims := &corev1.TokenClaims{}
	if err := proto.Unmarshal(launch.GetToken().GetClaims(), claims); err != nil {
		n.z.t.Fatal(err)
	}
	n.run(claims.GetLease().GetContainerId(), map[string]string{"mammoth.role": "master"})
	m := &fakeMaster{z: n.z, container: claims.GetLease().GetContainerId(), app: env["MAMMOTH_APP_ID"], bearer: env["MAMMOTH_TOKEN"]}
	_, _ = fmt.Sscan(env["MAMMOTH_ATTEMPT"], &m.attempt)
	m.ctx, m.cancel = context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+m.bearer))
	m.connect()
	return m
}

func (m *fakeMaster) connect() {
	m.z.t.Helper()
	m.client = masterv1.NewApplicationMasterClient(m.z.conn)
	var err error
	m.register, err = m.client.Register(m.ctx, &masterv1.RegisterRequest{AppId: m.app, Attempt: m.attempt})
	if err != nil {
		m.z.t.Fatalf("register attempt %d: %v", m.attempt, err)
	}
	m.openStream()
}

func (m *fakeMaster) openStream() {
	m.z.t.Helper()
	stream, err := m.client.Allocate(m.ctx)
	if err != nil {
		m.z.t.Fatal(err)
	}
	m.stream, m.sequence = stream, 0
	m.mu.Lock()
	m.answers = nil
	m.mu.Unlock()
	go func() {
		for {
			answer, err := stream.Recv()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.answers = append(m.answers, answer)
			m.mu.Unlock()
		}
	}()
	synctest.Wait()
}

// say sends a request and gives everything that was answered since the last call.
func (m *fakeMaster) say(request *masterv1.AllocateRequest) []*masterv1.AllocateResponse {
	m.z.t.Helper()
	m.sequence++
	request.Sequence = m.sequence
	if err := m.stream.Send(request); err != nil {
		m.z.t.Fatalf("allocate: %v", err)
	}
	return m.heard()
}

func (m *fakeMaster) heard() []*masterv1.AllocateResponse {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	answers := m.answers
	m.answers = nil
	return answers
}

func allocated(answers []*masterv1.AllocateResponse) []*masterv1.Allocation {
	var all []*masterv1.Allocation
	for _, answer := range answers {
		all = append(all, answer.GetAllocated()...)
	}
	return all
}

func ask1(name string) *masterv1.Ask {
	return &masterv1.Ask{
		Id: name + "/1", Count: 1, Group: "",
		Resources: &corev1.Resources{CpuMillis: 500, MemoryBytes: 64 << 20, DiskBytes: 64 << 20, Ports: 1},
	}
}

// startInstance asks for a container, runs it on the node and puts it into service.
func (m *fakeMaster) startInstance(n *fakeNode, name string) string {
	m.z.t.Helper()
	granted := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask1(name)}}))
	if len(granted) != 1 {
		m.z.t.Fatalf("%d containers were granted for %s, want one", len(granted), name)
	}
	container := granted[0].GetLease().GetContainerId()
	m.say(&masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{{
		Id: name, ContainerId: container, Version: 1, State: apiv1.Instance_STARTING, InService: true, Weight: 100,
	}}})
	n.run(container, map[string]string{"instance": name, "version": "1"})
	m.say(&masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{{
		Id: name, ContainerId: container, Version: 1, State: apiv1.Instance_RUNNING, InService: true, Weight: 100,
	}}})
	return container
}

func (n *fakeNode) reportHealth(health *corev1.NodeHealth) {
	n.mu.Lock()
	_ = n.stream.Send(&trackerv1.NodeReport{Health: health})
	n.mu.Unlock()
	synctest.Wait()
}
