package docker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/volume"

	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/docker"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/runtimetest"
)

func newWorld(t *testing.T) (*bench, *runtimetest.World) {
	t.Helper()
	testenv.Need(t, "docker", "root")
	b := newBench(t, testenv.DockerSocket())
	return b, runtimetest.NewWorld(t, b.harness(network.Range{First: 28900, Last: 29099}))
}

// The kernel's account of the container's process, not the engine's.
func TestContainerIsBoxed(t *testing.T) {
	_, w := newWorld(t)
	container := w.Run(w.Spec("serve"))
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", container.Pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.TrimSpace(value)
	}
	numbers := map[string]uint{
		"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5,
		"SETGID": 6, "SETUID": 7, "SETPCAP": 8, "NET_BIND_SERVICE": 10,
	}
	var want uint64
	for _, name := range docker.Capabilities() {
		number, ok := numbers[name]
		if !ok {
			t.Fatalf("capability %s is not expected", name)
		}
		want |= 1 << number
	}
	if got, err := strconv.ParseUint(fields["CapBnd"], 16, 64); err != nil || got != want {
		t.Errorf("capabilities %016x, want %016x", got, want)
	}
	if fields["NoNewPrivs"] != "1" {
		t.Errorf("no_new_privs is %q", fields["NoNewPrivs"])
	}
}

func TestReadOnlyRoot(t *testing.T) {
	_, w := newWorld(t)
	spec := w.Spec("disk", "1")
	spec.ReadOnlyRoot = true
	w.Run(spec)
	if exit := w.End(spec.ID); exit.Code != 1 || !strings.Contains(w.Output(spec.ID, runtime.LogOptions{Tail: -1}), "read-only file system") {
		t.Errorf("a write to the root ended as %+v", exit)
	}
}

// What is written and left between two looks of the watcher is found at the end, also of who ends well.
func TestDiskQuotaOfAShortLife(t *testing.T) {
	_, w := newWorld(t)
	if info, err := w.Info(w.Context()); err != nil {
		t.Fatal(err)
	} else if info.DiskQuota != "watcher" {
		return // nobody can write more
	}
	for mebibytes, over := range map[string]bool{"8": true, "1": false} {
		spec := w.Spec("disk", mebibytes)
		spec.DiskBytes = 4 << 20
		w.Run(spec)
		w.AwaitLine(spec.ID, "filled")
		if err := w.Stop(w.Context(), spec.ID, time.Minute); err != nil {
			t.Fatal(err)
		}
		exit := w.End(spec.ID)
		if exit.DiskQuota != over || strings.HasPrefix(exit.Message, "disk quota exceeded (") != over {
			t.Errorf("%s MiB of 4MiB ended as %+v", mebibytes, exit)
		}
		if found, ok := w.Find(spec.ID); !ok || found.Exit == nil || *found.Exit != exit {
			t.Errorf("listed as %+v", found.Exit)
		}
	}
}

