package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/docker"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/runtimetest"
)

// bench is an engine with a registry beside it that has the test program's image.
type bench struct {
	socket   string
	zone     string
	registry string
	store    *damaged
	image    string
	client   *client.Client
	nodes    atomic.Int64
}

func newBench(t testing.TB, socket string) *bench {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newBenchOn(t, socket, listener)
}

// newBenchOn serves the registry where the engine can reach it. Images are pushed to it past the network.
func newBenchOn(t testing.TB, socket string, listener net.Listener) *bench {
	t.Helper()
	c, err := client.NewClientWithOpts(client.WithHost("unix://"+socket), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	store := &damaged{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	server := &http.Server{Handler: store}
	go func() { _ = server.Serve(listener) }()
	b := &bench{
		socket: socket, zone: "conformance-" + strconv.Itoa(os.Getpid()), client: c,
		registry: listener.Addr().String(), store: store,
	}
	b.image = b.push(t, "conformance/program", program(t))
	t.Cleanup(func() {
		ctx := context.Background()
		if left := b.removeAll(t); left > 0 {
			t.Errorf("%d containers are left", left)
		}
		images, err := c.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", "mammoth.local/"+b.zone+"/conformance/*"))})
		if err != nil {
			t.Error(err)
		}
		for _, one := range images {
			for _, tag := range one.RepoTags {
				_, _ = c.ImageRemove(ctx, tag, image.RemoveOptions{PruneChildren: true})
			}
		}
		_ = server.Close()
		_ = c.Close()
	})
	return b
}

// removeAll removes every container of the bench and tells how many there were.
func (b *bench) removeAll(t testing.TB) int {
	t.Helper()
	ctx := context.Background()
	left, err := b.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "mammoth.zone="+b.zone))})
	if err != nil {
		t.Error(err)
	}
	for _, one := range left {
		if err := b.client.ContainerRemove(ctx, one.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			t.Error(err)
		}
	}
	return len(left)
}

// localName is what the image of the bench is called once the runtime has prepared it.
func (b *bench) localName() string {
	repository, digest, _ := strings.Cut(b.image, "@sha256:")
	return "mammoth.local/" + b.zone + "/" + repository + ":" + digest[:32]
}

// program is an image with nothing but the test program.
func program(t testing.TB) v1.Image {
	t.Helper()
	binary, err := os.ReadFile(runtimetest.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	return layered(t, empty.Image, map[string][]byte{"program": binary, "data/empty": nil})
}

// layered adds a layer of files to an image.
func layered(t testing.TB, base v1.Image, files map[string][]byte) v1.Image {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for path, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(base, layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", "amd64"
	config.Config.Volumes = map[string]struct{}{"/data": {}}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// push gives the name by which the runtime knows an image.
func (b *bench) push(t testing.TB, repository string, img v1.Image) string {
	t.Helper()
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewDigest(b.registry + "/" + repository + "@" + digest.String())
	if err != nil {
		t.Fatal(err)
	}
	direct := remote.WithTransport(roundTrip(func(request *http.Request) (*http.Response, error) {
		if request.Body == nil {
			request = request.Clone(request.Context())
			request.Body = http.NoBody
		}
		recorder := httptest.NewRecorder()
		b.store.ServeHTTP(recorder, request)
		response := recorder.Result()
		response.Request = request
		return response, nil
	}))
	if err := remote.Write(ref, img, direct); err != nil {
		t.Fatal(err)
	}
	return repository + "@" + digest.String()
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

func (b *bench) harness(ports network.Range) runtimetest.Harness {
	return runtimetest.Harness{
		New: func(t *testing.T) func() runtime.Runtime {
			config := docker.Config{
				Socket: b.socket, Zone: b.zone, Node: "node-" + strconv.FormatInt(b.nodes.Add(1), 10), Registry: b.registry,
				Ports: ports, AllowHostNetwork: true, LogDir: t.TempDir(),
			}
			return func() runtime.Runtime { return open(t, config) }
		},
		Command:      func(args ...string) []string { return append([]string{"/program"}, args...) },
		Image:        b.image,
		MissingImage: "conformance/missing@sha256:" + strings.Repeat("0", 64),
		Dial:         true,
		Kernel:       true,
		HostNetwork:  true,
		Copy:         b.copy,
		Signal: func(t *testing.T, to runtime.Container, number int) {
			if err := b.client.ContainerKill(t.Context(), to.RuntimeID, strconv.Itoa(number)); err != nil {
				t.Fatal(err)
			}
		},
		StartAgain: func(t *testing.T, ended runtime.Container) {
			if err := b.client.ContainerStart(t.Context(), ended.RuntimeID, container.StartOptions{}); err != nil {
				t.Fatal(err)
			}
		},
		Foreign: func(t *testing.T) {
			created, err := b.client.ContainerCreate(t.Context(),
				&container.Config{
					Image: b.localName(), Cmd: []string{"/program", "serve"}, Labels: map[string]string{"mammoth.node": "elsewhere"},
				},
				&container.HostConfig{}, nil, nil, fmt.Sprintf("foreign-%d", time.Now().UnixNano()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := b.client.ContainerRemove(context.Background(), created.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
					t.Error(err)
				}
			})
			if err := b.client.ContainerStart(t.Context(), created.ID, container.StartOptions{}); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// copy does as "docker commit" and "docker run" do.
func (b *bench) copy(t *testing.T, of runtime.Container) (end func()) {
	ctx := context.Background()
	committed, err := b.client.ContainerCommit(ctx, of.RuntimeID, container.CommitOptions{Pause: true})
	if err != nil {
		t.Fatal(err)
	}
	created, err := b.client.ContainerCreate(ctx, &container.Config{Image: committed.ID}, &container.HostConfig{}, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.client.ContainerStart(ctx, created.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		if err := b.client.ContainerRemove(ctx, created.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			t.Error(err)
		}
		if _, err := b.client.ImageRemove(ctx, committed.ID, image.RemoveOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return end
}

func open(t testing.TB, config docker.Config) *docker.Runtime {
	t.Helper()
	r, err := docker.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestConformance(t *testing.T) {
	testenv.Need(t, "docker", "root")
	b := newBench(t, testenv.DockerSocket())
	runtimetest.Run(t, b.harness(network.Range{First: 28900, Last: 29099}))
}
