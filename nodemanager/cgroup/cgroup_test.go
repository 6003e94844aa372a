package cgroup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/testenv"
)

func real(t *testing.T, limits Limits) *Group {
	t.Helper()
	testenv.Need(t, "cgroup")
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	parent := "mammoth-test-" + strconv.Itoa(os.Getpid())
	g, err := h.Create(parent+"/group", limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Kill(context.Background()), g.Delete(), h.Prune(parent)); err != nil {
			t.Error(err)
		}
	})
	return g
}

func TestKernelHasTheLimits(t *testing.T) {
	want := Limits{CPUMillis: 500, MemoryBytes: 64 << 20, Pids: 20}
	if got, err := real(t, want).Limits(); err != nil || got != want {
		t.Errorf("limits are %+v, %v", got, err)
	}
}

// counted is how many processes the kernel counts in a group; they need not be listed.
func counted(t *testing.T, g *Group) int64 {
	t.Helper()
	var dir string
	var err error
	switch main := g.main.(type) {
	case *v1:
		dir, err = main.dir(cgroup1.Pids)
	case *v2:
		dir = main.dir()
	}
	count, err2 := number(dir, "pids.current")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return count
}

// A shell that forks continuously and ignores every signal that it can is killed with all its children.
func TestKillTakesTheWholeTree(t *testing.T) {
	for _, beside := range []bool{true, false} {
		g := real(t, Limits{Pids: 100})
		if !beside {
			if g.unified == nil {
				continue // there is no other tree to kill through
			}
			if err := g.unified.remove(); err != nil {
				t.Fatal(err)
			}
			g.unified = nil
		}
		bomb := exec.Command("/bin/sh", "-c", `trap "" TERM INT; read go; f() { while :; do sleep 60 & done; }; f & f & wait`)
		stdin, err := bomb.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := bomb.Start(); err != nil {
			t.Fatal(err)
		}
		if err := g.Add(bomb.Process.Pid); err != nil {
			t.Fatal(err)
		}
		if _, err := stdin.Write([]byte("go\n")); err != nil {
			t.Fatal(err)
		}
		for {
			count := counted(t, g)
			if count > 100 {
				t.Fatalf("%d processes", count)
			}
			if count > 50 {
				break
			}
		}
		done := make(chan error, 1)
		go func() { done <- bomb.Wait() }()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		if err := g.Kill(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
		if left, err := g.Pids(); err != nil || len(left) != 0 {
			t.Errorf("left %v, %v", left, err)
		}
	}
}

// A group that does not exist has no processes, can be killed and deleted without an error, and cannot be measured.
func TestGroupThatIsNotThere(t *testing.T) {
	testenv.Need(t, "cgroup")
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]*Hierarchy{"host": h, "version 2": {mount: t.TempDir()}} {
		g := h.Open("mammoth-test-nowhere/group")
		if members, err := g.Pids(); len(members) > 0 || err != nil {
			t.Errorf("%s: %v, %v", name, members, err)
		}
		if err := errors.Join(g.Kill(t.Context()), g.killOnce(), g.Signal(unix.SIGTERM), g.Delete()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_, limits := g.Limits()
		_, kills := g.OOMKills()
		for _, err := range []error{limits, kills, g.Add(os.Getpid())} {
			if !errdefs.IsNotFound(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A group below another one, whose process is the only one, is that group's too.
func TestGroupsBelowBelong(t *testing.T) {
	g := real(t, Limits{})
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	below, err := h.Create("mammoth-test-"+strconv.Itoa(os.Getpid())+"/group/below", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	sleeper := exec.Command("/bin/sleep", "600")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	if err := below.Add(sleeper.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if members, err := g.Pids(); err != nil || !slices.Equal(members, []int{sleeper.Process.Pid}) {
		t.Errorf("%v, %v; want %d", members, err, sleeper.Process.Pid)
	}
	if err := g.Delete(); err == nil {
		t.Error("a group with a process was deleted")
	}
	seen, err := h.OfProcess(sleeper.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if members, err := seen.Pids(); err != nil || len(members) != 1 {
		t.Errorf("the group of the process has %v, %v", members, err)
	}
	done := make(chan error, 1)
	go func() { done <- sleeper.Wait() }()
	if err := g.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	// Its parent, and nobody else, has learned how it ended.
	var exit *exec.ExitError
	if err := <-done; !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("the sleeper ended as %v", err)
	}
}

// Version 2 on a folder that only looks like it: what is written is what the kernel wants to read.
func TestVersion2Files(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "mammoth", "zone", "c1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, parent := range []string{root, filepath.Join(root, "mammoth"), filepath.Join(root, "mammoth", "zone")} {
		if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"cpu.max": "", "cpu.weight": "", "memory.max": "", "memory.swap.max": "", "pids.max": "", "cgroup.procs": "",
		"memory.current": "4096\n", "pids.current": "3\n",
		"memory.stat": "anon 1\n", "memory.events": "low 0\noom 2\noom_kill 1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := &Hierarchy{mount: root}
	limits := Limits{CPUMillis: 1500, MemoryBytes: 1 << 20, Pids: 5}
	g, err := h.Create("/mammoth/zone/c1", limits)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"cpu.max": "150000 100000", "cpu.weight": "138", "memory.max": "1048576", "memory.swap.max": "0", "pids.max": "5",
		"../cgroup.subtree_control": "+cpu +memory +pids", "../../../cgroup.subtree_control": "+cpu +memory +pids",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", file, got, err, want)
		}
	}
	if got, err := g.Limits(); err != nil || got != limits {
		t.Errorf("limits read back %+v, %v", got, err)
	}
	if kills, err := g.OOMKills(); err != nil || kills != 1 {
		t.Errorf("%d kills, %v", kills, err)
	}
	// If the kernel has cgroup.kill, it is used, and no process gets a signal in addition.
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.killOnce(); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "cgroup.kill")); err != nil || string(got) != "1" {
		t.Errorf("cgroup.kill is %q, %v", got, err)
	}
}

// Groups that ask for no limit are measured all the same.
func TestVersion2WithoutLimits(t *testing.T) {
	if got := cgroup2.ToResources(Limits{}.resources()).EnabledControllers(); !slices.Equal(got, []string{"cpu", "memory", "pids"}) {
		t.Errorf("controllers %v", got)
	}
	if got := cgroup2.ToResources(Limits{}.resources()).Values(); len(got) != 0 {
		t.Errorf("limits %v", got)
	}
}

func TestGroupOfAProcess(t *testing.T) {
	present := []cgroup1.Subsystem{cgroup1.NewCpu("/cg"), cgroup1.NewMemory("/cg")}
	hybrid := &Hierarchy{mount: "/cg/unified", v1: present}
	paths := map[string]string{"cpu": "/docker/a", "memory": "/docker/b", "name=systemd": "/x"}
	group := hybrid.at(paths, "/").main.(*v1)
	cpu, err1 := group.dir(cgroup1.Cpu)
	memory, err2 := group.dir(cgroup1.Memory)
	if cpu != "/cg/cpu/docker/a" || memory != "/cg/memory/docker/b" || err1 != nil || err2 != nil {
		t.Errorf("hybrid: %s, %s, %v, %v", cpu, memory, err1, err2)
	}
	if dir, err := group.dir(cgroup1.Pids); err == nil {
		t.Errorf("a controller that is not there has %s", dir)
	}
	if hybrid.at(paths, "/").unified != nil {
		t.Error("the whole unified tree was taken for the group")
	}
	if beside := hybrid.at(paths, "/docker/c").unified; beside == nil || beside.dir() != "/cg/unified/docker/c" {
		t.Errorf("beside: %+v", beside)
	}
	unified := (&Hierarchy{mount: "/cg"}).at(nil, "/system.slice/docker-a.scope").main.(*v2)
	if unified.dir() != "/cg/system.slice/docker-a.scope" {
		t.Errorf("unified: %s", unified.dir())
	}
}

// Empty groups of a zone are removed one by one, and groups with processes of others stay.
func TestPruneTakesOnlyWhatIsEmpty(t *testing.T) {
	testenv.Need(t, "cgroup")
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	top := "mammoth-test-prune-" + strconv.Itoa(os.Getpid())
	for _, path := range []string{top + "/one/node", top + "/two/node"} {
		if _, err := h.Create(path, Limits{Pids: 10}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := errors.Join(h.Open(top).Delete(), h.Prune(top)); err != nil {
			t.Error(err)
		}
	})
	sleeper := exec.Command("/bin/sleep", "600")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() }()
	two := h.Open(top + "/two/node")
	if err := two.Add(sleeper.Process.Pid); err != nil {
		t.Fatal(err)
	}
	left := func(path string) bool {
		matches, err := filepath.Glob(filepath.Join(root, "*", path))
		if err != nil {
			t.Fatal(err)
		}
		_, err = os.Stat(filepath.Join(root, path))
		return len(matches) > 0 || err == nil
	}
	prune := func(path string) {
		t.Helper()
		if err := h.Prune(path); err != nil {
			t.Fatal(err)
		}
	}
	prune(top + "/one/node")
	prune(top + "/two/node")
	if left(top+"/one") || !left(top+"/two/node") {
		t.Errorf("with a process in one of two: the empty one is left: %v, the other one: %v", left(top+"/one"), left(top+"/two/node"))
	}
	if members, err := two.Pids(); err != nil || len(members) != 1 {
		t.Errorf("the process is not in its group any more: %v, %v", members, err)
	}
	if err := two.Kill(context.Background()); err != nil {
		t.Fatal(err)
	}
	prune(top + "/two/node")
	if left(top) {
		t.Error("a group is left though nobody is in it")
	}
	prune(top + "/two/node")
}
