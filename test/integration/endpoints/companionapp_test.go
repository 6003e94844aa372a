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
kind: companion
companion: {nginx: {listen: %s, workers: %d}}
resources: {cpu: 500m, memory: 128MiB, disk: 128MiB}
update: {minHealthy: 0s}
`
	webManifest = `name: web
image: %s
instances: 2
resources: {cpu: 100m, memory: 32MiB, disk: 32MiB}
ports: [{name: http, container: 8080}]
health: {http: {path: /healthz}, interval: 200ms}
expose: {http: {host: web.example.test}}
update: {minHealthy: 0s}
stop: {drain: 1s}
`
)

// liveZone is a whole zone in processes of its own, and where the nginx that it runs as the companion app edge listens.
type liveZone struct {
	*realzone.Zone
	t     *testing.T
	ctx   context.Context
	dir   string
	front string
}

func newLiveZone(t *testing.T) *liveZone {
	t.Helper()
	testenv.Need(t, "docker", "root", "cgroup")
	z := &liveZone{t: t, ctx: within(t), dir: folder(t), front: freeAddress(t)}
	programs, err := realzone.Build(z.ctx, "../../..", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	z.Zone, err = realzone.Start(z.ctx, programs, realzone.Options{
		Dir: filepath.Join(z.dir, "zone"), Args: []string{"--port-range", "28300-28399"}, Output: testWriter{t},
	})
	t.Cleanup(func() {
		if err := z.Purge(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// deploy deploys a manifest and waits for it.
func (z *liveZone) deploy(manifest string, words ...any) {
	z.t.Helper()
	path := filepath.Join(z.dir, "app.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, manifest, words...), 0o600); err != nil {
		z.t.Fatal(err)
	}
	z.must("deploy", path, "--wait")
}

// refused deploys a manifest that is taken back.
func (z *liveZone) refused(manifest string, words ...any) {
	z.t.Helper()
	path := filepath.Join(z.dir, "app.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, manifest, words...), 0o600); err != nil {
		z.t.Fatal(err)
	}
	if out, err := z.CLI(z.ctx, "deploy", path, "--wait"); err == nil {
		z.t.Errorf("a deployment that cannot be done was: %s", out)
	}
}

func (z *liveZone) must(args ...string) {
	z.t.Helper()
	if _, err := z.CLI(z.ctx, args...); err != nil {
		z.t.Fatal(err)
	}
}

// until waits for what a person would see.
func (z *liveZone) until(what string, seen func() bool) {
	z.t.Helper()
	for !seen() {
		select {
		case <-z.ctx.Done():
			z.t.Fatalf("never seen: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// answers is what the app says through nginx.
func (z *liveZone) answers(want string) bool {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", z.front)
		},
	}}
	word, err := get(client, "http://"+host+"/")
	return err == nil && strings.Contains(word, want)
}

// companion is the container and the process of the app's only instance.
func (z *liveZone) companion() (container string, pid int) {
	z.t.Helper()
	app, err := z.App(z.ctx, "edge")
	if err != nil || len(app.Instances) != 1 || app.Instances[0].State != "RUNNING" {
		return "", 0
	}
	container = app.Instances[0].ContainerID
	text, err := os.ReadFile(filepath.Join(z.dir, "zone", "node-1", "processes", container, "state.json"))
	state := struct{ Notes struct{ Pid int } }{}
	if err != nil || json.Unmarshal(text, &state) != nil {
		return "", 0
	}
	return container, state.Notes.Pid
}

func (z *liveZone) place() string {
	return filepath.Join(z.dir, "zone", "node-1", "companions", "edge")
}

// master is the process id of the nginx that is the app's.
func (z *liveZone) master() int {
	text, _ := os.ReadFile(filepath.Join(z.place(), "nginx.pid"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// workers counts nginx's worker processes, also those that are about to end.
func (z *liveZone) workers() int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", z.master()))
	return len(strings.Fields(string(text)))
}

// left is what is still there of the app, in words.
func (z *liveZone) left() (left []string) {
	if conn, err := net.Dial("tcp", z.front); err == nil {
		_ = conn.Close()
		left = append(left, "somebody listens at "+z.front)
	}
	if _, err := os.Stat(z.place()); err == nil {
		left = append(left, z.place())
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/mammoth/*/node-1/place-edge")
	left = append(left, groups...)
	works, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range works {
		if where, err := os.Readlink(link); err == nil && strings.HasPrefix(where, z.place()) {
			left = append(left, link)
		}
	}
	return left
}

// An nginx that the zone runs as a companion app serves on while its companion dies, is replaced, and is exchanged for
// another configuration; it ends with its app, and nothing is left.
func TestACompanionAppsNginxServesWithoutItsCompanion(t *testing.T) {
	testenv.Need(t, "program:nginx")
	z := newLiveZone(t)
	z.deploy(webManifest, z.Programs.Hello)
	z.deploy(edgeManifest, z.front, 2)
	if !z.answers("version: 1") {
		t.Error("the app is deployed, and its nginx does not route")
	}
	nginx := z.master()
	l := newLoad(z.front, 100)
	check := func(during string) {
		t.Helper()
		total, _, failed := l.count()
		if total == 0 || len(failed) > 0 {
			t.Errorf("%s: %d of %d requests failed: %q", during, len(failed), total, failed[:min(len(failed), 3)])
		}
		if z.master() != nginx {
			t.Errorf("%s: nginx is process %d, was %d", during, z.master(), nginx)
		}
	}

	container, pid := z.companion()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	z.until("another companion", func() bool { now, _ := z.companion(); return now != "" && now != container })
	check("the companion killed")

	z.deploy(webManifest, z.Programs.Hello2)
	z.until("the new version", func() bool { return z.answers("version: 2") })
	check("a deployment after that")

	z.deploy(edgeManifest, z.front, 1)
	z.until("the new number of workers", func() bool { return z.workers() == 1 })
	check("another configuration")

	// Somebody else listens there: the configuration before is taken back, and was in effect all the while.
	z.refused(strings.Replace(edgeManifest, "minHealthy: 0s", "minHealthy: 0s, deadline: 2s", 1), z.Address, 1)
	z.until("the configuration before", func() bool {
		app, err := z.App(z.ctx, "edge")
		return err == nil && app.Status.Detail.State == "REVERTED" && app.Running == 1
	})
	check("a configuration that cannot be")
	l.stop()

	z.must("app", "stop", "edge", "--wait")
	z.until("nothing of a stopped companion app", func() bool { return len(z.left()) == 0 })

	// It dies and is removed before it is back: what it left is ended all the same.
	z.deploy(edgeManifest, z.front, 1)
	z.until("an answer after a new start", func() bool { return z.answers("version: 2") })
	_, pid = z.companion()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	z.must("app", "rm", "edge", "--wait")
	z.until("nothing of a removed companion app", func() bool { return len(z.left()) == 0 })
}
