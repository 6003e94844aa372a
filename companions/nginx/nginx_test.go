package nginx

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/companions/balancer/balancertest"
	"github.com/mammoth-os/mammoth/internal/testenv"
)

func TestConformance(t *testing.T) {
	testenv.Need(t, "program:nginx")
	balancertest.Run(t, balancertest.Subject{
		New: func(t *testing.T, front balancertest.Front) balancer.Proxy {
			proxy, err := NewProxy(configOf(front))
			if err != nil {
				t.Fatal(err)
			}
			return proxy
		},
		Close:     func(proxy balancer.Proxy) { proxy.(*Proxy).Close() },
		Processes: processes,
		Serving:   serving,
		Old:       func(proxy balancer.Proxy) []int { return proxy.(*Proxy).old() },
		KeepsIdle: func(proxy balancer.Proxy) bool { return proxy.(*Proxy).settings.KeepsIdle },
	})
}

func configOf(front balancertest.Front) Config {
	return Config{Dir: front.Dir, Listen: front.HTTP, TLS: front.TLS, Certificates: front.Certificates, Workers: 2, MaxOld: front.MaxOld, Log: front.Log}
}

func serving(front balancertest.Front) []int {
	return slices.DeleteFunc(processes(front), func(pid int) bool { return strings.HasSuffix(title(pid), "shutting down") })
}

// processes finds every nginx of a front, its master first.
func processes(front balancertest.Front) []int {
	var masters, others []int
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || !strings.HasPrefix(title(pid), "nginx: ") || balancer.HasEnded(pid) {
			continue
		}
		if where, _ := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd")); where != front.Dir {
			continue
		}
		if strings.HasPrefix(title(pid), "nginx: master") {
			masters = append(masters, pid)
		} else {
			others = append(others, pid)
		}
	}
	return append(masters, others...)
}

// endAfter ends an nginx with the test, by its master, and waits until it writes nothing more into the test's folder.
func endAfter(t *testing.T, master int) {
	t.Helper()
	t.Cleanup(func() {
		for ; !balancer.HasEnded(master); balancer.Pause(context.Background(), time.Millisecond) {
			_ = syscall.Kill(master, syscall.SIGTERM)
		}
	})
}

// Whatever became of the file, nginx starts: with the last configuration, the one before, or one that routes nothing.
func TestStartsWithAGoodFile(t *testing.T) {
	testenv.Need(t, "program:nginx")
	dir := t.TempDir()
	config := Config{Dir: dir, Listen: fmt.Sprintf("127.0.0.1:%d", testenv.Port(t)), StopOnExit: true}
	for _, test := range []struct {
		name string
		// What happens to the folder before nginx is started again.
		harm func()
		// What is routed then.
		want string
	}{
		{"nothing yet", func() {}, "nothing"},
		{"as it was left", func() {}, "b"},
		{"a torn file", func() { must(t, os.Truncate(filepath.Join(dir, "nginx.conf"), 100)) }, "a"},
		{"two torn files", func() {
			must(t, os.Truncate(filepath.Join(dir, "nginx.conf"), 100))
			must(t, os.WriteFile(filepath.Join(dir, "nginx.conf.good"), nil, 0o644))
		}, "nothing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.harm()
			proxy, err := NewProxy(config)
			must(t, err)
			defer proxy.Close()
			must(t, proxy.Start(t.Context()))
			text, err := os.ReadFile(filepath.Join(dir, "nginx.conf"))
			must(t, err)
			for _, name := range []string{"a", "b"} {
				if strings.Contains(string(text), "server_name "+name+".test;") != (test.want == name) {
					t.Errorf("want %s routed, the configuration is\n%s", test.want, text)
				}
			}
			for _, name := range []string{"a", "b"} {
				_, err := proxy.Apply(t.Context(), balancertest.Routes(balancertest.Route(name, name+".test", "/")))
				must(t, err)
			}
		})
	}
}

