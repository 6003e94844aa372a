package endpoints_test

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/companions/zookeeper"
	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/internal/zk"
	"github.com/mammoth-os/mammoth/internal/zk/zktest"
)

const examples = "../../../examples/lookup"

// program is an example that runs until the test ends, or until it is told to.
type program struct {
	t       *testing.T
	command *exec.Cmd
	input   io.Closer
	lines   *bufio.Scanner
}

func (z *zone) start(t *testing.T, registry, name string, arguments ...string) *program {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	p := &program{t: t, command: exec.CommandContext(ctx, name, arguments...)}
	p.command.Env = append(os.Environ(), "MAMMOTH_REGISTRY="+registry)
	p.command.Stderr = testWriter{t}
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.command.Cancel = func() error { return syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL) }
	var err error
	if p.input, err = p.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(output)
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = p.command.Wait()
	})
	return p
}

// expect reads lines until one contains everything that is wanted.
func (p *program) expect(want ...string) {
	p.t.Helper()
	var last string
	for p.lines.Scan() {
		last = p.lines.Text()
		found := true
		for _, word := range want {
			found = found && strings.Contains(last, word)
		}
		if found {
			return
		}
	}
	p.t.Fatalf("it ended without a line of %q; the last was %q", want, last)
}

// Each example prints the instances now and after a change.
func TestLookupExamples(t *testing.T) {
	for _, test := range []struct {
		name, needs string
		command     []string
		// What the line of one instance looks like.
		line func(id, port string) []string
	}{
		{"curl", "curl", []string{"sh", examples + "/lookup.sh", "web"}, func(id, port string) []string {
			return []string{`"id":"` + id + `"`, `"port":` + port}
		}},
		{"Python", "python3", []string{"python3", examples + "/lookup.py", "web"}, equals},
		{"Go", "go", []string{"go", "run", examples + "/go", "web"}, equals},
	} {
		t.Run(test.name, func(t *testing.T) {
			testenv.Need(t, "program:"+test.needs)
			z := newZone(t)
			web := z.newApp("web", onHost(host))
			first := web.start()
			web.publish()
			p := z.start(t, "http://"+z.address, test.command[0], test.command[1:]...)
			p.expect(test.line(first.id, port(first))...)
			second := web.start()
			web.publish()
			p.expect(append(test.line(first.id, port(first)), test.line(second.id, port(second))...)...)
		})
	}
}

func equals(id, port string) []string { return []string{id + "=127.0.0.1:" + port} }

func port(i *instance) string {
	_, port, _ := strings.Cut(i.listener.Addr().String(), ":")
	return port
}

// Each example registers an endpoint of the app's own, and takes it out when it ends.
func TestRegisterExamples(t *testing.T) {
	for _, test := range []struct {
		name, needs string
		command     []string
		end         func(p *program)
	}{
		{"curl", "curl", []string{"sh", examples + "/register.sh", "admin.web", "mine", "127.0.0.1", "9000", "role=leader"}, func(p *program) {
			_ = p.command.Process.Signal(syscall.SIGTERM)
		}},
		{"Python", "python3", []string{"python3", examples + "/lookup.py", "--register", "admin.web", "mine", "127.0.0.1", "9000"}, func(p *program) {
			_ = p.input.Close()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			testenv.Need(t, "program:"+test.needs)
			z, ctx := newZone(t), within(t)
			watch := z.registry.Watch("admin.web", -1)
			defer watch.Close()
			if _, exists, err := watch.Next(ctx); exists || err != nil {
				t.Fatalf("it exists before anybody registered it, %v", err)
			}
			p := z.start(t, "http://web:"+z.registry.AppKey("web")+"@"+z.address, test.command[0], test.command[1:]...)
			service, exists, err := watch.Next(ctx)
			if err != nil || !exists || service.GetEndpoints()[0].GetPort() != 9000 || !service.GetEndpoints()[0].GetAppOwned() {
				t.Fatalf("registered is %v, %v", service, err)
			}
			test.end(p)
			if service, exists, err := watch.Next(ctx); exists || err != nil {
				t.Fatalf("after its end registered is %v, %v", service, err)
			}
		})
	}
}

// A Java program finds and watches instances through Curator's own service discovery.
func TestCurator(t *testing.T) {
	classpath := curator(t)
	z := newZone(t)
	server := zktest.Start(t)
	z.run(zookeeper.New(zookeeper.Config{ZooKeeper: zk.Config{Servers: []string{server.Address}}, Log: z.log}, z.conn))
	web := z.newApp("web", onHost(host))
	first := web.start()
	web.publish()
	// Curator's cache begins with what there is, and tells of every change.
	p := z.start(t, "", "java", "-Xmx128m", "-cp", classpath, "Lookup", server.Address, "web")
	p.expect(first.id + "=127.0.0.1:" + port(first) + " weight=100")
	second := web.start()
	second.weight = 10
	web.publish()
	p.expect(first.id+"=", second.id+"=127.0.0.1:"+port(second)+" weight=10")
	web.instances = web.instances[1:]
	web.publish()
	p.expect("{" + second.id + "=")
	server.Stop()
	third := web.start()
	web.publish()
	server.Restart()
	p.expect(second.id+"=", third.id+"=")
	first.kill()
}

// curator builds the Java example; where Maven, or what it has to fetch, cannot be had, the test is passed over: the
// entries' form is pinned by golden files in companions/zookeeper.
func curator(t *testing.T) (classpath string) {
	t.Helper()
	if _, err := exec.LookPath("mvn"); err != nil {
		testenv.Optional(t, "there is no Maven here")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(examples+"/java")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "mvn", "-B", "-q", "compile", "dependency:build-classpath", "-Dmdep.outputFile="+filepath.Join(dir, "classpath"))
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "COMPILATION ERROR") {
			t.Fatalf("the example does not compile:\n%s", out)
		}
		testenv.Optional(t, "Maven cannot fetch what the example needs")
	}
	libraries, err := os.ReadFile(filepath.Join(dir, "classpath"))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "target", "classes") + ":" + string(libraries)
}
