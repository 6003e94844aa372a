package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/test/zone"
)

var programs = sync.OnceValues(func() (zone.Programs, error) {
	dir, err := os.MkdirTemp("", "mammoth-programs-")
	if err != nil {
		return zone.Programs{}, err
	}
	return zone.Build(context.Background(), filepath.Join("..", ".."), dir)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if p, err := programs(); err == nil {
		_ = os.RemoveAll(filepath.Dir(p.Mammoth))
	}
	os.Exit(code)
}

// desk is one test's zone, with helpers that end the test when they fail.
type desk struct {
	*testing.T
	*zone.Zone
	ctx  context.Context
	zone string
}

// start runs a zone for the length of the test and takes away everything that it leaves.
func start(t *testing.T, options zone.Options) *desk {
	t.Helper()
	testenv.Need(t, "docker", "root")
	p, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	if options.Dir == "" {
		options.Dir = t.TempDir()
	}
	log := &lockedBuffer{}
	options.Output = log
	options.Args = append([]string{"--node-cpu", "4", "--node-memory", "4GiB", "--node-disk", "8GiB"}, options.Args...)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	z, err := zone.Start(ctx, p, options)
	d := &desk{T: t, Zone: z, ctx: ctx}
	t.Cleanup(func() {
		if err := z.Purge(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the zone said:\n%s", log.tail(200))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// run is a command that must succeed.
func (d *desk) run(args ...string) string {
	d.Helper()
	out, err := d.CLI(d.ctx, args...)
	if err != nil {
		d.Fatal(err)
	}
	return out
}

// refused is a command that must fail with a code and a sentence that has all the words.
func (d *desk) refused(code int, words []string, args ...string) {
	d.Helper()
	_, err := d.CLI(d.ctx, args...)
	failed, ok := err.(*zone.CommandError)
	if !ok {
		d.Errorf("mammoth %s: %v, want exit code %d", strings.Join(args, " "), err, code)
		return
	}
	if failed.ExitCode() != code {
		d.Errorf("mammoth %s: exit code %d, want %d: %s", strings.Join(args, " "), failed.ExitCode(), code, failed.Stderr)
	}
	for _, word := range words {
		if !strings.Contains(failed.Stderr, word) {
			d.Errorf("mammoth %s said %q, which lacks %q", strings.Join(args, " "), failed.Stderr, word)
		}
	}
}

func (d *desk) app(name string) zone.App {
	d.Helper()
	app, err := d.App(d.ctx, name)
	if err != nil {
		d.Fatal(err)
	}
	return app
}

// deployHello deploys the example app and waits for it.
func (d *desk) deployHello(name string, instances int, more ...string) {
	d.Helper()
	args := []string{
		"deploy", d.Programs.Hello, "--name", name, "--instances", fmt.Sprint(instances), "--cpu", "0.1",
		"--memory", "64MiB", "--disk", "64MiB", "--port", "8080", "--health", "http:/healthz", "--min-healthy", "0s", "--wait",
	}
	d.run(append(args, more...)...)
}

// eventually waits for a condition, at most a minute, and fails with what it last said.
func (d *desk) eventually(what string, condition func() (bool, string)) {
	d.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		ok, seen := condition()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			d.Fatalf("%s did not come true within a minute; last seen: %s", what, seen)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// running waits until an app has so many healthy instances and no other, and the zone knows their containers: an instance's
// state comes from the app's master, and its container from its node.
func (d *desk) running(name string, count int) zone.App {
	d.Helper()
	var app zone.App
	d.eventually(fmt.Sprintf("%s runs %d instances", name, count), func() (bool, string) {
		app = d.app(name)
		healthy := 0
		for _, instance := range app.Instances {
			if instance.State == "RUNNING" && instance.RuntimeID != "" {
				healthy++
			}
		}
		return healthy == count && len(app.Instances) == count, fmt.Sprintf("%+v", app)
	})
	return app
}

// containers are the docker ids of an app's instances, by instance.
func containers(app zone.App) map[string]string {
	ids := map[string]string{}
	for _, instance := range app.Instances {
		ids[instance.ID] = instance.RuntimeID
	}
	return ids
}

func (d *desk) docker(args ...string) string {
	d.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		d.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// left are the containers, running or not, that docker has of an app in this zone.
func (d *desk) left(app string) string {
	d.Helper()
	if d.zone == "" {
		body, err := get("http://" + d.Address + "/v1/zone")
		if err != nil {
			d.Fatal(err)
		}
		var zone struct{ Name string }
		if err := json.Unmarshal([]byte(body), &zone); err != nil || zone.Name == "" {
			d.Fatalf("the zone says it is %q, %v", body, err)
		}
		d.zone = zone.Name
	}
	return d.docker("ps", "-aq", "--filter", "label=mammoth.zone="+d.zone, "--filter", "label=mammoth.app="+app)
}

func get(url string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, response.Status)
	}
	return string(body), err
}

// lockedBuffer collects what several processes say.
type lockedBuffer struct {
	mu   sync.Mutex
	text []byte
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	return len(p), nil
}

func (b *lockedBuffer) tail(lines int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := strings.Split(string(b.text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
