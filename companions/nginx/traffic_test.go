package nginx

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/companions/balancer/balancertest"
	"github.com/mammoth-os/mammoth/internal/sockets"
	"github.com/mammoth-os/mammoth/internal/testenv"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

func counting(t testing.TB) *traffic {
	t.Helper()
	dir := t.TempDir()
	c := &traffic{stateFile: filepath.Join(dir, "traffic"), errors: filepath.Join(dir, "error.log")}
	must(t, c.listen())
	t.Cleanup(c.close)
	c.routes(&balancer.Plan{Services: []balancer.Service{{Name: "web", HTTP: []balancer.Server{
		{ID: "web-1", Address: "127.0.0.1", Port: 1001}, {ID: "web-2", Address: "127.0.0.1", Port: 1002},
	}}}})
	return c
}

func TestTraffic(t *testing.T) {
	c := counting(t)
	if got := c.take(); len(got) != 0 {
		t.Fatalf("before any request: %v", got)
	}
	conn, err := net.Dial("udp", c.address())
	must(t, err)
	defer conn.Close()
	say := func(tag, line string) {
		_, err := conn.Write([]byte("<190>Nov 22 10:00:00 " + tag + ": " + line))
		must(t, err)
	}
	for _, line := range []string{
		"web 127.0.0.1:1001 200", "web 127.0.0.1:1001, 127.0.0.1:1002 200", "web 127.0.0.1:1002 503", "- - 404", "web app_web 502", "web 127.0.0.1:9 200",
	} {
		say(requestTag(c.mark), line)
		// Datagrams without the mark are ignored.
		say("somebody", line)
	}
	say("", "")
	say(errorTag(c.mark), "2026/11/22 10:00:00 [error] 1#1: *1 no live upstreams")
	// Datagrams of one sender arrive in their order: after the error everything has been counted.
	for deadline := time.Now().Add(30 * time.Second); size(c.errors) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the error was not written")
		}
		balancer.Pause(t.Context(), time.Millisecond)
	}
	got := c.take()
	if len(got) != 2 || got[0].GetRequests() != 2 || got[0].GetErrors() != 1 || got[1].GetRequests() != 2 || got[1].GetErrors() != 1 {
		t.Fatalf("counted %v", got)
	}
	text, err := os.ReadFile(c.errors)
	must(t, err)
	if string(text) != "2026/11/22 10:00:00 [error] 1#1: *1 no live upstreams\n" {
		t.Errorf("the log of errors says %q", text)
	}
}

// askTooMuch sends a header that nginx cannot take, which is an error of its own. nginx answers before it has read all of it, and
// closes the connection: the rest that arrives then may have the kernel reset it, and the answer is lost.
func askTooMuch(t *testing.T, address string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/"+strings.Repeat("x", 100_000), http.NoBody)
	must(t, err)
	if answer, err := http.DefaultClient.Do(request); err == nil {
		_ = answer.Body.Close()
	}
}

// Without a companion, nginx's messages are lost and fill no disk. The next companion receives them again without a reload.
func TestNobodyHears(t *testing.T) {
	testenv.Need(t, "program:nginx")
	dir, port := t.TempDir(), testenv.Port(t)
	config := Config{Dir: dir, Listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	first, err := NewProxy(config)
	must(t, err)
	must(t, first.Start(t.Context()))
	endAfter(t, first.master())
	alive := balancertest.NewInstance(t, "web-1")
	routes := balancertest.Routes(balancertest.Route("web", "web.test", "/", alive))
	_, err = first.Apply(t.Context(), routes)
	must(t, err)
	ask := func(path string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+config.Listen+path, http.NoBody)
		must(t, err)
		request.Host = "web.test"
		answer, err := http.DefaultClient.Do(request)
		must(t, err)
		_ = answer.Body.Close()
		return answer.StatusCode
	}
	heard := first.traffic.address()
	first.Close()
	before := folderSize(t, dir)
	for range 200 {
		if status := ask("/broken"); status != http.StatusInternalServerError {
			t.Fatalf("without a companion nginx answers %d", status)
		}
		askTooMuch(t, config.Listen)
	}
	if grown := folderSize(t, dir) - before; grown != 0 {
		t.Errorf("200 requests that nobody heard of have left %d bytes", grown)
	}
	config.StopOnExit = true
	second, err := NewProxy(config)
	must(t, err)
	defer second.Close()
	must(t, second.Start(t.Context()))
	workers := second.workers()
	_, err = second.Apply(t.Context(), routes)
	must(t, err)
	var counts []*companionv1.Traffic
	// A worker's first word meets the refusal of its last one.
	for deadline := time.Now().Add(30 * time.Second); len(counts) == 0; counts = second.Traffic() {
		if time.Now().After(deadline) {
			t.Fatal("the second companion hears nothing")
		}
		_ = ask("/broken")
		balancer.Pause(t.Context(), time.Millisecond)
	}
	if counts[0].GetEndpoint() != "web-1" || counts[0].GetErrors() != counts[0].GetRequests() {
		t.Errorf("the second companion has counted %v", counts)
	}
	// What goes wrong with a request is in the log.
	alive.Kill()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(read(t, dir, "error.log"), "connect() failed (111: Connection refused) while connecting to upstream"); {
		if time.Now().After(deadline) {
			t.Fatalf("the log of errors says %q", read(t, dir, "error.log"))
		}
		_ = ask("/")
		balancer.Pause(t.Context(), time.Millisecond)
	}
	// While no companion has bound the port, the kernel may give it to another socket, even nginx's own. Then the next companion
	// binds another port and reloads nginx.
	if now := second.workers(); second.traffic.address() == heard && (len(now) == 0 || now[0] != workers[0]) {
		t.Errorf("nginx was reloaded: its workers were %v, are %v", workers, now)
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	must(t, err)
	return string(text)
}

func folderSize(t *testing.T, dir string) (sum int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, entry := range entries {
		sum += size(filepath.Join(dir, entry.Name()))
	}
	return sum
}

func FuzzTraffic(f *testing.F) {
	f.Add("web 127.0.0.1:1001, 127.0.0.1:1002 : 127.0.0.1:1001 502\n")
	f.Add("web\n\n  \n- - -")
	f.Fuzz(func(t *testing.T, text string) {
		c := counting(t)
		for range 3 {
			c.count(text)
		}
		for _, count := range c.take() {
			if count.GetErrors() > count.GetRequests() || count.GetRequests() < 1 {
				t.Fatalf("counted %v", count)
			}
		}
	})
}

// nginx connects a socket for each message while nobody listens. One that the kernel gives the companion's port is connected to
// itself, and the next companion could not listen.
func TestNoSenderIsGivenThePort(t *testing.T) {
	from, to := sockets.EphemeralRange()
	for range 200 {
		heard := traffic{stateFile: filepath.Join(t.TempDir(), "traffic")}
		must(t, heard.listen())
		port := heard.conn.LocalAddr().(*net.UDPAddr).Port
		heard.close()
		if port >= from && port <= to {
			t.Fatalf("it listens on port %d, and senders are given ports from %d to %d", port, from, to)
		}
	}
}
