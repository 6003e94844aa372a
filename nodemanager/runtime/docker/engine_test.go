package docker_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/nodemanager/disk"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/docker"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/runtimetest"
)

// engine is a second Docker engine of the test's own, in a network namespace of its own, that keeps its data on
// a small btrfs file system in a file.
type engine struct {
	dir     string
	socket  string
	command *exec.Cmd
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	testenv.Need(t, "docker", "root", "program:dockerd", "program:mkfs.btrfs", "program:nsenter", "program:ip")
	dir, err := os.MkdirTemp("", "mammoth-engine-")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{dir: dir, socket: filepath.Join(dir, "docker.sock")}
	// In memory: near its quota btrfs waits for the disk again and again, and other tests keep that busy.
	run(t, "mount", "-t", "tmpfs", "-o", "size=800M", "tmpfs", dir)
	t.Cleanup(func() {
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if err != nil {
			t.Error(err)
		}
		for _, mount := range slices.Backward(mounts) {
			unmount(t, mount.Mountpoint)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	data, disk := filepath.Join(dir, "data"), filepath.Join(dir, "disk")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := testenv.MountBtrfs(disk, "700M", data); err != nil {
		t.Fatal(err)
	}
	e.start(t)
	t.Cleanup(func() { e.stop(t) })
	return e
}

// unmount waits for a loop device below, which lets go of its file a moment after what it carried was unmounted.
func unmount(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		err := unix.Unmount(dir, 0)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EBUSY) {
			t.Fatalf("unmount %s: %v", dir, err)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("unmount %s: %v", dir, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func (e *engine) start(t *testing.T) {
	t.Helper()
	log, err := os.Create(filepath.Join(e.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	e.command = exec.Command("dockerd", "--config-file", filepath.Join(e.dir, "no-daemon.json"),
		"--host", "unix://"+e.socket, "--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"),
		"--pidfile", filepath.Join(e.dir, "pid"), "--storage-driver", "btrfs", "--cgroup-parent", e.cgroupParent())
	if err := os.WriteFile(filepath.Join(e.dir, "no-daemon.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.command.Stdout, e.command.Stderr = log, log
	e.command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := e.command.Start(); err != nil {
		t.Fatal(err)
	}
	run(t, "nsenter", "--net="+e.namespace(), "ip", "link", "set", "lo", "up")
	c, err := client.NewClientWithOpts(client.WithHost("unix://"+e.socket), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		if _, err = c.Ping(ctx); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("the engine does not come up: %v\n%s", err, said)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (e *engine) stop(t *testing.T) {
	t.Helper()
	if err := e.command.Process.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	_ = e.command.Wait()
	if err := testenv.RemoveGroups(filepath.Base(e.dir)); err != nil {
		t.Error(err)
	}
}

func (e *engine) namespace() string {
	return "/proc/" + strconv.Itoa(e.command.Process.Pid) + "/ns/net"
}

func (e *engine) cgroupParent() string { return "/" + filepath.Base(e.dir) }

// listen gives a listener on the engine's own loopback.
func (e *engine) listen(t *testing.T) net.Listener {
	t.Helper()
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	there, err := os.Open(e.namespace())
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil || err != nil {
		t.Fatal(back, err)
	}
	return listener
}

// An engine that has quotas of its own passes the same suite: a write past the quota fails with ENOSPC.
func TestConformanceOnAnEngineWithDiskQuotas(t *testing.T) {
	e := newEngine(t)
	b := newBenchOn(t, e.socket, e.listen(t))
	harness := b.harness(network.Range{First: 28900, Last: 29099})
	harness.Dial = false // its ports are in its own network
	r := open(t, docker.Config{Socket: e.socket, Zone: b.zone, Node: "info", LogDir: t.TempDir()})
	if info, err := r.Info(t.Context()); err != nil || info.DiskQuota != "driver" {
		t.Errorf("%+v, %v", info, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	runtimetest.Run(t, harness)
}

// The kernel gives up on the quota groups of a btrfs when they do not add up, and the engine notices nothing. A container that has
// written too much meanwhile is ended, and the next ones fail with ENOSPC again.
func TestQuotasThatTheKernelHasGivenUpOn(t *testing.T) {
	e := newEngine(t)
	b := newBenchOn(t, e.socket, e.listen(t))
	w := runtimetest.NewWorld(t, b.harness(network.Range{First: 28900, Last: 29099}))
	data := filepath.Join(e.dir, "data")
	first := w.Spec("disk", "32")
	first.MemoryBytes = 256 << 20
	w.Run(first) // whose image the next one shares
	w.AwaitLine(first.ID, "filled")
	// Groups that share what they hold are put together without a count.
	run(t, "btrfs", "subvolume", "create", filepath.Join(data, "one"))
	if err := os.WriteFile(filepath.Join(data, "one", "file"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "btrfs", "subvolume", "snapshot", filepath.Join(data, "one"), filepath.Join(data, "two"))
	run(t, "btrfs", "qgroup", "create", "1/1", data)
	pool, err := disk.OpenBtrfs(data)
	if err != nil {
		t.Fatal(err)
	}
	over := w.Spec("disk", "128")
	over.MemoryBytes = 256 << 20
	for _, name := range []string{"one", "two"} {
		out, err := exec.Command("btrfs", "inspect-internal", "rootid", filepath.Join(data, name)).Output()
		if err != nil {
			t.Fatal(err)
		}
		run(t, "btrfs", "qgroup", "assign", "--no-rescan", "0/"+strings.TrimSpace(string(out)), "1/1", data)
	}
	if pool.Enforces() {
		t.Fatal("the kernel still holds to quotas")
	}
	w.Run(over)
	if exit := w.End(over.ID); !exit.DiskQuota && exit.Code != 28 {
		t.Errorf("128MiB of 64MiB ended as %+v", exit)
	}
	for !pool.Enforces() {
		<-time.After(10 * time.Millisecond)
	}
	again := w.Spec("disk", "128")
	again.MemoryBytes = 256 << 20
	w.Run(again)
	if exit := w.End(again.ID); exit.Code != 28 {
		t.Errorf("after the count 128MiB of 64MiB ended as %+v", exit)
	}
	if found, ok := w.Find(first.ID); !ok || !found.Running {
		t.Errorf("one that is within its quota is %+v", found)
	}
}

func TestDiskOfTheEngineIsFull(t *testing.T) {
	e := newEngine(t)
	b := newBenchOn(t, e.socket, e.listen(t))
	w := runtimetest.NewWorld(t, b.harness(network.Range{First: 28900, Last: 29099}))
	spec := w.Spec("serve")
	spec.Image = b.push(t, "conformance/large", layered(t, empty.Image, map[string][]byte{"large": make([]byte, 800<<20)}))
	err := w.Prepare(w.Context(), spec, func(runtime.Progress) {})
	if !errors.Is(err, errdefs.ErrResourceExhausted) || !strings.Contains(err.Error(), filepath.Join(e.dir, "data")) {
		t.Errorf("an image of 800MiB on a disk of 700MiB: %v", err)
	}
	// It leaves nothing behind that stands in the way of one that fits, once btrfs has swept up.
	fits := w.Spec("serve")
	for {
		err := w.Prepare(w.Context(), fits, func(runtime.Progress) {})
		if err == nil {
			break
		}
		if !errors.Is(err, errdefs.ErrResourceExhausted) || w.Context().Err() != nil {
			t.Fatal(err)
		}
		run(t, "sync", "--file-system", filepath.Join(e.dir, "data"))
		<-time.After(200 * time.Millisecond)
	}
	w.Run(fits)
}

func TestEngineGoesAndComesBack(t *testing.T) {
	e := newEngine(t)
	b := newBenchOn(t, e.socket, e.listen(t))
	w := runtimetest.NewWorld(t, b.harness(network.Range{First: 28900, Last: 29099}))
	spec := w.Spec("serve")
	w.Run(spec)
	events, err := w.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e.stop(t)
	for range events { // an end may be told; then the channel is closed
	}
	ctx := w.Context()
	_, info := w.Info(ctx)
	_, list := w.List(ctx)
	_, start := w.Start(ctx, w.Spec("serve"))
	_, watch := w.Watch(ctx)
	_, execed := w.Exec(ctx, spec.ID, runtime.Exec{Command: w.Command("exit", "0")})
	for what, err := range map[string]error{
		"info": info, "list": list, "start": start, "watch": watch, "exec": execed,
		"prepare": w.Prepare(ctx, specOf(w, "conformance/other@sha256:"+strings.Repeat("1", 64)), nil),
		"stop":    w.Stop(ctx, spec.ID, time.Second), "remove": w.Remove(ctx, spec.ID),
		"logs": w.Logs(ctx, spec.ID, runtime.LogOptions{}, nil),
	} {
		if !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("%s without an engine: %v", what, err)
		}
	}
	e.start(t)
	found, ok := w.Find(spec.ID)
	if !ok || found.Running || found.Exit == nil {
		t.Errorf("after the engine's return: %+v", found)
	}
	w.Run(w.Spec("serve"))
}

// An engine that goes down waits for its containers to end, and answers meanwhile on the connections that it has.
func TestAnEngineThatGoesDownIsGivenNothingNew(t *testing.T) {
	e := newEngine(t)
	b := newBenchOn(t, e.socket, e.listen(t))
	w := runtimetest.NewWorld(t, b.harness(network.Range{First: 28900, Last: 29099}))
	stays := w.Spec("ignore-term")
	found := w.Run(stays)
	w.AwaitLine(stays.ID, "ignoring")
	inspected, err := b.client.ContainerInspect(t.Context(), found.RuntimeID)
	if err != nil {
		t.Fatal(err)
	}
	var asking sync.WaitGroup
	for range 4 { // so that there are connections to go on with
		asking.Go(func() {
			if _, err := w.List(w.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	if err := e.command.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(10 * time.Millisecond) {
		connection, err := net.Dial("unix", e.socket)
		if err != nil {
			break
		}
		_ = connection.Close()
		if time.Now().After(deadline) {
			t.Fatal("the engine does not go down")
		}
	}
	if err := unix.Kill(inspected.State.Pid, 0); err != nil {
		t.Fatalf("the engine is down already: %v", err)
	}
	if _, err := w.Start(w.Context(), w.Spec("serve")); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("a container that is started while the engine goes down: %v", err)
	}
	if err := w.Remove(w.Context(), stays.ID); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("a container that is removed while the engine goes down: %v", err)
	}
	if err := unix.Kill(inspected.State.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = e.command.Wait()
	e.start(t)
	if left, err := w.List(w.Context()); err != nil || len(left) != 1 {
		t.Errorf("the engine's containers are %v, %v; want the first one alone", left, err)
	}
}

func specOf(w *runtimetest.World, image string) runtime.Spec {
	spec := w.Spec("serve")
	spec.Image = image
	return spec
}
