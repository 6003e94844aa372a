package docker_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/docker"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/runtimetest"
)

// lossy stands between a runtime and an engine. Once told, it passes the next request whose path ends in what it
// was told on to the engine, loses the answer, and answers nothing any more until it is mended.
type lossy struct {
	socket string

	mu   sync.Mutex
	lose string
	dead bool
	// early is called before the next request whose path ends in earlyPath.
	early     http.HandlerFunc
	earlyPath string
	// change, if set, is called with each answer.
	change func(*http.Response)
}

func newLossy(t *testing.T, engine string) *lossy {
	t.Helper()
	l := &lossy{socket: filepath.Join(t.TempDir(), "s")}
	listener, err := net.Listen("unix", l.socket)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "engine"})
	proxy.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", engine)
	}}
	proxy.FlushInterval = -1
	proxy.ModifyResponse = func(response *http.Response) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.lose != "" && strings.HasSuffix(response.Request.URL.Path, l.lose) {
			l.dead = true
		}
		if l.change != nil {
			l.change(response)
		}
		return nil
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l.isDead() {
			panic(http.ErrAbortHandler)
		}
		if early := l.held(r.URL.Path); early != nil {
			early(w, r)
			r = r.WithContext(context.WithoutCancel(r.Context())) // an engine goes on though the asker has gone
		}
		proxy.ServeHTTP(&mute{w, l}, r)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return l
}

func (l *lossy) isDead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

func (l *lossy) set(lose string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose, l.dead = lose, false
}

func (l *lossy) hold(path string, early http.HandlerFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.early, l.earlyPath = early, path
}

func (l *lossy) held(path string) http.HandlerFunc {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.early == nil || !strings.HasSuffix(path, l.earlyPath) {
		return nil
	}
	early := l.early
	l.early = nil
	return early
}

// mute is an answer that does not arrive when the proxy is dead.
type mute struct {
	http.ResponseWriter
	l *lossy
}

func (m *mute) Unwrap() http.ResponseWriter { return m.ResponseWriter }

func (m *mute) WriteHeader(code int) {
	if m.l.isDead() {
		panic(http.ErrAbortHandler)
	}
	m.ResponseWriter.WriteHeader(code)
}

// through is a world of a node that reaches its engine through a proxy.
func (b *bench) through(t *testing.T, l *lossy, node string) *runtimetest.World {
	t.Helper()
	ports := network.Range{First: 28900, Last: 29099}
	config := docker.Config{Socket: l.socket, Zone: b.zone, Node: node, Registry: b.registry, LogDir: t.TempDir(), Ports: ports}
	harness := b.harness(ports)
	harness.New = func(t *testing.T) func() runtime.Runtime {
		return func() runtime.Runtime { return open(t, config) }
	}
	return runtimetest.NewWorld(t, harness)
}

