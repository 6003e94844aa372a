package nginx

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/companions/balancer/balancertest"
	"github.com/mammoth-os/mammoth/internal/testenv"
)

// foreign is an nginx that others run. Start starts it, and then the companion.
type foreign struct {
	*Proxy
	dir string
}

func (f foreign) Start(ctx context.Context) error {
	if f.master() == 0 {
		f.endOrphans(ctx)
		for _, name := range []string{f.path("status.sock"), f.config.Attach.Pid} {
			_ = os.Remove(name)
		}
		command := exec.CommandContext(ctx, "nginx", "-p", f.config.Dir, "-c", f.config.Attach.Config, "-e", f.dir+"/error.log")
		command.Dir = f.config.Dir
		if out, err := balancer.Launch(command, f.dir+"/output"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		for f.master() == 0 && ctx.Err() == nil {
			balancer.Pause(ctx, time.Millisecond)
		}
	}
	return f.Proxy.Start(ctx)
}

func newForeign(t *testing.T, front balancertest.Front) foreign {
	t.Helper()
	config := configOf(front)
	dir := filepath.Dir(front.Dir)
	config.Attach = &Attach{Config: dir + "/foreign.conf", Include: dir + "/conf.d/mammoth.conf", Pid: dir + "/foreign.pid"}
	must(t, os.MkdirAll(dir+"/conf.d", 0o755))
	must(t, os.MkdirAll(front.Dir, 0o755))
	must(t, os.WriteFile(config.Attach.Config, []byte(fmt.Sprintf(
		"user %s;\nworker_processes 2;\npid %s;\nevents {}\nhttp {\n sendfile on;\n server_tokens on;\n access_log off;\n include %s/conf.d/*.conf;\n"+
			" server { listen %s default_server; return 404 'Nothing is here'; }\n}\n", userName(), config.Attach.Pid, dir, front.HTTP)), 0o644))
	proxy, err := NewProxy(config)
	must(t, err)
	return foreign{proxy, dir}
}

func userName() string {
	if os.Geteuid() == 0 {
		return "www-data"
	}
	return "nobody"
}

func TestAttachedConformance(t *testing.T) {
	testenv.Need(t, "program:nginx")
	balancertest.Run(t, balancertest.Subject{
		New:       func(t *testing.T, front balancertest.Front) balancer.Proxy { return newForeign(t, front) },
		Close:     func(proxy balancer.Proxy) { proxy.(foreign).Close() },
		Processes: processes,
		Serving:   serving,
		Old:       func(proxy balancer.Proxy) []int { return proxy.(foreign).old() },
		KeepsIdle: func(balancer.Proxy) bool { return false },
		NoTCP:     true,
		NoAnyHost: true,
	})
}

// What others have configured is neither disturbed nor broken.
func TestAttachLeavesOthersAlone(t *testing.T) {
	testenv.Need(t, "program:nginx")
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	front := balancertest.Front{Dir: dir + "/proxy", HTTP: fmt.Sprintf("127.0.0.1:%d", testenv.Port(t))}
	f := newForeign(t, front)
	f.config.StopOnExit = true
	if err := f.Proxy.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "is not running; start it") {
		t.Fatalf("an nginx that does not run: %v", err)
	}
	must(t, f.Start(t.Context()))
	endAfter(t, f.master())
	routes := balancertest.Routes(balancertest.Route("web", "web.test", "/"))
	_, err := f.Apply(t.Context(), routes)
	must(t, err)
	good, err := os.ReadFile(f.config.Attach.Include)
	must(t, err)

	// The folder is another one, the nginx the same.
	config := f.config
	config.Dir = dir + "/second"
	second, err := NewProxy(config)
	must(t, err)
	if err := second.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "an nginx can have only one") {
		t.Errorf("a second companion: %v", err)
	}

	// Another default server is one too many for nginx: it says so, and the file is as it was.
	_, err = f.Apply(t.Context(), balancertest.Routes(balancertest.Route("web", "*", "/")))
	if err == nil || !strings.Contains(err.Error(), "a duplicate default server") {
		t.Errorf("a second default server: %v", err)
	}
	if now, err := os.ReadFile(f.config.Attach.Include); err != nil || string(now) != string(good) {
		t.Errorf("the good file was replaced: %v\n%s", err, now)
	}
	f.Close()
	if _, err := os.Stat(f.config.Attach.Include); !os.IsNotExist(err) {
		t.Errorf("the companion's file is left behind: %v", err)
	}
}

// A companion that is restarted leaves its file to nginx. One that ends for good removes it, also if nginx does not run.
func TestTheAttachedFileGoesWhenItIsOver(t *testing.T) {
	testenv.Need(t, "program:nginx")
	for _, over := range []bool{false, true} {
		dir := t.TempDir()
		attach := &Attach{Config: dir + "/nginx.conf", Include: dir + "/mammoth.conf", Pid: dir + "/nginx.pid"}
		p, err := NewProxy(Config{Dir: dir + "/proxy", Listen: "127.0.0.1:1", Attach: attach, IsFinal: func() bool { return over }})
		must(t, err)
		must(t, os.WriteFile(attach.Include, nil, 0o644))
		must(t, os.WriteFile(attach.Config, []byte("events {}\nhttp { include "+attach.Include+"; }\n"), 0o644))
		must(t, p.prepare(t.Context()))
		p.Close()
		for _, file := range []string{attach.Include, attach.Include + ".lock"} {
			if _, err := os.Stat(file); os.IsNotExist(err) != over {
				t.Errorf("%s, over %v: %v", filepath.Base(file), over, err)
			}
		}
	}
}

// Whoever may read the configuration of an nginx that others run may read the companion's file, and nobody else.
func TestTheAttachedFileIsTheirsWhoHaveTheConfiguration(t *testing.T) {
	testenv.Need(t, "root")
	dir := t.TempDir()
	attach := &Attach{Config: dir + "/nginx.conf", Include: dir + "/mammoth.conf", Pid: dir + "/nginx.pid"}
	must(t, os.WriteFile(attach.Config, nil, 0o640))
	must(t, os.Chown(attach.Config, 12, 34))
	p := &Proxy{config: Config{Attach: attach}}
	must(t, p.include(attach.Include, []byte("# ours\n")))
	info, err := os.Stat(attach.Include)
	must(t, err)
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 12 || owner.Gid != 34 || info.Mode().Perm() != 0o640 {
		t.Errorf("it is user %d's and group %d's with mode %v", owner.Uid, owner.Gid, info.Mode())
	}
}
