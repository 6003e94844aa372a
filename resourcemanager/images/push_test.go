package images

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	dockercontainer "github.com/docker/docker/api/types/container"

	"github.com/mammoth-os/mammoth/internal/imagefile"
	"github.com/mammoth-os/mammoth/internal/testenv"
)

// serve makes a store reachable, by connections that each break after so many bytes from the client; 0 is never.
func serve(t *testing.T, store *Store, breakAfter int64) (address string, broken *atomic.Int64) {
	t.Helper()
	server := httptest.NewUnstartedServer(store.Handler())
	broken = new(atomic.Int64)
	server.Listener = breakingListener{Listener: server.Listener, after: breakAfter, broken: broken}
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), broken
}

type breakingListener struct {
	net.Listener
	after  int64
	broken *atomic.Int64
}

func (l breakingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || l.after == 0 {
		return conn, err
	}
	return &breakingConn{Conn: conn, left: l.after, broken: l.broken}, nil
}

type breakingConn struct {
	net.Conn
	left   int64
	broken *atomic.Int64
}

func (c *breakingConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		c.broken.Add(1)
		return 0, errors.Join(errors.New("the test breaks the connection"), c.Close())
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// largeImage is an archive of several chunks that do not compress.
func largeImage(t *testing.T) []byte {
	image := webImage(t)
	noise := make([]byte, 11<<20)
	state := uint32(1)
	for i := range noise {
		state = state*1664525 + 1013904223
		noise[i] = byte(state >> 24)
	}
	image.layers = append(image.layers, tarOf(t, entry{name: "data", content: noise}))
	return tarOf(t, image.oci(t, "web:1.0")...)
}

func TestPushResumesWhereTheConnectionBroke(t *testing.T) {
	content := largeImage(t)
	store := openStore(t, t.TempDir(), Limits{})
	address, broken := serve(t, store, 1500<<10)
	var last int64
	image, err := imagefile.Push(t.Context(), imagefile.PushOptions{
		Server: address, Name: "web:2", Content: onlyReader{bytes.NewReader(content)},
		Progress: func(sent int64) {
			if sent < last {
				t.Errorf("progress goes back from %d to %d", last, sent)
			}
			last = sent
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if broken.Load() < 3 {
		t.Errorf("only %d connections broke; the test shows nothing", broken.Load())
	}
	if last != int64(len(content)) {
		t.Errorf("progress ended at %d of %d", last, len(content))
	}
	if sum, _, err := store.Resolve(t.Context(), "web:2"); err != nil || sum != image.GetDigest() {
		t.Errorf("resolved to %s, %v, want %s", sum, err, image.GetDigest())
	}
	if left := incomingFiles(t, store); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

type onlyReader struct{ io.Reader }

func TestPushSaysWhatTheZoneRefuses(t *testing.T) {
	image := webImage(t)
	image.architecture = "arm64"
	for name, c := range map[string]struct {
		limits  Limits
		content []byte
		class   error
		says    string
	}{
		"another machine": {Limits{}, tarOf(t, image.oci(t, "web:1")...), errdefs.ErrInvalidArgument, "the image is for arm64, this zone's nodes are amd64"},
		"too large":       {Limits{ArchiveBytes: 6 << 20}, largeImage(t), errdefs.ErrResourceExhausted, "larger than 6MiB"},
		"no uploads":      {Limits{Uploads: -1}, []byte("x"), errdefs.ErrUnavailable, "try again later"},
	} {
		t.Run(name, func(t *testing.T) {
			store := openStore(t, t.TempDir(), c.limits)
			address, _ := serve(t, store, 0)
			_, err := imagefile.Push(t.Context(), imagefile.PushOptions{Server: "http://" + address + "/", Content: bytes.NewReader(c.content)})
			if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("it says %v, want %q", err, c.says)
			}
			if left := incomingFiles(t, store); len(left) > 0 || stored(t, store) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestPushCancelsItsUpload(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	address, _ := serve(t, store, 0)
	ctx, cancel := context.WithCancelCause(t.Context())
	tired := errors.New("the user is tired")
	content := io.MultiReader(bytes.NewReader(make([]byte, 5<<20)), readerFunc(func([]byte) (int, error) {
		cancel(tired)
		return 0, ctx.Err()
	}))
	if _, err := imagefile.Push(ctx, imagefile.PushOptions{Server: address, Content: content}); err == nil {
		t.Fatal("it was pushed")
	}
	if left := incomingFiles(t, store); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestPushGivesUpOnWhatIsNoZone(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	if _, err := imagefile.Push(t.Context(), imagefile.PushOptions{Server: server.URL, Content: strings.NewReader("x")}); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("it says %v", err)
	}
}

// TestPackedImagesRun packs the example app, and has the engine load it, and pull it from the store, and run it.
func TestPackedImagesRun(t *testing.T) {
	testenv.Need(t, "docker", "program:go")
	dir := t.TempDir()
	program, file := filepath.Join(dir, "hello"), filepath.Join(dir, "hello.image")
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-X main.version=packed", "-o", program, "../../examples/hello")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const name = "mammoth-test-images/packed:1"
	if err := imagefile.Pack(imagefile.PackOptions{Source: program, Output: file, Name: name, Args: []string{"--version"}}); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t)
	content, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	loaded, err := e.api.ImageLoad(t.Context(), onlyReader{content})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, loaded.Body)
	_ = loaded.Body.Close()
	e.created = append(e.created, name)
	id := e.id(name)
	e.removeAll()

	if _, err := content.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := imagefile.Push(t.Context(), imagefile.PushOptions{Server: e.registry, Content: content}); err != nil {
		t.Fatal(err)
	}
	e.pull(e.registry + "/" + name)
	if got := e.id(e.registry + "/" + name); got != id {
		t.Errorf("pulled %s, loaded %s", got, id)
	}
	if said := e.run(e.registry + "/" + name); !strings.Contains(said, "packed") {
		t.Errorf("the container says %q", said)
	}
}

// run runs an image to its end and tells its output.
func (e *engine) run(image string) string {
	e.t.Helper()
	ctx := e.t.Context()
	created, err := e.api.ContainerCreate(ctx, &dockercontainer.Config{Image: image}, nil, nil, nil, "")
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() {
		if err := e.api.ContainerRemove(context.Background(), created.ID, dockercontainer.RemoveOptions{Force: true}); err != nil {
			e.t.Error(err)
		}
	}()
	done, failed := e.api.ContainerWait(ctx, created.ID, dockercontainer.WaitConditionNextExit)
	if err := e.api.ContainerStart(ctx, created.ID, dockercontainer.StartOptions{}); err != nil {
		e.t.Fatal(err)
	}
	select {
	case err := <-failed:
		e.t.Fatal(err)
	case result := <-done:
		if result.StatusCode != 0 {
			e.t.Errorf("it ended with %d", result.StatusCode)
		}
	}
	logs, err := e.api.ContainerLogs(ctx, created.ID, dockercontainer.LogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		e.t.Fatal(err)
	}
	defer logs.Close()
	said, err := io.ReadAll(logs)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(said)
}
