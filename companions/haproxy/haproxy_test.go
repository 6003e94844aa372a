package haproxy

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/companions/balancer/balancertest"
	"github.com/mammoth-os/mammoth/internal/testenv"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func TestConformance(t *testing.T) {
	testenv.Need(t, "program:haproxy")
	balancertest.Run(t, balancertest.Subject{
		New: func(t *testing.T, front balancertest.Front) balancer.Proxy {
			proxy, err := NewProxy(Config{
				Dir: front.Dir, Listen: front.HTTP, TLS: front.TLS, Certificates: front.Certificates, MaxOld: front.MaxOld, Log: front.Log,
			})
			if err != nil {
				t.Fatal(err)
			}
			return proxy
		},
		Old:       func(proxy balancer.Proxy) []int { return proxy.(*Proxy).old() },
		Close:     func(proxy balancer.Proxy) { proxy.(*Proxy).Close() },
		KeepsIdle: func(balancer.Proxy) bool { return true },
		Processes: processes,
		Serving: func(front balancertest.Front) []int {
			return []int{(&Proxy{config: Config{Dir: front.Dir}}).process()}
		},
	})
}

// processes finds every HAProxy of a front, the newest first.
func processes(front balancertest.Front) []int {
	owner := &Proxy{config: Config{Dir: front.Dir}}
	newest := owner.process()
	list := []int{newest}
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && pid != newest && owner.isOurs(pid) {
			list = append(list, pid)
		}
	}
	if newest == 0 {
		return list[1:]
	}
	return list
}

// Instances come, go and change their weight without one reload.
func TestNoReloadForInstances(t *testing.T) {
	testenv.Need(t, "program:haproxy")
	dir := t.TempDir()
	proxy, err := NewProxy(Config{Dir: dir, Listen: fmt.Sprintf("127.0.0.1:%d", testenv.Port(t)), StopOnExit: true})
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	defer explain(t, proxy)
	if err := proxy.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	route := balancertest.Route("web", "web.example.test", "/")
	if _, err := proxy.Apply(t.Context(), balancertest.Routes(route)); err != nil {
		t.Fatal(err)
	}
	first := proxy.process()
	for i := range 30 {
		route.Service.Endpoints = nil
		for n := range i % 4 {
			route.Service.Endpoints = append(route.Service.Endpoints, &apiv1.Endpoint{
				Id: fmt.Sprintf("web-%d", (i+n)%5), Address: "127.0.0.1", Port: int32(20000 + i), Weight: int32(100 + n),
			})
		}
		if _, err := proxy.Apply(t.Context(), balancertest.Routes(route)); err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
		if now := proxy.process(); now != first {
			t.Fatalf("change %d: HAProxy was reloaded: its process was %d, is %d", i, first, now)
		}
		state, err := proxy.servers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		in := 0
		for _, server := range state["app_web"] {
			if !server.disabled {
				in++
			}
		}
		if in != i%4 {
			t.Fatalf("change %d: %d servers take requests, want %d: %v", i, in, i%4, state)
		}
	}
}

// explain logs what is known of the HAProxy of a test that has failed.
func explain(t *testing.T, proxy *Proxy) {
	if !t.Failed() {
		return
	}
	t.Logf("its process is %d, and was to be %d; all of them are %v", proxy.process(), proxy.pid, proxy.processes())
	for _, pid := range proxy.processes() {
		listens, err := listening(pid)
		t.Logf("process %d accepts connections at %v %v", pid, listens, err)
	}
	for _, name := range []string{"start.out", "haproxy.cfg"} {
		text, err := os.ReadFile(proxy.path(name))
		t.Logf("%s: %s %v", name, text, err)
	}
	for _, line := range []string{"show info", "show servers state"} {
		answer, err := proxy.command(context.Background(), line)
		t.Logf("%s: %s %v", line, answer, err)
	}
}

