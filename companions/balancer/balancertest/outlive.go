package balancertest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/internal/testenv"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// An event stream, a WebSocket, a download and a TCP connection of one app survive changes of another app: of its instances,
// its hosts and its paths.
func testOutlive(r *rig) {
	long, other := NewInstance(r.t, "long-1"), NewInstance(r.t, "other-1")
	stays := Route("long", "long.example.test", "/", long)
	port := testenv.Port(r.t)
	if !r.subject.NoTCP {
		stays.Expose.Tcp = []*apiv1.Expose_Tcp{{Listen: int32(port), Port: "http"}}
	}
	r.apply(stays)

	_, reader := r.raw(r.front.HTTP, "GET /lines HTTP/1.1\r\nHost: long.example.test\r\n\r\n")
	answer, err := http.ReadResponse(reader, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	events := bufio.NewReader(answer.Body)
	echoes := map[string]func(string) (string, error){"a WebSocket": r.echo(r.front.HTTP)}
	if !r.subject.NoTCP {
		echoes["a TCP connection"] = r.echo(address(port))
	}
	const size = 64 << 20
	_, download := r.raw(r.front.HTTP, fmt.Sprintf("GET /large?bytes=%d HTTP/1.0\r\nHost: long.example.test\r\n\r\n", size))
	answer, err = http.ReadResponse(download, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for n := range 8 {
		changed := []balancer.Route{stays}
		for i := range n%3 + 1 {
			changed = append(changed, Route(fmt.Sprint("other", i), fmt.Sprintf("other-%d-%d.example.test", i, n), "/", other))
		}
		r.apply(changed...)
		r.expect(fmt.Sprintf("other-0-%d.example.test", n), "/", 200, "other-1")
		long.Lines <- fmt.Sprint("event ", n)
		if line, err := events.ReadString('\n'); line != fmt.Sprintf("event %d\n", n) {
			r.t.Fatalf("after %d changes the event stream says %q, %v", n+1, line, err)
		}
		for what, echo := range echoes {
			if line, err := echo(fmt.Sprint("word ", n)); line != fmt.Sprint("word ", n) {
				r.t.Fatalf("after %d changes %s says %q, %v", n+1, what, line, err)
			}
		}
	}
	if n, err := io.Copy(io.Discard, answer.Body); n != size {
		r.t.Errorf("of a download of %d bytes %d came, %v", size, n, err)
	}
}

// A client sends its next request at the time of a change: if its connection is closed then, the request is lost.
func testIdle(r *rig) {
	web := NewInstance(r.t, "web-1")
	r.apply(Route("web", "web.example.test", "/", web))
	const request = "POST / HTTP/1.1\r\nHost: web.example.test\r\nContent-Length: 0\r\n\r\n"
	type client struct {
		conn   net.Conn
		reader *bufio.Reader
	}
	var clients []client
	answered := func(reader *bufio.Reader) bool {
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			return false
		}
		_, err = io.Copy(io.Discard, answer.Body)
		return err == nil && answer.StatusCode == http.StatusOK
	}
	for range 20 {
		conn, reader := r.raw(r.front.HTTP, request)
		if !answered(reader) {
			r.t.Fatal("the first request is not answered")
		}
		clients = append(clients, client{conn, reader})
	}
	r.apply(Route("web", "other.example.test", "/", web), Route("same", "web.example.test", "/", web))
	kept := 0
	for _, c := range clients {
		if _, err := io.WriteString(c.conn, request); err == nil && answered(c.reader) {
			kept++
		}
	}
	// HAProxy spreads the end of the connections over the time.
	if want := r.subject.KeepsIdle(r.proxy); want != (kept >= len(clients)/2) {
		r.t.Errorf("%d of %d idle connections were kept, want them kept: %v", kept, len(clients), want)
	}
}

// Each change leaves one more open connection. In the end MaxOld old processes run, those with the youngest connections.
func testOldestEnd(r *rig) {
	const most = 4
	r.subject.Close(r.proxy)
	r.front.MaxOld = most
	r.start()
	long := NewInstance(r.t, "long-1")
	var echoes []func(string) (string, error)
	rested := false
	for n := range 3 * most {
		routes := Routes(Route("long", "long.example.test", "/", long), Route("other", fmt.Sprintf("other-%d.example.test", n), "/"))
		if refusals, err := r.proxy.Apply(r.t.Context(), routes); err != nil || len(refusals) > 0 {
			r.t.Fatal(refusals, err)
		}
		// Processes that got SIGTERM may take a moment.
		for deadline := time.Now().Add(patience); len(r.subject.Old(r.proxy)) > most; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				r.t.Fatalf("after %d changes %d old processes run, want at most %d", n+1, len(r.subject.Old(r.proxy)), most)
			}
		}
		routes["more"] = Route("more", "more.example.test", "/")
		rested = rested || r.proxy.ReloadDelay(routes) > 5*time.Second
		echoes = append(echoes, r.echo(r.front.HTTP))
	}
	if !rested {
		r.t.Error("the next change was never delayed, though as many old processes ran as may")
	}
	if logged := r.log.String(); !strings.Contains(logged, "the oldest are ended") {
		r.t.Errorf("the end of connections is not logged: %q", logged)
	}
	last := len(echoes) - 1
	for _, n := range []int{last, last - 1} {
		if line, err := echoes[n]("hello"); line != "hello" {
			r.t.Errorf("the young connection %d says %q, %v", n, line, err)
		}
	}
	if line, err := echoes[0]("hello"); err == nil {
		r.t.Errorf("the oldest connection still says %q", line)
	}
}

// echo opens a connection that gives back every line.
func (r *rig) echo(address string) func(line string) (string, error) {
	r.t.Helper()
	conn, reader := r.raw(address, "GET /socket HTTP/1.1\r\nHost: long.example.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		r.t.Fatalf("the upgrade is answered %v, %v", answer, err)
	}
	return func(line string) (string, error) {
		if _, err := io.WriteString(conn, line+"\n"); err != nil {
			return "", err
		}
		back, err := reader.ReadString('\n')
		return strings.TrimSuffix(back, "\n"), err
	}
}
