package process_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/nodemanager/cgroup"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/process"
)

// daemon leaves a process in a session of its own, as an nginx is left by its companion, unless one is there.
const daemon = `kill -0 $(cat $MAMMOTH_STATE/pid) 2>/dev/null || setsid sh -c 'echo $$ > $MAMMOTH_STATE/pid; exec sleep 300' & wait; exec sleep 300`

// withStateDirs is a runtime with state directories, and what its tests do with it.
type withStateDirs struct {
	*process.Runtime
	t      *testing.T
	config process.Config
	ctx    context.Context
}

func openWithStateDirs(t *testing.T) *withStateDirs {
	testenv.Need(t, "cgroup")
	p := &withStateDirs{t: t, config: config(t.TempDir())}
	p.config.StateDirs = filepath.Join(filepath.Dir(p.config.Dir), "state")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	p.ctx = ctx
	p.open()
	t.Cleanup(func() {
		list, _ := p.List(ctx)
		for _, container := range list {
			_ = p.Stop(ctx, container.ID, 0)
		}
		if err := p.RemoveStateDir(ctx, "edge"); err != nil {
			t.Error(err)
		}
		_ = p.Close()
		cancel()
	})
	return p
}

func (p *withStateDirs) open() {
	p.t.Helper()
	var err error
	if p.Runtime, err = process.New(p.config); err != nil {
		p.t.Fatal(err)
	}
}

