package integration

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/test/zone"
)

// startedAt tells when docker started each container.
func (d *desk) startedAt(ids map[string]string) map[string]string {
	d.Helper()
	started := map[string]string{}
	for name, id := range ids {
		started[name] = id + " " + d.docker("inspect", "-f", "{{.State.StartedAt}} {{.RestartCount}}", id)
	}
	return started
}

func TestAZoneThatWasKilledFindsItsInstancesAgain(t *testing.T) {
	d := start(t, zone.Options{Nodes: 2})
	d.deployHello("web", 3)
	before := d.startedAt(containers(d.app("web")))
	attempt := d.app("web").Master.Attempt
	for range 3 {
		d.Kill()
		if err := d.Restart(d.ctx); err != nil {
			t.Fatal(err)
		}
		d.running("web", 3)
	}
	if after := d.startedAt(containers(d.app("web"))); !maps.Equal(before, after) {
		t.Errorf("containers changed:\nbefore %v\nafter  %v", before, after)
	}
	if now := d.app("web").Master.Attempt; now != attempt {
		t.Errorf("the master went from attempt %d to %d though it never died", attempt, now)
	}
	// What ended while nobody watched is replaced, and only that.
	d.Kill()
	d.docker("kill", containersByName(before)["web-3"])
	if err := d.Restart(d.ctx); err != nil {
		t.Fatal(err)
	}
	d.eventually("web-3 is replaced", func() (bool, string) {
		app := d.app("web")
		now := containers(app)["web-3"]
		return app.Running == 3 && now != "" && now != containersByName(before)["web-3"], fmt.Sprintf("%+v", app)
	})
	after := d.startedAt(containers(d.app("web")))
	if after["web-1"] != before["web-1"] || after["web-2"] != before["web-2"] {
		t.Errorf("others were touched:\nbefore %v\nafter  %v", before, after)
	}
}

func containersByName(started map[string]string) map[string]string {
	ids := map[string]string{}
	for name, text := range started {
		ids[name], _, _ = strings.Cut(text, " ")
	}
	return ids
}

func TestAMasterKilledThirtyTimesStopsAndDoublesNothing(t *testing.T) {
	d := start(t, zone.Options{})
	d.deployHello("web", 3)
	before := d.startedAt(containers(d.app("web")))
	for kill := range 30 {
		attempt := d.app("web").Master.Attempt
		pids := masters(t, d.Options.Dir, "web")
		if len(pids) != 1 {
			t.Fatalf("before kill %d there are masters %v", kill+1, pids)
		}
		if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		d.eventually("a new attempt registers", func() (bool, string) {
			app := d.app("web")
			return app.Master.Attempt > attempt && app.Running == 3 && app.State == "RUNNING" && len(masters(t, d.Options.Dir, "web")) == 1, fmt.Sprintf("%+v", app)
		})
	}
	app := d.running("web", 3)
	if after := d.startedAt(containers(app)); !maps.Equal(before, after) {
		t.Errorf("containers changed:\nbefore %v\nafter  %v", before, after)
	}
	if all := d.left("web"); len(strings.Fields(all)) != 3 {
		t.Errorf("docker has containers %q, want 3", strings.Fields(all))
	}
	// The adopted app is not just looked at: it is still driven.
	d.run("app", "scale", "web", "4", "--wait")
}

// masters are the processes of an app's masters in the zone of dir, found by their environment.
func masters(t *testing.T, dir, app string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if !strings.Contains(string(line), "appmaster\x00dynamicdeploy") {
			continue
		}
		environment, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		work, _ := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd"))
		if slices.Contains(strings.Split(string(environment), "\x00"), "MAMMOTH_APP="+app) && strings.HasPrefix(work, dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestCtrlCLeavesInstancesAndSaysSo(t *testing.T) {
	d := start(t, zone.Options{})
	d.deployHello("web", 2)
	before := d.startedAt(containers(d.app("web")))
	if err := d.Interrupt(); err != nil {
		t.Errorf("ctrl-C ended `mammoth up` with %v", err)
	}
	if said := d.Options.Output.(*lockedBuffer).tail(10); !strings.Contains(said, "instances") {
		t.Errorf("ctrl-C said %q, nothing of the instances", said)
	}
	if after := d.startedAt(containersByName(before)); !maps.Equal(before, after) {
		t.Errorf("ctrl-C changed the containers: %v, before %v", after, before)
	}
	if err := d.Restart(d.ctx); err != nil {
		t.Fatal(err)
	}
	app := d.running("web", 2)
	if after := d.startedAt(containers(app)); !maps.Equal(before, after) {
		t.Errorf("coming back changed the containers: %v, before %v", after, before)
	}
}

func TestALeaseThatEndedMeanwhileIsReaped(t *testing.T) {
	dir := t.TempDir()
	d := start(t, zone.Options{Dir: dir})
	d.deployHello("web", 2)
	orphans := containers(d.app("web"))
	d.Kill()
	// The ResourceManager's store is gone. It is missed, and nothing is ended before an operator has accepted the loss.
	if err := os.RemoveAll(filepath.Join(dir, "resourcemanager")); err != nil {
		t.Fatal(err)
	}
	if err := d.Restart(d.ctx); err == nil {
		t.Fatal("the zone began without its store")
	}
	if out := d.run("store", "repair", "--accept-loss", "--dir", filepath.Join(dir, "resourcemanager", "store")); !strings.Contains(out, "lost") {
		t.Errorf("the repair says nothing of a loss: %s", out)
	}
	if err := d.Restart(d.ctx); err != nil {
		t.Fatal(err)
	}
	d.eventually("the node shows what has no record", func() (bool, string) {
		out := d.run("node", "show", "node-1")
		return strings.Contains(out, "without a record in the zone") && strings.Contains(out, "web"), out
	})
	if out := d.left("web"); len(strings.Fields(out)) == 0 {
		t.Error("containers were ended before the loss was accepted")
	}
	d.run("store", "accept")
	d.eventually("the orphans are gone", func() (bool, string) {
		out := d.left("web")
		return out == "", out
	})
	d.eventually("the orphaned master is gone", func() (bool, string) {
		pids := masters(t, dir, "web")
		return len(pids) == 0, fmt.Sprint(pids)
	})
	if len(orphans) != 2 {
		t.Fatalf("there were no orphans to reap: %v", orphans)
	}
}

func TestAnEngineThatStopsMakesTheNodeUnhealthyUntilItIsBack(t *testing.T) {
	engine, err := zone.NewEngine(false, nil)
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
	d.deployHello("web", 3)
	engine.Stop()
	d.eventually("the node is unhealthy with a reason", func() (bool, string) {
		out := d.run("node", "ls", "-o", "json")
		return strings.Contains(out, `"UNHEALTHY"`) && strings.Contains(strings.ToLower(out), "docker"), out
	})
	time.Sleep(time.Second)
	if err := engine.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.eventually("the node is ready again", func() (bool, string) {
		out := d.run("node", "ls", "-o", "json")
		return strings.Contains(out, `"READY"`), out
	})
	d.running("web", 3)
}
