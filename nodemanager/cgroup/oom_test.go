package cgroup

import (
	"crypto/rand"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/testenv"
)

// A group is removed as soon as its last process has ended, which is before anybody asks. It is then still known whether one of its
// processes, and not the first one, was killed at the memory quota.
func TestAKillAtTheQuotaIsKnownAfterTheGroupIsGone(t *testing.T) {
	testenv.Need(t, "cgroup")
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if h.Version() == 2 {
		if _, err := real(t, Limits{MemoryBytes: 16 << 20}).WatchOOM(); !errdefs.IsNotImplemented(err) {
			t.Errorf("in version 2: %v", err)
		}
		return
	}
	const greedy, modest = "head -c 64m /dev/zero | tail >/dev/null; exit 1", "exit 1"
	for name, c := range map[string]struct {
		script       string
		late, remove bool
		want         bool
	}{
		"a kill":                         {script: greedy, want: true},
		"a kill, and removed":            {script: greedy, remove: true, want: true},
		"a kill before the watch":        {script: greedy, late: true, want: true},
		"an end of its own":              {script: modest},
		"an end of its own, and removed": {script: modest, remove: true},
	} {
		t.Run(name, func(t *testing.T) {
			// When the kernel has killed the shell, the processes that it has started may take a moment longer to end.
			remove := func(g *Group) {
				if err := errors.Join(g.Kill(t.Context()), g.Delete()); err != nil {
					t.Fatal(err)
				}
			}
			for range 5 {
				g := real(t, Limits{MemoryBytes: 16 << 20})
				run := func() {
					command := exec.Command("/bin/sh", "-c", "read go; "+c.script)
					stdin, err := command.StdinPipe()
					if err != nil {
						t.Fatal(err)
					}
					if err := command.Start(); err != nil {
						t.Fatal(err)
					}
					if err := g.Add(command.Process.Pid); err != nil {
						t.Fatal(err)
					}
					if _, err := stdin.Write([]byte("go\n")); err != nil {
						t.Fatal(err)
					}
					var exit *exec.ExitError
					// While the first victim goes, the kernel may kill the shell too.
					if err := command.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 && !c.want {
						t.Fatalf("the script: %v", err)
					}
				}
				if c.late {
					run()
				}
				w, err := g.WatchOOM()
				if err != nil {
					t.Fatal(err)
				}
				if !c.late {
					run()
				}
				if c.remove {
					remove(g)
				}
				for _, again := range []string{"at first", "again"} {
					if got := w.Killed(); got != c.want {
						t.Errorf("%s: killed at its quota: %v, want %v", again, got, c.want)
					}
				}
				w.Close()
				remove(g)
			}
		})
	}
	if _, err := h.Open("mammoth-test-nowhere/group").WatchOOM(); !errdefs.IsNotFound(err) {
		t.Errorf("of a group that is not there: %v", err)
	}
}

// The group of a container is found by the engine's id, as soon as it is there.
func TestAGroupIsFoundByTheIDOfItsContainer(t *testing.T) {
	testenv.Need(t, "cgroup")
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if h.Version() == 2 {
		if _, err := h.FindOOM("any"); !errdefs.IsNotImplemented(err) {
			t.Errorf("in version 2: %v", err)
		}
		return
	}
	runtimeID := strings.ToLower(rand.Text())
	for _, name := range []string{runtimeID, "docker-" + runtimeID + ".scope"} {
		if _, err := h.FindOOM(runtimeID); !errdefs.IsNotFound(err) {
			t.Errorf("before there is a group: %v", err)
		}
		group, err := h.Create(filepath.Join("/mammoth-find-"+runtimeID, name), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		watch, err := h.FindOOM(runtimeID)
		if err != nil || filepath.Base(watch.Path()) != name {
			t.Fatalf("found %v, %v", watch, err)
		}
		watch.Close()
		if err := group.Delete(); err != nil {
			t.Error(err)
		}
	}
	if err := h.Prune("/mammoth-find-" + runtimeID); err != nil {
		t.Error(err)
	}
}
