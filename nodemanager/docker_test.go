package nodemanager_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	imagetypes "github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/distribution"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/internal/token"
	"github.com/mammoth-os/mammoth/nodemanager"
	"github.com/mammoth-os/mammoth/nodemanager/localize"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/docker"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/runtimetest"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// blobs is an image store in memory.
type blobs map[digest.Digest][]byte

func (b blobs) add(content []byte) digest.Digest {
	sum := digest.FromBytes(content)
	b[sum] = content
	return sum
}

func (b blobs) Manifest(_ context.Context, _, reference string) (distribution.Manifest, error) {
	content, ok := b[digest.Digest(reference)]
	if !ok {
		return distribution.Manifest{}, errdefs.ErrNotFound
	}
	return distribution.Manifest{Digest: digest.Digest(reference), MediaType: distribution.MediaTypeManifest, Content: content}, nil
}

func (b blobs) BlobSize(_ context.Context, _ string, blob digest.Digest) (int64, error) {
	return int64(len(b[blob])), nil
}

func (b blobs) Blob(_ context.Context, _ string, blob digest.Digest) (io.ReadSeekCloser, error) {
	content, ok := b[blob]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(content), io.NopCloser(nil)}, nil
}

// image packs a program into an image and gives its name. The salt makes it one that no engine has.
func (b blobs) image(t *testing.T, program, salt string) string {
	t.Helper()
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	for name, content := range map[string][]byte{"program": content} {
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	marshal := func(v any) []byte {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	type object = map[string]any
	layerSum := b.add(layer.Bytes())
	config := marshal(object{
		"architecture": goruntime.GOARCH, "os": "linux", "author": salt,
		"config": object{"Entrypoint": []string{"/program"}, "Cmd": []string{"serve"}},
		"rootfs": object{"type": "layers", "diff_ids": []digest.Digest{layerSum}},
	})
	manifest := marshal(object{
		"schemaVersion": 2, "mediaType": distribution.MediaTypeManifest,
		"config": object{"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": b.add(config)},
		"layers": []object{{"mediaType": "application/vnd.docker.image.rootfs.diff.tar", "size": layer.Len(), "digest": layerSum}},
	})
	return "nodemanager-test@" + b.add(manifest).String()
}

// realNode is a NodeManager with everything real but the ResourceManager.
type realNode struct {
	*testing.T
	rm     *resourceManager
	client nodev1.ContainerManagerClient
	stop   func()
	dir    string
	name   string
	socket string
	// rmAt and storeAt are where the ResourceManager and the image store are.
	rmAt, storeAt string
	key           token.Key
	app           id.App
}

// engineAt is the node's engine behind a socket.
func (n *realNode) engineAt(socket, registry string) *docker.Runtime {
	n.Helper()
	rt, err := docker.New(docker.Config{
		Socket: socket, Zone: "nodemanager-test", Node: n.name, Registry: registry, LogDir: n.dir + "/logs",
		Ports: network.Range{First: 31000, Last: 31999},
	})
	if err != nil {
		n.Fatal(err)
	}
	return rt
}

func (n *realNode) start() {
	n.Helper()
	layers, err := localize.New(localize.Config{Dir: n.dir, Upstream: n.storeAt})
	if err != nil {
		n.Fatal(err)
	}
	rt := n.engineAt(n.socket, layers.Address())
	nm, err := nodemanager.New(nodemanager.Config{
		Dir: n.dir, NodeID: n.name, ResourceManager: n.rmAt, Layers: layers, MetricsListen: "127.0.0.1:0",
		Runtimes: map[corev1.ContainerSpec_Runtime]runtime.Runtime{corev1.ContainerSpec_DOCKER: rt},
		Logger:   slog.New(slog.NewTextHandler(n.Output(), nil)),
	})
	if err != nil {
		n.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- nm.Run(ctx) }()
	conn, err := grpc.NewClient(nm.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.Fatal(err)
	}
	n.client = nodev1.NewContainerManagerClient(conn)
	n.stop = func() {
		n.stop = func() {}
		_ = conn.Close()
		cancel()
		if err := <-done; err != nil {
			n.Errorf("the NodeManager ended with %v", err)
		}
		if closer, ok := any(rt).(io.Closer); ok {
			_ = closer.Close()
		}
	}
	n.eventually("/readyz is good", func() bool {
		response, err := http.Get("http://" + nm.MetricsAddress() + "/readyz")
		if err != nil {
			return false
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode == http.StatusOK
	})
	response, err := http.Get("http://" + nm.MetricsAddress() + "/metrics")
	if err != nil {
		n.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	page, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(page), "mammoth_node_connected 1") {
		n.Errorf("/metrics says %s, %v", page, err)
	}
}

func (n *realNode) eventually(what string, holds func() bool) time.Duration {
	n.Helper()
	began := time.Now()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for range ticker.C {
		if holds() {
			return time.Since(began)
		}
		if time.Since(began) > time.Minute {
			n.Fatalf("not within a minute: %s", what)
		}
	}
	return 0
}

func (n *realNode) container(seq int64) id.Container {
	return id.Container{Epoch: 1, App: n.app, Seq: seq}
}

func (n *realNode) all(count int64, holds func(*corev1.ContainerStatus) bool) func() bool {
	return func() bool {
		for i := range count {
			if s := n.rm.status(n.container(i + 1)); s == nil || !holds(s) {
				return false
			}
		}
		return true
	}
}

// newRealNode starts a node with an image in its zone's store. What it leaves in the engine is taken away.
func newRealNode(t *testing.T) (n *realNode, image string) {
	testenv.Need(t, "docker", "root")
	store := blobs{}
	image = store.image(t, runtimetest.Build(t), t.TempDir())
	images := httptest.NewServer(distribution.New(store))
	t.Cleanup(images.Close)
	key := token.Key{ID: 1, Secret: []byte("the secret of the zone")}
	n = &realNode{
		T: t, dir: t.TempDir(), name: "test-" + rand.Text()[:8], socket: testenv.DockerSocket(),
		storeAt: strings.TrimPrefix(images.URL, "http://"), key: key, app: id.App{ClusterStart: time.Now().UnixMilli(), Seq: 1},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.rmAt = listener.Addr().String()
	n.rm = newResourceManager(t, n.name, key)
	server := grpc.NewServer()
	n.rm.zone.Services(server)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	t.Cleanup(func() { n.cleanUp(image) })
	t.Cleanup(func() { n.stop() })
	n.stop = func() {}
	return n, image
}

func serveProgram(image string) *corev1.ContainerSpec {
	return &corev1.ContainerSpec{
		Runtime: corev1.ContainerSpec_DOCKER, Image: image, Ports: []*corev1.Port{{Name: "http", ContainerPort: 8080}},
		Health:    &corev1.HealthCheck{Probe: &corev1.HealthCheck_Http_{Http: &corev1.HealthCheck_Http{Path: "/"}}},
		StopGrace: durationpb.New(5 * time.Second),
	}
}

func TestRealContainersThroughARestart(t *testing.T) {
	const count = 8
	n, image := newRealNode(t)
	n.start()
	spec := serveProgram(image)
	for i := range int64(count) {
		n.launch(n.container(i+1), spec)
	}
	took := n.eventually("all are healthy", n.all(count, func(s *corev1.ContainerStatus) bool {
		if s.GetState() == corev1.ContainerStatus_DONE {
			t.Fatalf("%v", s)
		}
		return s.GetHealth() == corev1.ContainerStatus_HEALTHY
	}))
	t.Logf("%d containers were pulled, started and healthy after %v", count, took)
	before := map[int64]*corev1.ContainerStatus{}
	for i := range int64(count) {
		s := n.rm.status(n.container(i + 1))
		before[i] = s
		if len(s.GetPhases()) != 3 || s.GetPhases()[0].GetBytes() == 0 {
			t.Errorf("phases %v", s.GetPhases())
		}
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", s.GetPorts()[0].GetHostPort()))
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
	}

	n.stop()
	if err := n.engineAt(testenv.DockerSocket(), "").Stop(t.Context(), n.container(1), 0); err != nil {
		t.Fatal(err)
	}
	n.start()
	took = n.eventually("the end of container 1 is reported", func() bool {
		return n.rm.status(n.container(1)).GetState() == corev1.ContainerStatus_DONE
	})
	t.Logf("the end was reported %v after the restart", took)
	for i := int64(1); i < count; i++ {
		s := n.rm.status(n.container(i + 1))
		if s.GetState() != corev1.ContainerStatus_RUNNING || s.GetRuntimeId() != before[i].GetRuntimeId() ||
			!s.GetStartedAt().AsTime().Equal(before[i].GetStartedAt().AsTime()) || s.GetHealth() != corev1.ContainerStatus_HEALTHY {
			t.Errorf("was %v, is %v", before[i], s)
		}
	}

	for i := range int64(count) {
		n.rm.Command(&trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Stop_{Stop: &trackerv1.NodeCommand_Stop{ContainerId: n.container(i + 1).String()}}})
	}
	took = n.eventually("all are done", n.all(count, func(s *corev1.ContainerStatus) bool { return s.GetState() == corev1.ContainerStatus_DONE }))
	t.Logf("all were stopped after %v", took)
	for i := int64(1); i < count; i++ {
		if exit := n.rm.status(n.container(i + 1)).GetExit(); exit.GetReason() != corev1.Exit_STOPPED || exit.GetCode() != 0 {
			t.Errorf("exit %v", exit)
		}
	}
	for i := range int64(count) {
		n.rm.Command(&trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Forget_{Forget: &trackerv1.NodeCommand_Forget{ContainerIds: []string{n.container(i + 1).String()}}}})
	}
	n.stop() // in the middle of the removals, or before it has heard of all
	var all []string
	for i := range int64(count) {
		all = append(all, n.container(i+1).String())
	}
	n.rm.Reap(all...)
	n.start()
	n.eventually("nothing is left in the engine", func() bool {
		left, err := n.engineAt(testenv.DockerSocket(), "").List(t.Context())
		return err == nil && len(left) == 0
	})
}

func (n *realNode) launch(key id.Container, spec *corev1.ContainerSpec) {
	n.Helper()
	signed, err := token.Sign(n.key, &corev1.TokenClaims{
		Scope: corev1.TokenClaims_CONTAINER, NodeId: n.name,
		Lease: &corev1.Lease{
			ContainerId: key.String(), AppId: key.App.String(), AppName: "web", Attempt: 1, NodeId: n.name,
			Resources: &corev1.Resources{CpuMillis: 250, MemoryBytes: 64 << 20, DiskBytes: 64 << 20, Ports: 1},
		},
	})
	if err != nil {
		n.Fatal(err)
	}
	if _, err := n.client.Start(context.Background(), &nodev1.StartRequest{Token: signed, Spec: spec}); err != nil {
		n.Fatalf("start %v: %v", key, err)
	}
}

// cleanUp takes away whatever a failed test has left.
func (n *realNode) cleanUp(ref string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rt := n.engineAt(testenv.DockerSocket(), "")
	left, err := rt.List(ctx)
	if err != nil {
		n.Error(err)
	}
	for _, c := range left {
		_ = rt.Stop(ctx, c.ID, 0)
		_ = rt.Remove(ctx, c.ID)
		_ = rt.Purge(ctx, c.ID)
	}
	engine, err := client.NewClientWithOpts(client.WithHost("unix://"+testenv.DockerSocket()), client.WithAPIVersionNegotiation())
	if err != nil {
		n.Error(err)
		return
	}
	defer func() { _ = engine.Close() }()
	name, _, _ := strings.Cut(ref, "@")
	images, err := engine.ImageList(ctx, imagetypes.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", "mammoth.local/*/"+name))})
	if err != nil {
		n.Error(err)
	}
	for _, found := range images {
		if _, err := engine.ImageRemove(ctx, found.ID, imagetypes.RemoveOptions{Force: true}); err != nil {
			n.Error(err)
		}
	}
}

// gate is a connection to the engine that can be interrupted.
type gate struct {
	listener net.Listener
	mu       sync.Mutex
	shut     bool
	conns    map[net.Conn]struct{}
}

func newGate(t *testing.T) *gate {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "engine.sock"))
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: listener, conns: map[net.Conn]struct{}{}}
	t.Cleanup(func() { g.set(true); _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go g.pass(conn)
		}
	}()
	return g
}

func (g *gate) pass(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	engine, err := net.Dial("unix", testenv.DockerSocket())
	if err != nil {
		return
	}
	defer func() { _ = engine.Close() }()
	g.mu.Lock()
	if g.shut {
		g.mu.Unlock()
		return
	}
	g.conns[conn], g.conns[engine] = struct{}{}, struct{}{}
	g.mu.Unlock()
	go func() {
		_, _ = io.Copy(engine, conn)
		_ = engine.(*net.UnixConn).CloseWrite()
	}()
	_, _ = io.Copy(conn, engine)
	g.mu.Lock()
	delete(g.conns, conn)
	delete(g.conns, engine)
	g.mu.Unlock()
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for conn := range g.conns {
		_ = conn.Close()
	}
	clear(g.conns)
}

func TestARealEngineThatGoesAwayInTheMiddleOfADeployment(t *testing.T) {
	const count = 6
	n, image := newRealNode(t)
	g := newGate(t)
	n.socket = g.listener.Addr().String()
	n.start()
	n.launch(n.container(1), serveProgram(image))
	healthy := func(s *corev1.ContainerStatus) bool { return s.GetHealth() == corev1.ContainerStatus_HEALTHY }
	n.eventually("the first is healthy", n.all(1, healthy))
	for i := int64(2); i <= count; i++ {
		n.launch(n.container(i), serveProgram(image))
	}
	n.eventually("the others are being started", func() bool {
		for i := int64(2); i <= count; i++ {
			if n.rm.status(n.container(i)).GetState() < corev1.ContainerStatus_LAUNCHING {
				return false
			}
		}
		return true
	})
	g.set(true)
	n.eventually("the node is unhealthy, with a reason", func() bool {
		health := n.rm.Health()
		return !health.GetHealthy() && strings.Contains(health.GetReason(), "docker does not answer")
	})
	if s := n.rm.status(n.container(1)); s.GetState() != corev1.ContainerStatus_RUNNING {
		t.Errorf("what ran is reported as %v", s)
	}
	// It ends while nobody can see it.
	if err := n.engineAt(testenv.DockerSocket(), "").Stop(t.Context(), n.container(1), 0); err != nil {
		t.Fatal(err)
	}
	g.set(false)
	n.eventually("the node is healthy again", func() bool { return n.rm.Health().GetHealthy() })
	n.eventually("the end is reported", func() bool {
		return n.rm.status(n.container(1)).GetState() == corev1.ContainerStatus_DONE
	})
	n.eventually("the others have come up", func() bool {
		for i := int64(2); i <= count; i++ {
			s := n.rm.status(n.container(i))
			if s.GetState() == corev1.ContainerStatus_DONE {
				t.Fatalf("%v", s)
			}
			if !healthy(s) {
				return false
			}
		}
		return true
	})
	list, err := n.engineAt(testenv.DockerSocket(), "").List(t.Context())
	if err != nil || len(list) != count {
		t.Errorf("the engine has %d containers, want %d: %v", len(list), count, err)
	}
}