func TestAnswersLostInAStart(t *testing.T) {
	testenv.Need(t, "docker", "root")
	b := newBench(t, testenv.DockerSocket())
	l := newLossy(t, b.socket)
	w := b.through(t, l, "lossy")
	w.Run(w.Spec("exit", "0"))

	created := w.Spec("serve")
	created.Ports = []runtime.Port{{Name: "http", Container: 8080}}
	l.set("/containers/create")
	if _, err := w.Start(w.Context(), created); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatalf("a start whose create was not answered: %v", err)
	}
	left, err := b.client.ContainerInspect(t.Context(), "mammoth-"+created.ID.String())
	if err != nil || left.State.Status != container.StateCreated {
		t.Fatalf("the engine has %+v, %v", left.State, err)
	}
	l.set("")
	if again, err := w.Start(w.Context(), created); err != nil || !again.Running || again.RuntimeID == left.ID {
		t.Errorf("what never ran was not replaced: %+v, %v", again, err)
	}

	started := w.Spec("serve")
	l.set("/start")
	if _, err := w.Start(w.Context(), started); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatalf("a start that was not answered: %v", err)
	}
	left, err = b.client.ContainerInspect(t.Context(), "mammoth-"+started.ID.String())
	if err != nil || !left.State.Running {
		t.Fatalf("the engine has %+v, %v", left.State, err)
	}
	l.set("")
	if again, err := w.Start(w.Context(), started); err != nil || again.RuntimeID != left.ID {
		t.Errorf("what runs was not adopted: %+v, %v", again, err)
	}

	events, err := w.Watch(w.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.client.ContainerKill(t.Context(), left.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	for event := range events { // until the test's time is up
		if event.ID == started.ID && event.Kind == runtime.Ended {
			return
		}
	}
	t.Error("what a lost start had wanted to take away was adopted, and its end was not told")
}

// hideOOM has the engine tell of kills at a memory quota by an event alone, and that late; with a negative delay never. It counts them.
func (l *lossy) hideOOM(delay time.Duration) (held *atomic.Int64) {
	held = &atomic.Int64{}
	l.change = func(response *http.Response) {
		body := response.Body
		reader, writer := io.Pipe()
		switch path := response.Request.URL.Path; {
		case strings.HasSuffix(path, "/events"):
			go func() {
				lines := bufio.NewReader(body)
				var writing sync.WaitGroup
				var mu sync.Mutex
				write := func(line []byte) {
					mu.Lock()
					defer mu.Unlock()
					_, _ = writer.Write(line)
				}
				for {
					line, err := lines.ReadBytes('\n')
					if bytes.Contains(line, []byte(`"Action":"oom"`)) {
						held.Add(1)
						if delay < 0 {
							continue
						}
						writing.Add(1)
						time.AfterFunc(delay, func() { defer writing.Done(); write(line) })
					} else if len(line) > 0 {
						write(line)
					}
					if err != nil {
						writing.Wait()
						_ = writer.CloseWithError(err)
						return
					}
				}
			}()
		case strings.HasSuffix(path, "/json"):
			go func() {
				all, err := io.ReadAll(body)
				_, _ = writer.Write(bytes.ReplaceAll(all, []byte(`"OOMKilled":true`), []byte(`"OOMKilled":false`)))
				_ = writer.CloseWithError(err)
			}()
			response.ContentLength = -1
			response.Header.Del("Content-Length")
		default:
			return
		}
		response.Body = struct {
			io.Reader
			io.Closer
		}{reader, closers{reader, body}}
	}
	return held
}

// A busy engine tells of the kernel's kill at the memory quota after it has told of the end, and its state does not say it at all.
func TestAKillAtTheMemoryQuotaIsToldLate(t *testing.T) {
	testenv.Need(t, "docker", "root")
	b := newBench(t, testenv.DockerSocket())
	l := newLossy(t, b.socket)
	held := l.hideOOM(200 * time.Millisecond)
	w := b.through(t, l, "late")
	over := w.Spec("memory", "128")
	w.Run(over)
	if exit := w.End(over.ID); !exit.OOM || exit.Code != 137 {
		t.Errorf("128MiB of 64MiB ended as %+v", exit)
	}
	if found, ok := w.Find(over.ID); !ok || found.Exit == nil || !found.Exit.OOM {
		t.Errorf("listed as %+v", found)
	}
	child := w.Spec("memory-child", "128")
	w.Run(child)
	if exit := w.End(child.ID); !exit.OOM || exit.Code != 1 {
		t.Errorf("a child with 128MiB of 64MiB ended it as %+v", exit)
	}
	w.Restart()
	if found, ok := w.Find(over.ID); !ok || found.Exit == nil || !found.Exit.OOM {
		t.Errorf("after a restart of the node it is listed as %+v", found)
	}
	// The kernel may have said it before the engine did; by now that has too.
	if held.Load() == 0 {
		t.Error("the engine was not seen to tell of a kill")
	}
}

// An engine begins to look for kills at a quota when the program runs already. Of one that is killed at once it may not know why.
func TestAKillAtOnceThatTheEngineDoesNotSee(t *testing.T) {
	testenv.Need(t, "docker", "root")
	if cgroups.Mode() == cgroups.Unified {
		return // there the engine alone knows
	}
	b := newBench(t, testenv.DockerSocket())
	l := newLossy(t, b.socket)
	l.hideOOM(-1)
	hide := l.change
	l.change = func(response *http.Response) {
		if strings.HasSuffix(response.Request.URL.Path, "/start") {
			<-time.After(300 * time.Millisecond) // the program is gone when the node hears that it was started
		}
		hide(response)
	}
	w := b.through(t, l, "unseen")
	for range 5 {
		over := w.Spec("memory", "128")
		w.Run(over)
		if exit := w.End(over.ID); !exit.OOM || exit.Code != 137 {
			t.Errorf("128MiB of 64MiB ended as %+v", exit)
		}
		if found, ok := w.Find(over.ID); !ok || found.Exit == nil || !found.Exit.OOM {
			t.Errorf("listed as %+v", found)
		}
	}
}

// An engine that went down in the removal of a container has a dead one when it is back. Its output was kept before, and it is
// removed all the same.
func TestARemovalThatTheEngineDiedIn(t *testing.T) {
	testenv.Need(t, "docker", "root")
	b := newBench(t, testenv.DockerSocket())
	l := newLossy(t, b.socket)
	w := b.through(t, l, "dead")
	spec := w.Spec("disk", "1")
	w.Run(spec)
	w.AwaitLine(spec.ID, "filled")
	if err := w.Stop(w.Context(), spec.ID, time.Second); err != nil {
		t.Fatal(err)
	}
	found, _ := w.Find(spec.ID)
	l.hold("/"+found.RuntimeID, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if err := w.Remove(w.Context(), spec.ID); err == nil {
		t.Fatal("the removal in which the engine died is done")
	}
	l.mu.Lock()
	l.change = func(response *http.Response) {
		switch path := response.Request.URL.Path; {
		case strings.HasSuffix(path, "/logs"):
			said := `{"message":"can not get logs from container which is dead or marked for removal"}`
			response.StatusCode, response.Status = http.StatusConflict, "409 Conflict"
			response.Header.Set("Content-Type", "application/json")
			response.Body, response.ContentLength = io.NopCloser(strings.NewReader(said)), int64(len(said))
			response.Header.Del("Content-Length")
		case strings.HasSuffix(path, "/json"):
			all, _ := io.ReadAll(response.Body)
			all = bytes.ReplaceAll(all, []byte(`"Dead":false`), []byte(`"Dead":true`))
			response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(all)), int64(len(all))
			response.Header.Del("Content-Length")
		}
	}
	l.mu.Unlock()
	for _, when := range []string{"before", "after"} {
		var lines []string
		err := w.Logs(w.Context(), spec.ID, runtime.LogOptions{Tail: -1}, func(line runtime.LogLine) error {
			lines = append(lines, line.Text)
			return nil
		})
		if err != nil || strings.Join(lines, "|") != "filled" {
			t.Errorf("%s its removal it has said %q, %v", when, lines, err)
		}
		if when == "before" {
			if err := w.Remove(w.Context(), spec.ID); err != nil {
				t.Errorf("what is left of it cannot be removed: %v", err)
			}
		}
	}
	if _, err := b.client.ContainerInspect(t.Context(), found.RuntimeID); !errdefs.IsNotFound(err) {
		t.Errorf("the engine still has it: %v", err)
	}
}

// closers are closed together.
type closers []io.Closer

func (c closers) Close() error {
	for _, each := range c {
		_ = each.Close()
	}
	return nil
}
