package cgroup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

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
		if err := errors.Join(g.Kill(context.Background()), g.Delete(), h.Open(parent).Delete()); err != nil {
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

// A shell that forks on and on ignores every signal it can, and still goes in one piece.
func TestKillTakesTheWholeTree(t *testing.T) {
	for _, unified := range []bool{true, false} {
		g := real(t, Limits{Pids: 100})
		if !unified {
			if g.v2() {
				continue // there is no other hierarchy to kill through
			}
			if err := os.Remove(g.unified); g.unified != "" && err != nil {
				t.Fatal(err)
			}
			g.unified = ""
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
			usage, err := g.Usage()
			if err != nil {
				t.Fatal(err)
			}
			if usage.Pids > 100 {
				t.Fatalf("%d processes", usage.Pids)
			}
			if usage.Pids > 50 {
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
		"cpu.stat": "usage_usec 1500000\nuser_usec 1\nnr_periods 30\nnr_throttled 29\n", "memory.current": "4096\n", "pids.current": "3\n",
		"memory.events": "low 0\noom 2\noom_kill 1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := &Hierarchy{unified: root}
	limits := Limits{CPUMillis: 1500, MemoryBytes: 1 << 20, Pids: 5}
	g, err := h.Create("/mammoth/zone/c1", limits)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"cpu.max": "150000 100000", "cpu.weight": "59", "memory.max": "1048576", "memory.swap.max": "0", "pids.max": "5",
		"../cgroup.subtree_control": "+cpu +memory +pids", "../../../cgroup.subtree_control": "+cpu +memory +pids",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", file, got, err, want)
		}
	}
	if got, err := g.Limits(); err != nil || got != limits {
		t.Errorf("limits read back %+v, %v", got, err)
	}
	if got, err := g.Usage(); err != nil || got != (Usage{CPU: 1500 * time.Millisecond, MemoryBytes: 4096, Pids: 3, Periods: 30, Throttled: 29}) {
		t.Errorf("usage %+v, %v", got, err)
	}
	if kills, err := g.OOMKills(); err != nil || kills != 1 {
		t.Errorf("%d kills, %v", kills, err)
	}
}

func TestGroupOfAProcess(t *testing.T) {
	h := &Hierarchy{unified: "/cg/unified", v1: map[string]string{cpu: "/cg/cpu", cpuacct: "/cg/cpu", memory: "/cg/memory"}}
	g := h.parse([]byte("3:cpu,cpuacct:/docker/a\n2:memory:/docker/b\n1:name=systemd:/x\n0::/\nnonsense\n"))
	if got := strings.Join(g.dirs(), " "); got != "/cg/cpu/docker/a /cg/memory/docker/b" {
		t.Errorf("hybrid: %s", got)
	}
	g = (&Hierarchy{unified: "/cg"}).parse([]byte("0::/system.slice/docker-a.scope\n"))
	if got := strings.Join(g.dirs(), " "); got != "/cg/system.slice/docker-a.scope" {
		t.Errorf("unified: %s", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("3:cpu,cpuacct:/docker/a\n0::/x\n"))
	h := &Hierarchy{unified: "/cg", v1: map[string]string{cpu: "/cg/cpu"}}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, dir := range h.parse(text).dirs() {
			if dir == "" {
				t.Fatal("an empty folder")
			}
		}
	})
}
