package nodemanager_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/appmaster/mastertest"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/token"
	"github.com/mammoth-os/mammoth/nodemanager"
	"github.com/mammoth-os/mammoth/nodemanager/recovery"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/fake"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// zone is a ResourceManager that the test drives, and one node on an engine that outlives it.
type zone struct {
	*testing.T
	dir    string
	engine *fake.Engine
	key    token.Key
	app    id.App

	config func(*nodemanager.Config)

	rm *resourceManager

	node   nodev1.ContainerManagerClient
	stop   func()
	nodeAt *bufconn.Listener
}

// resourceManager is the one of mastertest, from the view of one node. It does not acknowledge ends until the test does.
type resourceManager struct {
	*mastertest.Manager
	zone *mastertest.Zone
}

func newResourceManager(t *testing.T, node string, key token.Key) *resourceManager {
	zone := mastertest.NewZone(t, "web")
	zone.SetKeys(&trackerv1.TokenKey{Id: key.ID, Secret: key.Secret})
	zone.KeepEnds()
	return &resourceManager{zone.Manager(node), zone}
}

func (rm *resourceManager) status(key id.Container) *corev1.ContainerStatus {
	return rm.Status(key.String())
}

func (rm *resourceManager) lastRegistration() *trackerv1.RegisterRequest {
	all := rm.Registrations()
	if len(all) == 0 {
		return nil
	}
	return all[len(all)-1]
}

// inZone runs a test in a bubble, in a zone with one node that runs.
func inZone(t *testing.T, test func(*zone)) { inZoneWith(t, nil, test) }

func inZoneWith(t *testing.T, config func(*nodemanager.Config), test func(*zone)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		z := &zone{
			T: t, dir: dir, engine: fake.NewEngine(), key: token.Key{ID: 1, Secret: []byte("the secret of the zone")}, config: config,
			app: id.App{ClusterStart: 1000, Seq: 1},
		}
		z.rm = newResourceManager(t, "n1", z.key)
		z.startNode()
		test(z)
		z.stop()
		z.engine.SetDown(nil)
		for _, c := range z.inEngine() {
			if err := z.runtime().Stop(context.Background(), c.ID, 0); err != nil {
				t.Error(err)
			}
		}
	})
}

func (z *zone) runtime() *fake.Runtime {
	return fake.New(fake.Config{Engine: z.engine, Node: "n1", StartTime: 20 * time.Millisecond})
}

// startNode builds a NodeManager on the zone's folder and engine, and runs it.
func (z *zone) startNode() {
	z.Helper()
	z.nodeAt = bufconn.Listen(1 << 20)
	docker := z.runtime()
	config := nodemanager.Config{
		Dir: z.dir, NodeID: "n1", ResourceManager: "127.0.0.1:7070", Listen: "127.0.0.1:7071", Listener: z.nodeAt,
		Capacity: resource.Vector{resource.CPU: 4000, resource.Memory: 1 << 30},
		Runtimes: map[corev1.ContainerSpec_Runtime]runtime.Runtime{corev1.ContainerSpec_DOCKER: docker},
		Logger:   slog.New(slog.NewTextHandler(z.Output(), nil)), Version: "test",
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return z.rm.zone.Dial(ctx, mastertest.Address)
		})},
	}
	if z.config != nil {
		z.config(&config)
	}
	nm, err := nodemanager.New(config)
	if err != nil {
		z.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- nm.Run(ctx) }()
	at := z.nodeAt
	conn, err := grpc.NewClient("passthrough:///node", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return at.DialContext(ctx) }))
	if err != nil {
		z.Fatal(err)
	}
	z.node = nodev1.NewContainerManagerClient(conn)
	z.stop = func() {
		z.Helper()
		_ = conn.Close()
		cancel()
		if err := <-done; err != nil {
			z.Errorf("the NodeManager ended with %v", err)
		}
	}
	z.settle()
}

// settle waits until all goroutines are blocked.
func (z *zone) settle() { synctest.Wait() }

// pass lets time pass.
func (z *zone) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (z *zone) container(seq int64) id.Container { return id.Container{Epoch: 1, App: z.app, Seq: seq} }

