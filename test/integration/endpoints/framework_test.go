package endpoints_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/testenv"
	realzone "github.com/mammoth-os/mammoth/test/zone"
)

const (
	edgeManifest = `name: edge
kind: framework
companion: {nginx: {listen: %s, workers: %d}}
resources: {cpu: 500m, memory: 128MiB, disk: 128MiB}
`
	webManifest = `name: web
image: %s
instances: 2
resources: {cpu: 100m, memory: 32MiB, disk: 32MiB}
ports: [{name: http, container: 8080}]
health: {http: {path: /healthz}, interval: 200ms}
expose: {http: {host: web.example.test}}
stop: {drain: 1s}
`
)

// edge is an nginx that the zone itself runs, and a zone around it.
type edge struct {
	*realzone.Zone
	t     *testing.T
	ctx   context.Context
	dir   string
	front string
}

func newEdge(t *testing.T) *edge {
	t.Helper()
	testenv.Need(t, "docker", "root", "cgroup", "program:nginx")
	e := &edge{t: t, ctx: within(t), dir: folder(t), front: freeAddress(t)}
	programs, err := realzone.Build(e.ctx, "../../..", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	e.Zone, err = realzone.Start(e.ctx, programs, realzone.Options{
		Dir: filepath.Join(e.dir, "zone"), Args: []string{"--port-range", "28300-28399"}, Output: testWriter{t},
	})
	t.Cleanup(func() {
		if err := e.Purge(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// deploy deploys a manifest and waits for it.
func (e *edge) deploy(manifest string, words ...any) {
	e.t.Helper()
	path := filepath.Join(e.dir, "app.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, manifest, words...), 0o600); err != nil {
		e.t.Fatal(err)
	}
	e.must("deploy", path, "--wait")
}

func (e *edge) must(args ...string) {
	e.t.Helper()
	if _, err := e.CLI(e.ctx, args...); err != nil {
		e.t.Fatal(err)
	}
}

// until waits for what a person would see.
func (e *edge) until(what string, seen func() bool) {
	e.t.Helper()
	for !seen() {
		select {
		case <-e.ctx.Done():
			e.t.Fatalf("never seen: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// answers is what the app says through nginx.
func (e *edge) answers(want string) bool {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", e.front)
		},
	}}
	word, err := get(client, "http://"+host+"/")
	return err == nil && strings.Contains(word, want)
}

// companion is the container and the process of the framework's only instance.
func (e *edge) companion() (container string, pid int) {
	e.t.Helper()
	app, err := e.App(e.ctx, "edge")
	if err != nil || len(app.Instances) != 1 || app.Instances[0].State != "RUNNING" {
		return "", 0
	}
	container = app.Instances[0].ContainerID
	text, err := os.ReadFile(filepath.Join(e.dir, "zone", "node-1", "processes", container, "state.json"))
	state := struct{ Pid int }{}
	if err != nil || json.Unmarshal(text, &state) != nil {
		return "", 0
	}
	return container, state.Pid
}

func (e *edge) place() string { return filepath.Join(e.dir, "zone", "node-1", "frameworks", "edge") }

// master is the process id of the nginx that is the framework's.
func (e *edge) master() int {
	text, _ := os.ReadFile(filepath.Join(e.place(), "nginx.pid"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// workers counts nginx's worker processes, also those that are about to end.
func (e *edge) workers() int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", e.master()))
	return len(strings.Fields(string(text)))
}

// left is what is still there of the framework, in words.
func (e *edge) left() (left []string) {
	if conn, err := net.Dial("tcp", e.front); err == nil {
		_ = conn.Close()
		left = append(left, "somebody listens at "+e.front)
	}
	if _, err := os.Stat(e.place()); err == nil {
		left = append(left, e.place())
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/mammoth/*/node-1/place-edge")
	left = append(left, groups...)
	works, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range works {
		if where, err := os.Readlink(link); err == nil && strings.HasPrefix(where, e.place()) {
			left = append(left, link)
		}
	}
	return left
}

// An nginx that the zone runs as a framework serves on while its companion dies, is replaced, and is exchanged for
// another configuration; it ends with its app, and nothing is left.
func TestAFrameworksNginxServesWithoutItsCompanion(t *testing.T) {
	e := newEdge(t)
	e.deploy(webManifest, e.Programs.Hello)
	e.deploy(edgeManifest, e.front, 2)
	// While it takes up its first routes, workers that know of none accept requests too.
	e.until("the first answer", func() bool { return e.answers("version: 1") && e.workers() == 2 })
	nginx := e.master()
	l := newLoad(e.front, 100)
	check := func(during string) {
		t.Helper()
		total, _, failed := l.count()
		if total == 0 || len(failed) > 0 {
			t.Errorf("%s: %d of %d requests failed: %q", during, len(failed), total, failed[:min(len(failed), 3)])
		}
		if e.master() != nginx {
			t.Errorf("%s: nginx is process %d, was %d", during, e.master(), nginx)
		}
	}

	container, pid := e.companion()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e.until("another companion", func() bool { now, _ := e.companion(); return now != "" && now != container })
	check("the companion killed")

	e.deploy(webManifest, e.Programs.Hello2)
	e.until("the new version", func() bool { return e.answers("version: 2") })
	check("a deployment after that")

	e.deploy(edgeManifest, e.front, 1)
	e.until("the new number of workers", func() bool { return e.workers() == 1 })
	check("another configuration")
	l.stop()

	e.must("app", "stop", "edge", "--wait")
	e.until("nothing of a stopped framework", func() bool { return len(e.left()) == 0 })

	// It dies and is removed before it is back: what it left is ended all the same.
	e.deploy(edgeManifest, e.front, 1)
	e.until("an answer after a new start", func() bool { return e.answers("version: 2") })
	_, pid = e.companion()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e.must("app", "rm", "edge", "--wait")
	e.until("nothing of a removed framework", func() bool { return len(e.left()) == 0 })
}
