package health_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/nodemanager/health"
)

// An instance may log an error if a probe closes the connection before the page ends. So ordinary pages are read to their end.
func TestAPageIsReadToItsEnd(t *testing.T) {
	broken := make(chan error, 100)
	page := strings.Repeat("x", 300<<10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/length":
			w.Header().Set("Content-Length", fmt.Sprint(len(page)))
		case "/sick":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		for part := range 30 { // chunks, where the length is not given
			if _, err := io.WriteString(w, page[part*10<<10:(part+1)*10<<10]); err != nil {
				broken <- err
				return
			}
			w.(http.Flusher).Flush()
		}
		broken <- nil
	}))
	defer server.Close()
	for _, path := range []string{"/length", "/chunks", "/sick"} {
		for late, read := 0, 0; read < 20; read++ {
			began := time.Now()
			err := health.HTTP(strings.TrimPrefix(server.URL, "http://"), path)(t.Context())
			if (err != nil) != (path == "/sick") {
				t.Errorf("%s: %v", path, err)
			}
			took := time.Since(began)
			err = <-broken
			if err != nil && took >= 500*time.Millisecond && late < 100 { // longer than a page may take
				late, read = late+1, read-1
				continue
			}
			if err != nil {
				t.Fatalf("%s was broken off after %v: %v", path, took, err)
			}
		}
	}
}

// serveRaw answers each connection with a text, and holds it open if it is to.
func serveRaw(t *testing.T, answer string, open bool) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				request := bufio.NewReader(conn)
				for line := ""; line != "\r\n"; {
					if line, err = request.ReadString('\n'); err != nil {
						return
					}
				}
				_, _ = io.WriteString(conn, answer)
				if open {
					_, _ = io.Copy(io.Discard, conn) // until the probe has gone
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func TestAnswersOfAllKinds(t *testing.T) {
	for _, c := range []struct {
		answer string
		open   bool
		want   string
	}{
		{answer: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"},
		{answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 No\r\n\r\n", want: "GET / answered 503"},
		{answer: "HTTP/1.1 103 Early Hints\r\n\r\n", want: "GET /: the connection was closed without an answer"},
		{answer: strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 16) + "HTTP/1.1 200 OK\r\n\r\n"},
		{answer: strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 17) + "HTTP/1.1 200 OK\r\n\r\n", want: "GET /: more than 16 interim answers"},
		{answer: strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100), want: "GET /: more than 16 interim answers"},
		{answer: "HTTP/1.1 101 Switching Protocols\r\n\r\n", want: "GET / answered 101"},
		{answer: "HTTP/1.0 200 OK\r\n\r\nok"},
		{answer: "HTTP/1.0 200\n\nok"},
		{answer: "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", open: true},
		{answer: "HTTP/1.1 204 No Content\r\n\r\n", open: true},
		{answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", open: true},
		{answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", open: true},
		{answer: "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n", open: true},
		{answer: "HTTP/1.1 200 OK\r\nnot a header\r\n\r\n"},
		{answer: "HTTP/1.1 200 " + strings.Repeat("K", 10_000) + "\r\n\r\n"},
		{answer: "HTTP/1.1 200 OK\r\nCookie: " + strings.Repeat("x", 1<<20)},
		{answer: "HTTP/1.1 200 OK"},
		{answer: "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 8<<20)},
		{answer: "", want: "GET /: the connection was closed without an answer"},
		{answer: "hello\n", want: "GET /: the answer is not HTTP"},
	} {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		got := ""
		if err := health.HTTP(serveRaw(t, c.answer, c.open), "/")(ctx); err != nil {
			got = err.Error()
		}
		cancel()
		if got != c.want {
			t.Errorf("%.60q: %q, want %q", c.answer, got, c.want)
		}
		if took := time.Since(began); took > 40*time.Second {
			t.Errorf("%.60q took %v", c.answer, took)
		}
	}
}