func (z *zone) claims(key id.Container) *corev1.TokenClaims {
	return &corev1.TokenClaims{
		Scope: corev1.TokenClaims_CONTAINER, NodeId: "n1",
		Lease: &corev1.Lease{
			ContainerId: key.String(), AppId: key.App.String(), AppName: "web", Attempt: 1, NodeId: "n1",
			Resources: &corev1.Resources{CpuMillis: 500, MemoryBytes: 64 << 20, DiskBytes: 64 << 20, Ports: 1},
		},
		ExpiresAt: timestamppb.New(time.Now().Add(10 * time.Minute)),
	}
}

func (z *zone) sign(claims *corev1.TokenClaims) *corev1.ContainerToken {
	z.Helper()
	signed, err := token.Sign(z.key, claims)
	if err != nil {
		z.Fatal(err)
	}
	return signed
}

func (z *zone) token(key id.Container) *corev1.ContainerToken { return z.sign(z.claims(key)) }

func serving(command ...string) *corev1.ContainerSpec {
	if len(command) == 0 {
		command = []string{"serve"}
	}
	return &corev1.ContainerSpec{
		Runtime: corev1.ContainerSpec_DOCKER, Image: "web@sha256:1", Command: command,
		Ports:  []*corev1.Port{{Name: "http", ContainerPort: 8080}},
		Labels: map[string]string{"instance": "web-1"},
	}
}

func (z *zone) start(key id.Container, spec *corev1.ContainerSpec) {
	z.Helper()
	if _, err := z.node.Start(context.Background(), &nodev1.StartRequest{Token: z.token(key), Spec: spec}); err != nil {
		z.Fatalf("start %v: %v", key, err)
	}
}

func (z *zone) command(command *trackerv1.NodeCommand) {
	z.rm.Command(command)
	z.settle()
}

func (z *zone) stopCommand(key id.Container) {
	z.command(&trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Stop_{Stop: &trackerv1.NodeCommand_Stop{
		ContainerId: key.String(), Reason: corev1.Exit_STOPPED, Message: "scaled in",
	}}})
}

func (z *zone) forget(keys ...id.Container) {
	var ids []string
	for _, key := range keys {
		ids = append(ids, key.String())
	}
	z.command(&trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Forget_{Forget: &trackerv1.NodeCommand_Forget{ContainerIds: ids}}})
}

// want fails unless the node has reported that the container is in a state.
func (z *zone) want(key id.Container, state corev1.ContainerStatus_State) *corev1.ContainerStatus {
	z.Helper()
	status := z.rm.status(key)
	if status.GetState() != state {
		z.Fatalf("container %v was reported %v (%s), want %v", key, status.GetState(), status.GetReason(), state)
	}
	return status
}

func (z *zone) inEngine() []runtime.Container {
	z.Helper()
	list, err := z.runtime().List(context.Background())
	if err != nil {
		z.Fatal(err)
	}
	return list
}

// restart ends the NodeManager and starts another one on what it left.
func (z *zone) restart() {
	z.Helper()
	z.stop()
	z.startNode()
	z.pass(50 * time.Millisecond)
}

// crash is a restart with the records as they were at an earlier time: what was decided since was never written.
func (z *zone) crash(records string) {
	z.Helper()
	z.stop()
	dir := filepath.Join(z.dir, recovery.FolderName)
	if err := errors.Join(os.RemoveAll(dir), os.Rename(records, dir)); err != nil {
		z.Fatal(err)
	}
	z.startNode()
	z.pass(50 * time.Millisecond)
}

// records copies them as they are.
func (z *zone) records(name string) string {
	z.Helper()
	z.settle()
	to := filepath.Join(z.dir, name)
	if err := os.CopyFS(to, os.DirFS(filepath.Join(z.dir, recovery.FolderName))); err != nil {
		z.Fatal(err)
	}
	return to
}

func (z *zone) watchToken() *corev1.ContainerToken {
	return z.sign(&corev1.TokenClaims{Scope: corev1.TokenClaims_APP, AppId: z.app.String(), NodeId: "n1"})
}

func fakeNode(z *zone, node string) *fake.Runtime {
	return fake.New(fake.Config{Engine: z.engine, Node: node})
}
