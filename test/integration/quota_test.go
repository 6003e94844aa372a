package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/test/zone"
)

// command deploys the example app with another command, without waiting for health.
func (d *desk) command(name string, manifest string) {
	d.Helper()
	path := filepath.Join(d.TempDir(), name+".yaml")
	text := fmt.Sprintf("name: %s\nimage: %s\n%s", name, d.Programs.Hello, manifest)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		d.Fatal(err)
	}
	d.run("deploy", path)
}

func (d *desk) eventSays(app, word string) {
	d.Helper()
	d.eventually(fmt.Sprintf("the events of %s say %q", app, word), func() (bool, string) {
		out := d.run("app", "events", app)
		return strings.Contains(out, word), out
	})
}

func TestQuotasHoldAgainstAProgramThatBreaksOut(t *testing.T) {
	d := start(t, zone.Options{})

	d.command("eater", "args: [burn, memory, \"256\"]\nresources: {cpu: 500m, memory: 32MiB, disk: 64MiB}\n")
	d.eventSays("eater", "OOMKilled")

	d.deployHello("writer", 1, "--memory", "512MiB", "--disk", "32MiB")
	// The answer does not matter: the writer is stopped, or cannot write, before or after it answers.
	_, _ = get(fmt.Sprintf("http://127.0.0.1:%d/burn/disk?mib=128&path=/fill", d.app("writer").Instances[0].Port))
	d.eventSays("writer", "disk quota exceeded (")

	// With memory enough for every process that the box may hold, only the box holds them.
	d.command("forker", "resources: {cpu: 200m, memory: 1GiB, disk: 64MiB, pids: 64}\nports: [{name: http, container: 8080}]\nhealth: {http: {path: /healthz, port: http}}\n")
	forker := containers(d.running("forker", 1))["forker-1"]
	limit := d.docker("inspect", "-f", "{{.HostConfig.PidsLimit}}", forker)
	pids, err := strconv.Atoi(limit)
	if err != nil || pids != 64 {
		t.Errorf("the pids limit is %q, want 64", limit)
	}
	said, _ := d.CLI(d.ctx, "app", "exec", "forker", "--", "/hello", "fork", "5000")
	started := 0
	_, silent := fmt.Sscanf(said, "started %d of", &started)
	// The program itself may end for want of a thread, and its box with it; then only the one that forked tells of it.
	seen, gone := exec.Command("docker", "top", forker, "-eo", "pid").Output()
	if silent != nil && gone != nil {
		t.Errorf("nobody tells how many processes there were: %q, %v", said, gone)
	}
	// Those that were started, who started them and the program; or what is listed, less the header.
	if count := max(started+2, len(strings.Fields(string(seen)))-1); count > pids {
		t.Errorf("%d processes in a box of %d", count, pids)
	}
	if _, err := get(fmt.Sprintf("http://127.0.0.1:%d/healthz", d.app("forker").Instances[0].Port)); err != nil {
		d.running("forker", 1)
	}
}

func TestHalfACoreIsHalfACore(t *testing.T) {
	d := start(t, zone.Options{})
	d.command("burner", "args: [burn, cpu, \"60\"]\nresources: {cpu: 500m, memory: 64MiB, disk: 64MiB}\n")
	app := d.running("burner", 1)
	id := app.Instances[0].RuntimeID
	usage := cpuUsage(t, id)
	begin, from := time.Now(), usage()
	time.Sleep(8 * time.Second)
	share := float64(usage()-from) / float64(time.Since(begin))
	t.Logf("a busy loop with 0.5 cpu used %.3f", share)
	if share > 0.55 {
		t.Errorf("a busy loop with 0.5 cpu used %.3f", share)
	}
}

// cpuUsage reads how many nanoseconds of cpu a container has used, on cgroup v1 or v2.
func cpuUsage(t *testing.T, id string) func() int64 {
	t.Helper()
	matches, _ := filepath.Glob("/sys/fs/cgroup/cpuacct/*/" + id + "/cpuacct.usage")
	if len(matches) == 0 {
		matches, _ = filepath.Glob("/sys/fs/cgroup/cpuacct/*/*/" + id + "/cpuacct.usage")
	}
	if len(matches) == 1 {
		return func() int64 {
			text, err := os.ReadFile(matches[0])
			if err != nil {
				t.Fatal(err)
			}
			n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			return n
		}
	}
	found := ""
	for _, pattern := range []string{"/sys/fs/cgroup/*/*" + id + "*/cpu.stat", "/sys/fs/cgroup/*/*/*" + id + "*/cpu.stat"} {
		if matches, _ := filepath.Glob(pattern); len(matches) > 0 {
			found = matches[0]
		}
	}
	if found == "" {
		t.Fatalf("no cgroup of container %s found", id)
	}
	return func() int64 {
		text, err := os.ReadFile(found)
		if err != nil {
			t.Fatal(err)
		}
		var micros int64
		if _, err := fmt.Sscanf(string(text), "usage_usec %d", &micros); err != nil {
			t.Fatal(err)
		}
		return micros * 1000
	}
}

func TestAnEngineWithQuotasAnswersENOSPC(t *testing.T) {
	engine, err := zone.NewEngine(true, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := engine.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := start(t, zone.Options{
		Dir: t.TempDir(), Listen: "127.0.0.1:7070", Enter: engine.Enter,
		Args: []string{"--docker-host", "unix://" + engine.Socket},
	})
	if nodes := d.run("node", "ls", "-o", "json"); !strings.Contains(nodes, "driver") {
		t.Errorf("the node does not say that its engine enforces disk quotas: %s", nodes)
	}
	d.deployHello("web", 1)
	_, err = d.CLI(d.ctx, "app", "exec", "web", "--", "/hello", "burn", "disk", "512")
	if err == nil || !strings.Contains(err.Error(), "no space left") && !strings.Contains(err.Error(), "quota") {
		t.Errorf("writing 512 MiB under a quota of 64 MiB: %v; want no space left", err)
	}
	d.running("web", 1)
}