// A log that has grown is put aside, and nginx begins a new one.
func TestErrorLogStaysSmall(t *testing.T) {
	testenv.Need(t, "program:nginx")
	dir := t.TempDir()
	proxy, err := NewProxy(Config{Dir: dir, Listen: fmt.Sprintf("127.0.0.1:%d", testenv.Port(t)), StopOnExit: true})
	must(t, err)
	defer proxy.Close()
	must(t, proxy.Start(t.Context()))
	must(t, os.Truncate(filepath.Join(dir, "error.log"), maxLog))
	_ = proxy.Traffic()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	// nginx may write a line of its own to either file meanwhile.
	for size(filepath.Join(dir, "error.log.1")) < maxLog || size(filepath.Join(dir, "error.log")) >= maxLog || !exists(dir, "error.log") {
		if ctx.Err() != nil {
			t.Fatal("the log was not put aside")
		}
		balancer.Pause(ctx, time.Millisecond)
	}
	_, err = proxy.Apply(t.Context(), balancertest.Routes(balancertest.Route("web", "web.test", "/")))
	must(t, err)
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRefusedToStart(t *testing.T) {
	testenv.Need(t, "program:nginx")
	dir := t.TempDir()
	old := filepath.Join(dir, "old")
	must(t, os.WriteFile(old, []byte("#!/bin/sh\necho 'nginx version: nginx/1.10.3' >&2\n"), 0o755))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	free := fmt.Sprintf("127.0.0.1:%d", testenv.Port(t))
	for want, config := range map[string]Config{
		"install the package nginx":             {Dir: dir + "/a", Listen: free, Program: "/none/nginx"},
		"is nginx 1.10.3, but at least 1.19.4":  {Dir: dir + "/b", Listen: free, Program: old},
		"Address already in use":                {Dir: dir + "/c", Listen: taken.Addr().String()},
		"is not an absolute path":               {Dir: "relative", Listen: free},
		"without blanks and special characters": {Dir: "/a b;", Listen: free},
		"needs a folder of its own":             {Listen: free},
		"must be IP:PORT":                       {Dir: dir, Listen: "localhost;:80"},
		"needs a folder of certificates":        {Dir: dir, Listen: free, TLS: free},
	} {
		proxy, err := NewProxy(config)
		if err == nil {
			err = proxy.Start(t.Context())
			proxy.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %+v: %v, want %q", config, err, want)
		}
	}
}

// The wait for an nginx that ends right after its start is limited.
func TestEndedRightAfterItsStart(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	must(t, os.WriteFile(program, []byte("#!/bin/sh\necho 'nginx version: nginx/1.22.1' >&2\n"), 0o755))
	proxy, err := NewProxy(Config{Dir: dir + "/proxy", Listen: fmt.Sprintf("127.0.0.1:%d", testenv.Port(t)), Program: program})
	must(t, err)
	defer proxy.Close()
	proxy.startTimeout = 100 * time.Millisecond
	if err := proxy.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "has ended right after its start") {
		t.Errorf("it ends with %v", err)
	}
}

// A client that never ends does not keep an old worker for ever.
func TestOldWorkersEnd(t *testing.T) {
	testenv.Need(t, "program:nginx")
	front := balancertest.Front{Dir: t.TempDir(), HTTP: fmt.Sprintf("127.0.0.1:%d", testenv.Port(t))}
	config := configOf(front)
	config.KeepOld, config.StopOnExit = time.Second, true
	proxy, err := NewProxy(config)
	must(t, err)
	defer proxy.Close()
	must(t, proxy.Start(t.Context()))
	web := balancertest.NewInstance(t, "web-1")
	_, err = proxy.Apply(t.Context(), balancertest.Routes(balancertest.Route("web", "web.test", "/", web)))
	must(t, err)
	conn, err := net.Dial("tcp", front.HTTP)
	must(t, err)
	defer conn.Close()
	_, err = fmt.Fprint(conn, "GET /slow HTTP/1.1\r\nHost: web.test\r\n\r\n")
	must(t, err)
	defer close(web.Release)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for web.Requests.Load() == 0 && ctx.Err() == nil {
		balancer.Pause(ctx, time.Millisecond)
	}
	old := serving(front)[1:]
	_, err = proxy.Apply(t.Context(), balancertest.Routes(balancertest.Route("web", "web.test", "/")))
	must(t, err)
	for left := old; len(left) > 0; left = slices.DeleteFunc(left, balancer.HasEnded) {
		if ctx.Err() != nil {
			t.Fatalf("the workers %v are still there", left)
		}
		balancer.Pause(ctx, 5*time.Millisecond)
	}
}

// What `mammoth companion nginx --config F` reads.
func TestConfigFile(t *testing.T) {
	var config Config
	decoder := yaml.NewDecoder(strings.NewReader("dir: /var/lib/nginx\nlisten: 0.0.0.0:80\ninterval: 500ms\nlostAfter: 1m\nattach: {include: /etc/nginx/conf.d/m.conf}\n"))
	decoder.KnownFields(true)
	must(t, decoder.Decode(&config))
	must(t, config.Validate())
	if config.Interval != 500*time.Millisecond || config.LostAfter != time.Minute || config.Name != "nginx" ||
		config.Attach.Include != "/etc/nginx/conf.d/m.conf" || config.Attach.Pid != "/run/nginx.pid" {
		t.Errorf("read %+v", config)
	}
}

// A reload is rolled back for errors of nginx itself, not for text of clients in its log.
func TestComplaint(t *testing.T) {
	for text, want := range map[string]string{
		"nginx: [emerg] unexpected \"}\" in nginx.conf:3\nnginx: configuration file nginx.conf test failed\n":                 "unexpected \"}\" in nginx.conf:3",
		"2026/11/22 10:00:00 [notice] 7#7: signal\n2026/11/22 10:00:00 [emerg] 7#7: bind() to 127.0.0.1:80 failed\n":          "7#7: bind() to 127.0.0.1:80 failed",
		"2026/11/22 10:00:00 [error] 7#7: *1 no live upstreams, request: \"GET / HTTP/1.1\", referrer: \"[emerg] give up\"\n": "",
		"": "",
	} {
		if got := firstError([]byte(text)); got != want {
			t.Errorf("of %q it complains %q, want %q", text, got, want)
		}
	}
}