func (p *withStateDirs) start(seq int64) runtime.Container {
	p.t.Helper()
	container, err := p.Start(p.ctx, runtime.Spec{
		ID: numbered(seq), Command: []string{"/bin/sh", "-c", daemon}, StateDir: "edge", MemoryBytes: 64 << 20, Pids: 50, DiskBytes: 10 << 20,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return container
}

func numbered(seq int64) id.Container {
	return id.Container{Epoch: 4, App: id.App{ClusterStart: 1, Seq: 1}, Seq: seq}
}

// left is the process that a container has left running.
func (p *withStateDirs) left() int {
	p.t.Helper()
	for p.ctx.Err() == nil {
		text, _ := os.ReadFile(filepath.Join(p.config.StateDirs, "edge", "pid"))
		if pid, err := strconv.Atoi(string(bytes.TrimSpace(text))); err == nil {
			return pid
		}
		<-time.After(5 * time.Millisecond)
	}
	p.t.Fatal("the container has left nothing")
	return 0
}

// group is the last part of the control group that a process is in; empty if there is no such process.
func group(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if !runs(pid) {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "/mammoth/") {
			return filepath.Base(strings.TrimSpace(line))
		}
	}
	return ""
}

// ended waits for a container's end.
func (p *withStateDirs) ended(seq int64) runtime.Exit {
	p.t.Helper()
	for p.ctx.Err() == nil {
		list, err := p.List(p.ctx)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, container := range list {
			if container.ID == numbered(seq) && container.Exit != nil {
				return *container.Exit
			}
		}
		<-time.After(5 * time.Millisecond)
	}
	p.t.Fatal("it does not end")
	return runtime.Exit{}
}

func TestWhatAContainerLeavesInItsStateDirIsTakenOverByTheNext(t *testing.T) {
	p := openWithStateDirs(t)
	first := p.start(1)
	left := p.left()
	if got := group(left); got != numbered(1).String() {
		t.Fatalf("what the container has started is in %q", got)
	}
	if err := unix.Kill(first.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if exit := p.ended(1); exit.Code != 137 {
		t.Errorf("it ended with %+v", exit)
	}
	if got := group(left); got != "state-edge" {
		t.Errorf("after the container's death, what it left is in %q", got)
	}

	// The next container takes it over under its own quotas, and leaves it again when it is stopped.
	p.start(2)
	if got := group(left); got != numbered(2).String() {
		t.Errorf("beside the next container, what was left is in %q", got)
	}
	if err := p.RemoveStateDir(p.ctx, "edge"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a state directory that is in use was ended: %v", err)
	}
	if err := p.Stop(p.ctx, numbered(2), 0); err != nil {
		t.Fatal(err)
	}
	if got := group(left); got != "state-edge" {
		t.Errorf("after a stop, what was left is in %q", got)
	}

	// It outlives the NodeManager, and the next one finds it.
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p.open()
	if dirs, err := p.StateDirs(); err != nil || !slices.Equal(dirs, []string{"edge"}) {
		t.Errorf("state directories %q, %v", dirs, err)
	}
	if err := p.RemoveStateDir(p.ctx, "edge"); err != nil {
		t.Fatal(err)
	}
	p.gone(left)
	if dirs, err := p.StateDirs(); err != nil || len(dirs) != 0 {
		t.Errorf("state directories %q, %v", dirs, err)
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/mammoth/" + p.config.Zone + "/" + p.config.Node + "/state-*")
	if len(groups) > 0 {
		t.Errorf("control groups are left: %q", groups)
	}
}

func TestAContainerThatDiesWhileItsNodeManagerIsAwayLeavesItsStateDirToo(t *testing.T) {
	p := openWithStateDirs(t)
	first := p.start(1)
	left := p.left()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(first.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	_, _ = unix.Wait4(first.Pid, &status, 0, nil)
	p.open()
	p.ended(1)
	if got := group(left); got != "state-edge" {
		t.Errorf("what it left is in %q", got)
	}
	p.start(2)
	if got := group(left); got != numbered(2).String() {
		t.Errorf("beside the next container, what was left is in %q", got)
	}
}

func TestAStateDirBelongsToItsUser(t *testing.T) {
	p := openWithStateDirs(t)
	for at := p.config.Dir; at != "/"; at = filepath.Dir(at) {
		if info, err := os.Stat(at); err == nil && info.Mode().Perm()&0o1 == 0 {
			if err := os.Chmod(at, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err := p.Start(p.ctx, runtime.Spec{ID: numbered(1), Command: []string{"/bin/sh", "-c", "touch $MAMMOTH_STATE/file"}, StateDir: "edge", User: "nobody"})
	if err != nil {
		t.Fatal(err)
	}
	if exit := p.ended(1); exit.Code != 0 {
		t.Errorf("it ended with %+v", exit)
	}
}

func TestAStateDirIsNamedLikeARole(t *testing.T) {
	p := openWithStateDirs(t)
	for _, name := range []string{"../edge", "edge/x", "a.b.c", "Edge", "."} {
		_, err := p.Start(p.ctx, runtime.Spec{ID: numbered(9), Command: []string{"/bin/true"}, StateDir: name})
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("a state directory named %q: %v", name, err)
		}
		if err := p.RemoveStateDir(p.ctx, name); !errdefs.IsInvalidArgument(err) {
			t.Errorf("the end of a state directory named %q: %v", name, err)
		}
	}
}

// The processes of a state directory may take long to end. Only a container that uses the state directory waits for that.
func TestAStateDirThatEndsSlowlyHoldsUpNoOtherStart(t *testing.T) {
	p := openWithStateDirs(t)
	p.SetStateDirGrace(time.Hour) // only a start that waits for it is as slow as that
	t.Cleanup(func() { p.SetStateDirGrace(0) })
	slow := `setsid sh -c 'cd $MAMMOTH_STATE; trap "touch asked" TERM; echo $$ > pid; until test -e may; do sleep 0.01; done' & exec sleep 300`
	if _, err := p.Start(p.ctx, runtime.Spec{ID: numbered(1), Command: []string{"/bin/sh", "-c", slow}, StateDir: "edge"}); err != nil {
		t.Fatal(err)
	}
	left, dir := p.left(), filepath.Join(p.config.StateDirs, "edge")
	if err := p.Stop(p.ctx, numbered(1), 0); err != nil {
		t.Fatal(err)
	}
	ended, next := make(chan error, 1), make(chan error, 1)
	go func() { ended <- p.RemoveStateDir(p.ctx, "edge") }()
	for p.ctx.Err() == nil {
		if _, err := os.Stat(dir + "/asked"); err == nil {
			break
		}
		<-time.After(time.Millisecond)
	}
	go func() {
		_, err := p.Start(p.ctx, runtime.Spec{ID: numbered(3), Command: []string{"/bin/sh", "-c", "exec sleep 300"}, StateDir: "edge"})
		next <- err
	}()
	if _, err := p.Start(p.ctx, runtime.Spec{ID: numbered(2), Command: []string{"/bin/true"}}); err != nil {
		t.Fatal(err)
	}
	if got := group(left); got != "state-edge" {
		t.Errorf("another start has waited until what was left, now in %q, had ended", got)
	}
	if err := os.WriteFile(dir+"/may", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-ended, <-next); err != nil {
		t.Error(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("the next container finds %v in its state directory, %v", files, err)
	}
}

// If a NodeManager is killed during a hand-over of a state directory, the next one completes it.
func TestAStateDirThatWasHalfHandedOverIsTakenOver(t *testing.T) {
	p := openWithStateDirs(t)
	p.start(1)
	left := p.left()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	hierarchy, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	waiting, err := hierarchy.Create(filepath.Join("mammoth", p.config.Zone, p.config.Node, "state-edge"), cgroup.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if err := waiting.Add(left); err != nil {
		t.Fatal(err)
	}
	p.open()
	if got := group(left); got != numbered(1).String() {
		t.Errorf("what was not yet taken over is in %q", got)
	}
}

// A runtime without control groups, as in tests, finds the processes of a state directory by their working directory.
func TestWithoutControlGroupsAStateDirEndsToo(t *testing.T) {
	p := &withStateDirs{t: t, config: config(t.TempDir())}
	p.config.StateDirs, p.config.Unlimited = filepath.Join(filepath.Dir(p.config.Dir), "state"), true
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p.ctx = ctx
	p.open()
	defer p.Close()
	script := `cd $MAMMOTH_STATE; setsid sh -c 'echo $$ > $MAMMOTH_STATE/pid; exec sleep 300' & cd /; exec sleep 300`
	if _, err := p.Start(ctx, runtime.Spec{ID: numbered(1), Command: []string{"/bin/sh", "-c", script}, StateDir: "edge"}); err != nil {
		t.Fatal(err)
	}
	left := p.left()
	if err := p.Stop(ctx, numbered(1), 0); err != nil {
		t.Fatal(err)
	}
	if !runs(left) {
		t.Error("what the container left has ended with it")
	}
	if err := p.RemoveStateDir(ctx, "edge"); err != nil {
		t.Fatal(err)
	}
	p.gone(left)
}

// gone waits until what was left has ended: a process that was killed leaves its control group a moment before.
func (p *withStateDirs) gone(left int) {
	p.t.Helper()
	for runs(left) && p.ctx.Err() == nil {
		<-time.After(5 * time.Millisecond)
	}
	if runs(left) {
		p.t.Error("what the container left goes on after the removal of its state directory")
	}
}

// runs reports whether a process is there and no zombie.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

func TestTheGroupsOfAZoneGoWithItsLastNode(t *testing.T) {
	p := openWithStateDirs(t)
	p.config.Zone = "last-" + strconv.Itoa(os.Getpid())
	var nodes []*process.Runtime
	for _, node := range []string{"node-1", "node-2"} {
		c := p.config
		c.Dir, c.LogDir, c.Node = t.TempDir(), t.TempDir(), node
		r, err := process.New(c)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, r)
	}
	groups := func() []string {
		both, _ := filepath.Glob("/sys/fs/cgroup/*/mammoth/" + p.config.Zone)
		one, _ := filepath.Glob("/sys/fs/cgroup/mammoth/" + p.config.Zone)
		return append(both, one...)
	}
	for i, r := range nodes {
		if _, err := r.Start(p.ctx, runtime.Spec{ID: numbered(int64(i + 1)), Command: []string{"/bin/sleep", "300"}}); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range nodes {
		if len(groups()) == 0 {
			t.Errorf("the zone's groups went before node %d of %d has ended", i+1, len(nodes))
		}
		if err := r.Stop(p.ctx, numbered(int64(i+1)), 0); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if left := groups(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