// A volume that the image declares is no way around the disk quota, and goes with its container.
func TestVolumeOfTheImageCounts(t *testing.T) {
	b, w := newWorld(t)
	spec := w.Spec("disk", "128")
	spec.WorkingDir, spec.MemoryBytes = "/data", 256<<20
	w.Run(spec)
	if exit := w.End(spec.ID); !exit.DiskQuota {
		t.Errorf("128MiB of 64MiB in a volume ended as %+v", exit)
	}
	inspected, err := b.client.ContainerInspect(t.Context(), "mammoth-"+spec.ID.String())
	if err != nil || len(inspected.Mounts) != 1 {
		t.Fatalf("%+v, %v", inspected.Mounts, err)
	}
	if err := w.Remove(w.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	volumes, err := b.client.VolumeList(t.Context(), volume.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range volumes.Volumes {
		if v.Name == inspected.Mounts[0].Name {
			t.Errorf("volume %s is left", v.Name)
		}
	}
}

func TestDiskVerdictOutlivesARestart(t *testing.T) {
	_, w := newWorld(t)
	spec := w.Spec("disk", "128")
	spec.MemoryBytes = 256 << 20
	w.Run(spec)
	w.End(spec.ID)
	w.Restart()
	if found, ok := w.Find(spec.ID); !ok || found.Exit == nil || !found.Exit.DiskQuota || found.Exit.Message == "" {
		t.Errorf("after the restart it is listed as %+v", found.Exit)
	}
}

// Whoever takes over a running container holds it to its quota too.
func TestDiskQuotaAfterARestart(t *testing.T) {
	_, w := newWorld(t)
	spec := w.Spec("serve")
	spec.MemoryBytes = 256 << 20
	w.Run(spec)
	w.Restart()
	if _, ok := w.Find(spec.ID); !ok {
		t.Fatal("not listed")
	}
	ctx, cancel := context.WithCancel(w.Context())
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		_, _ = w.Exec(ctx, spec.ID, runtime.Exec{Command: w.Command("disk", "128")})
	}()
	if exit := w.End(spec.ID); !exit.DiskQuota {
		t.Errorf("it ended as %+v", exit)
	}
	cancel()
	<-filled
}

func TestExecDiesWithItsContext(t *testing.T) {
	_, w := newWorld(t)
	spec := w.Spec("serve")
	container := w.Run(spec)
	ctx, cancel := context.WithCancel(w.Context())
	told := &firstWrite{then: cancel}
	if _, err := w.Exec(ctx, spec.ID, runtime.Exec{Command: w.Command("serve"), Env: map[string]string{"PORT": ""}, Stdout: told}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled exec: %v", err)
	}
	group := w.Group(container)
	for {
		members, err := group.Pids()
		if err != nil {
			t.Fatal(err)
		}
		if len(members) == 1 {
			return
		}
		select {
		case <-w.Context().Done():
			t.Fatalf("%d processes are left", len(members))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

type firstWrite struct {
	once sync.Once
	then func()
}

func (f *firstWrite) Write(p []byte) (int, error) {
	f.once.Do(f.then)
	return len(p), nil
}

// The engine's image may be deleted by hand between two starts.
func TestDeletedImageIsFetchedAgain(t *testing.T) {
	b, w := newWorld(t)
	spec := w.Spec("exit", "0")
	spec.Image = b.push(t, "conformance/deleted", layered(t, program(t), map[string][]byte{"mark": []byte("deleted")}))
	if err := w.Prepare(w.Context(), spec, func(runtime.Progress) {}); err != nil {
		t.Fatal(err)
	}
	repository, digest, _ := strings.Cut(spec.Image, "@sha256:")
	name := "mammoth.local/" + b.zone + "/" + repository + ":" + digest[:32]
	inspected, err := b.client.ImageInspect(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	// The registry's name, whose port changes with every start of the node, is not kept.
	if len(inspected.RepoTags) != 1 || len(inspected.RepoDigests) > 0 {
		t.Errorf("the image is called %v %v", inspected.RepoTags, inspected.RepoDigests)
	}
	if _, err := b.client.ImageRemove(t.Context(), name, image.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Start(w.Context(), spec); err != nil {
		t.Error(err)
	}
}

func TestDamagedLayerIsRefused(t *testing.T) {
	b, w := newWorld(t)
	img := layered(t, program(t), map[string][]byte{"mark": bytes.Repeat([]byte("damaged"), 1000)})
	spec := w.Spec("exit", "0")
	spec.Image = b.push(t, "conformance/damaged", img)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[len(layers)-1].Digest()
	if err != nil {
		t.Fatal(err)
	}
	b.damage("/blobs/" + digest.String())
	if err := w.Prepare(w.Context(), spec, func(runtime.Progress) {}); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("a damaged layer: %v", err)
	}
	b.damage("")
	phases := map[string]int64{}
	err = w.Prepare(w.Context(), spec, func(p runtime.Progress) { phases[p.Phase] = p.Bytes })
	if err != nil {
		t.Errorf("fetched anew: %v", err)
	}
}

// Two hundred starts in a row, eight at a time, while somebody sits on most ports of the range.
func TestManyStartsBesideAForeignProgram(t *testing.T) {
	testenv.Need(t, "docker", "root")
	b := newBench(t, testenv.DockerSocket())
	ports := network.Range{First: 29500, Last: 29619}
	w := runtimetest.NewWorld(t, b.harness(ports))
	for port := ports.First; port <= ports.Last; port++ {
		if port%3 == 0 {
			continue
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
	}
	w.Run(w.Spec("exit", "0"))
	var (
		group sync.WaitGroup
		slots = make(chan struct{}, 8)
		mu    sync.Mutex
		taken = map[int]bool{}
		// Up to this many run at a time, on 40 free ports.
		alive = make(chan runtime.Container, 20)
	)
	end := func(c runtime.Container) {
		// From the stop on the port is anybody's again.
		mu.Lock()
		delete(taken, c.Ports[0].Host)
		mu.Unlock()
		for _, err := range []error{w.Stop(t.Context(), c.ID, 0), w.Remove(t.Context(), c.ID), w.Purge(t.Context(), c.ID)} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	for range 200 {
		spec := w.Spec("serve")
		spec.Ports = []runtime.Port{{Name: "http", Container: 8080}}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			started, err := w.Start(t.Context(), spec)
			if err != nil || len(started.Ports) != 1 {
				t.Errorf("%+v, %v", started, err)
				return
			}
			port := started.Ports[0].Host
			mu.Lock()
			if taken[port] || port%3 != 0 || !ports.Contains(port) {
				t.Errorf("port %d was given, which is taken", port)
			}
			taken[port] = true
			mu.Unlock()
			alive <- started
			if len(alive) > cap(alive)-8 {
				end(<-alive)
			}
		})
	}
	group.Wait()
	for close(alive); ; {
		last, ok := <-alive
		if !ok {
			return
		}
		end(last)
	}
}

// damaged is a registry that answers one path wrongly.
type damaged struct {
	http.Handler
	mu   sync.Mutex
	path string
}

func (d *damaged) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	hit := d.path != "" && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, d.path)
	d.mu.Unlock()
	if hit {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(bytes.Repeat([]byte("x"), 500))
		return
	}
	d.Handler.ServeHTTP(w, r)
}

func (b *bench) damage(path string) {
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	b.store.path = path
}