// A process that has closed its fronts and was then kept waiting still answers at the runtime interface, which it shares with the next
// one. So it counts as accepting until it has closed that too.
func TestAnOldProcessAcceptsUntilItsRuntimeInterfaceIsClosed(t *testing.T) {
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	runtime, err := net.Listen("unix", t.TempDir()+"/admin.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.Close()
	accepting, err := listening(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	_ = front.Close()
	if !holds(os.Getpid(), accepting) {
		t.Error("it counts as closed while its runtime interface is open")
	}
	_ = runtime.Close()
	if holds(os.Getpid(), accepting) {
		t.Error("it counts as open when all is closed")
	}
}

// A HAProxy that is kept waiting has not refused the configuration.
func TestACheckThatTakesTooLongIsNoRefusal(t *testing.T) {
	dir := t.TempDir()
	program := dir + "/program"
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexec tail -f /dev/null\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	proxy := &Proxy{config: Config{Dir: dir, Program: program}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := proxy.install(ctx, files{}); !errdefs.IsUnavailable(err) || errdefs.IsFailedPrecondition(err) {
		t.Errorf("it ends with %v", err)
	}
}

// A process that ends closes a connection without an answer. That is not the answer of a HAProxy without a configuration.
func TestNoAnswerIsNoShape(t *testing.T) {
	proxy := &Proxy{config: Config{Dir: t.TempDir()}}
	runtime, err := net.Listen("unix", proxy.path("admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := runtime.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(conn).ReadString('\n')
			_ = conn.Close()
		}
	}()
	if shape, err := proxy.shape(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("the shape is %q, %v", shape, err)
	}
	if servers, err := proxy.servers(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("the servers are %v, %v", servers, err)
	}
	_ = runtime.Close()
	<-ended
}

// The wait for a HAProxy that ends right after its start is limited.
func TestEndedRightAfterItsStart(t *testing.T) {
	dir := t.TempDir()
	program := dir + "/program"
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho 'HAProxy version 2.6.12'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	proxy, err := NewProxy(Config{Dir: dir + "/proxy", Listen: fmt.Sprintf("127.0.0.1:%d", testenv.Port(t)), Program: program})
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	proxy.startTimeout = 100 * time.Millisecond
	if err := proxy.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "has ended right after its start") {
		t.Errorf("it ends with %v", err)
	}
}

// A process that is kept waiting for the processor hands its sockets over late.
func TestSocketsAreHandedOverLate(t *testing.T) {
	testenv.Need(t, "program:haproxy")
	dir := t.TempDir()
	proxy, err := NewProxy(Config{Dir: dir, Listen: fmt.Sprintf("127.0.0.1:%d", testenv.Port(t)), StopOnExit: true})
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	if err := proxy.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := proxy.process()
	_ = syscall.Kill(old, syscall.SIGSTOP)
	defer syscall.Kill(old, syscall.SIGCONT) //nolint:errcheck // it may be gone
	tried := make(chan struct{})
	go func() {
		defer close(tried)
		for !strings.Contains(output(dir), "Failed to get the sockets") && t.Context().Err() == nil {
			balancer.Pause(t.Context(), time.Millisecond)
		}
		_ = syscall.Kill(old, syscall.SIGCONT)
	}()
	plan, _ := balancer.MakePlan(balancertest.Routes(balancertest.Route("web", "web.example.test", "/")), proxy.limits())
	if err := proxy.reload(t.Context(), render(proxy.settings, plan)); err != nil {
		t.Fatal(err)
	}
	<-tried
	if now := proxy.process(); now == 0 || now == old {
		t.Errorf("HAProxy's process was %d, is %d", old, now)
	}
}

// A reload that is cut off leaves an earlier process that accepts requests. Nothing is applied before it has closed its sockets.
func TestAReloadThatIsCutOffIsFinished(t *testing.T) {
	testenv.Need(t, "program:haproxy")
	dir := t.TempDir()
	// This HAProxy never tells the one before to stop. Both listen on the same port.
	program := dir + "/program"
	script := "#!/bin/sh\nif [ \"$1\" = -D ]; then exec haproxy \"$1\" \"$2\" \"$3\" \"$4\" \"$5\"; fi\nexec haproxy \"$@\"\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	config := Config{Dir: dir + "/proxy", Program: program, Listen: fmt.Sprintf("127.0.0.1:%d", testenv.Port(t)), StopOnExit: true}
	proxy, err := NewProxy(config)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	defer explain(t, proxy)
	if err := proxy.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	routes := balancertest.Routes(balancertest.Route("web", "web.example.test", "/"))
	cutOff := func() int {
		old := proxy.process()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		go func() {
			for now := proxy.process(); now == 0 || now == old; now = proxy.process() {
				balancer.Pause(ctx, time.Millisecond)
			}
			cancel()
		}()
		if _, err := proxy.Apply(ctx, routes); err == nil {
			t.Fatal("the routes are applied while an earlier process accepts requests")
		}
		if accepting, err := listening(old); err != nil || len(accepting) == 0 {
			t.Fatalf("the earlier process accepts at %v, %v", accepting, err)
		}
		return old
	}
	finished := func(old int) {
		t.Helper()
		if _, err := proxy.Apply(t.Context(), routes); err != nil {
			t.Fatal(err)
		}
		if accepting, err := listening(old); err != nil || len(accepting) > 0 {
			t.Errorf("the earlier process still accepts at %v, %v", accepting, err)
		}
		if now := proxy.process(); now != proxy.pid || now == old {
			t.Errorf("HAProxy's process is %d, taken for %d, and was %d", now, proxy.pid, old)
		}
	}
	finished(cutOff())
	// So it is for a companion that was started anew meanwhile.
	routes = balancertest.Routes(balancertest.Route("web", "shop.example.test", "/"))
	old := cutOff()
	_ = proxy.lock.Close()
	again, err := NewProxy(config)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy = again
	finished(old)
}

// output is what HAProxy has printed at its last start.
func output(dir string) string {
	text, _ := os.ReadFile(dir + "/start.out")
	return string(text)
}

func FuzzStatistics(f *testing.F) {
	f.Add("# pxname,svname,hrsp_2xx,hrsp_5xx,econ\napp_web,web-1,3,1,2\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		result, err := parseStatistics(text)
		if err != nil {
			return
		}
		for name, count := range result {
			if count.errors < 0 || count.requests < 0 {
				t.Fatalf("%s has %v", name, count)
			}
		}
	})
}

// The key of a certificate is in the folder as long as the configuration that needs it.
func TestACertificateIsDeletedWithItsConfiguration(t *testing.T) {
	testenv.Need(t, "program:haproxy")
	dir, certificates := t.TempDir(), t.TempDir()
	balancertest.WriteCertificates(t, certificates)
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", testenv.Port(t)) }
	proxy, err := NewProxy(Config{Dir: dir, Listen: address(), TLS: address(), Certificates: certificates, StopOnExit: true})
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	defer explain(t, proxy)
	route := balancertest.Route("web", "web.example.test", "/")
	files := func(what string, count int) (content string) {
		if refusals, err := proxy.Apply(t.Context(), balancertest.Routes(route)); err != nil || len(refusals) > 0 {
			t.Fatalf("%s: %v, %v", what, refusals, err)
		}
		found, _ := filepath.Glob(filepath.Join(dir, "*.pem"))
		if len(found) != count {
			t.Errorf("%s: %d files with certificates, want %d: %v", what, len(found), count, found)
		}
		for _, name := range found {
			text, _ := os.ReadFile(name)
			content += string(text)
		}
		return content
	}
	files("without one", 0)
	route.Expose.GetHttp().Certificate = "web.example.test"
	first := files("with one", 1)
	balancertest.WriteCertificates(t, certificates)
	if files("renewed", 1) == first {
		t.Error("the certificate in the folder is not the renewed one")
	}
	route.Expose.GetHttp().Certificate = ""
	files("without one again", 0)
}
