package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/test/zone"
)

func TestAnImageBecomesInstancesUnderQuota(t *testing.T) {
	d := start(t, zone.Options{Nodes: 2})
	d.build("mammoth-test/foreign:1", d.Programs.HelloBinary, []byte("foreign"))
	foreign := d.docker("run", "-d", "mammoth-test/foreign:1")
	t.Cleanup(func() { d.docker("rm", "-f", foreign) })

	d.deployHello("web", 3)
	app := d.app("web")
	if app.State != "RUNNING" || app.Wanted != 3 || app.Running != 3 {
		t.Fatalf("after deploy --wait: %+v", app)
	}
	nodes, ports := map[string]bool{}, map[int]bool{}
	for _, instance := range app.Instances {
		nodes[instance.Node], ports[instance.Port] = true, true
		var names []string
		for _, phase := range instance.Phases {
			names = append(names, phase.Name)
		}
		if got := strings.Join(names, " "); got != "download load run" {
			t.Errorf("%s went through %q, want download load run", instance.ID, got)
		}
		quota := d.docker("inspect", "-f", "{{.HostConfig.NanoCpus}} {{.HostConfig.CpuQuota}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}}", instance.RuntimeID)
		var nano, cpu, memory, swap, pids int64
		if _, err := fmt.Sscan(quota, &nano, &cpu, &memory, &swap, &pids); err != nil {
			t.Fatalf("docker says %q: %v", quota, err)
		}
		if nano != 1e8 && cpu == 0 || memory != 64<<20 || swap != 64<<20 || pids <= 0 {
			t.Errorf("%s has quotas %q (nanocpus, cpu quota, memory, memory+swap, pids)", instance.ID, quota)
		}
		body, err := get(fmt.Sprintf("http://%s:%d/", instance.Address, instance.Port))
		if err != nil || !strings.Contains(body, instance.ID) {
			t.Errorf("%s answers %q, %v", instance.ID, body, err)
		}
	}
	if len(nodes) != 2 || len(ports) != 3 {
		t.Errorf("3 instances are on %d nodes with %d ports; want both nodes and three ports", len(nodes), len(ports))
	}
	endpoints, err := d.Endpoints(d.ctx, "web")
	if err != nil || len(endpoints) != 3 {
		t.Errorf("the registry has %v, %v", endpoints, err)
	}

	d.run("app", "scale", "web", "5", "--wait")
	if app := d.app("web"); app.Running != 5 {
		t.Errorf("after scale 5 --wait: %+v", app)
	}
	d.run("app", "scale", "web", "2", "--wait")
	d.running("web", 2)

	d.eventually("logs of several instances name them", func() (bool, string) {
		logs := d.run("app", "logs", "web", "--tail", "20")
		return strings.Contains(logs, "web-1"), logs
	})
	if out := d.run("app", "exec", "web", "--", "/hello", "--version"); strings.TrimSpace(out) != "1" {
		t.Errorf("exec printed %q", out)
	}
	_, err = d.CLI(d.ctx, "app", "exec", "web", "--", "/hello", "exit", "3")
	if failed, ok := err.(*zone.CommandError); !ok || failed.ExitCode() != 3 {
		t.Errorf("exec of a command that exits with 3: %v", err)
	}
	if out := d.run("app", "explain", "web"); !strings.Contains(out, "2 of 2") {
		t.Errorf("explain of a healthy app: %q", out)
	}

	d.run("app", "rm", "web", "--wait")
	d.refused(1, []string{"web"}, "app", "show", "web")
	d.eventually("the engine has removed the containers", func() (bool, string) {
		left := d.left("web")
		return left == "", left
	})
	if state := d.docker("inspect", "-f", "{{.State.Running}}", foreign); state != "true" {
		t.Error("a container that is not ours was stopped")
	}
}

func TestARolloutLosesNoRequestAndCanBeTakenBack(t *testing.T) {
	d := start(t, zone.Options{})
	d.deployHello("web", 3, "--cpu", "0.2")
	before := d.app("web")

	d.run("deploy", d.Programs.Hello2, "--name", "web", "--wait")
	after := d.app("web")
	if after.Version != before.Version+1 || after.Running != 3 || after.Wanted != 3 {
		t.Fatalf("after the rollout: %+v", after)
	}
	for _, instance := range after.Instances {
		body, err := get(fmt.Sprintf("http://%s:%d/", instance.Address, instance.Port))
		if err != nil || !strings.Contains(body, "2") {
			t.Errorf("%s answers %q, %v; want version 2", instance.ID, body, err)
		}
		if quota := d.docker("inspect", "-f", "{{.HostConfig.Memory}}", instance.RuntimeID); quota != "67108864" {
			t.Errorf("the rollout changed the memory quota to %s", quota)
		}
	}

	d.run("app", "rollback", "web", "--wait")
	for _, instance := range d.app("web").Instances {
		if out := d.run("app", "exec", "web", "--instance", instance.ID, "--", "/hello", "--version"); strings.TrimSpace(out) != "1" {
			t.Errorf("%s has version %q after the rollback", instance.ID, out)
		}
	}
	history := d.run("app", "history", "web")
	if !strings.Contains(history, "rollback") {
		t.Errorf("history does not tell of the rollback: %q", history)
	}

	// A version that never becomes healthy is taken back by itself, and whoever waits is told.
	sick := filepath.Join(t.TempDir(), "sick.yaml")
	manifest := "name: web\nimage: hello2:latest\ninstances: 3\nresources: {cpu: 200m, memory: 64MiB, disk: 64MiB}\n" +
		"ports: [{name: http, container: 8080}]\nhealth: {http: {path: /nowhere, port: http}}\nupdate: {deadline: 10s}\n"
	if err := os.WriteFile(sick, []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := d.CLI(d.ctx, "deploy", sick, "--wait", "--timeout", "2m")
	if err == nil || !strings.Contains(err.Error(), "revert") {
		t.Errorf("a version that never gets healthy: %v; want a failure that tells of the revert", err)
	}
	if app := d.running("web", 3); app.Running != 3 {
		t.Errorf("after the revert: %+v", app)
	}
}

func TestAKilledInstanceIsReplaced(t *testing.T) {
	d := start(t, zone.Options{})
	d.deployHello("web", 3)
	before := containers(d.app("web"))
	d.docker("kill", before["web-2"])
	d.eventually("web-2 is replaced", func() (bool, string) {
		app := d.app("web")
		now := containers(app)
		return app.Running == 3 && now["web-2"] != "" && now["web-2"] != before["web-2"], fmt.Sprintf("%+v", app)
	})
	after := containers(d.app("web"))
	if after["web-1"] != before["web-1"] || after["web-3"] != before["web-3"] {
		t.Errorf("others were touched: %v, before %v", after, before)
	}
	// The engine may take a moment to write down what a program that runs has said.
	d.eventually("logs with --previous have the dead instance's too", func() (bool, string) {
		logs := d.run("app", "logs", "web", "--instance", "web-2", "--previous")
		return strings.Count(logs, "listens on") >= 2, logs
	})
}

func TestEventsTellTheStory(t *testing.T) {
	d := start(t, zone.Options{})
	d.deployHello("web", 1)
	var last int64
	for line := range strings.Lines(d.run("app", "events", "web", "-o", "json")) {
		var event struct {
			Sequence json.Number
			Kind, To string
			Time     time.Time
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		sequence, _ := event.Sequence.Int64()
		if sequence <= last || event.Kind == "" || event.Time.IsZero() {
			t.Errorf("event %q after sequence %d", line, last)
		}
		last = sequence
	}
	if last == 0 {
		t.Error("there are no events")
	}
}
