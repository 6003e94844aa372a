package balancertest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// special is the handler of a path with a special behaviour; nil for other paths.
func (i *Instance) special(path string) http.HandlerFunc {
	switch path {
	case "/headers":
		return i.headers
	case "/lines":
		return i.lines
	case "/old-lines":
		return i.oldLines
	case "/upload":
		return i.upload
	case "/hang-up":
		return func(w http.ResponseWriter, _ *http.Request) { hangUp(w) }
	case "/nothing":
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	case "/same":
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"1"`)
			w.WriteHeader(http.StatusNotModified)
		}
	case "/early":
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, "who are you")
		}
	case "/large":
		return i.large
	}
	return nil
}

// headers answers with as many bytes of headers as the query says, in lines of at most 4 KiB.
func (i *Instance) headers(w http.ResponseWriter, request *http.Request) {
	left, _ := strconv.Atoi(request.URL.Query().Get("bytes"))
	for n := 0; left > 0; n++ {
		size := min(left, 4096)
		w.Header().Set("X-Part-"+strconv.Itoa(n), strings.Repeat("x", size))
		left -= size
	}
	fmt.Fprint(w, i.ID)
}

// lines passes lines on in chunks.
func (i *Instance) lines(w http.ResponseWriter, request *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	_ = control.Flush()
	for {
		select {
		case line, open := <-i.Lines:
			if !open {
				return
			}
			_, _ = io.WriteString(w, line+"\n")
			if control.Flush() != nil {
				return
			}
		case <-request.Context().Done():
			return
		}
	}
}

// oldLines passes lines on as HTTP/1.0 does: the end of the connection is the end of the answer.
func (i *Instance) oldLines(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n")
	for line := range i.Lines {
		if _, err := io.WriteString(conn, line+"\n"); err != nil {
			return
		}
	}
}

// upload sends each piece of a request's body to Pieces as it arrives.
func (i *Instance) upload(w http.ResponseWriter, request *http.Request) {
	buffer := make([]byte, 4096)
	total := 0
	for {
		n, err := request.Body.Read(buffer)
		total += n
		if n > 0 && len(i.Pieces) < cap(i.Pieces) {
			i.Pieces <- string(buffer[:n])
		}
		if err != nil {
			break
		}
	}
	fmt.Fprintf(w, "%s got %d", i.ID, total)
}

// large answers with as many bytes as the query says.
func (i *Instance) large(w http.ResponseWriter, request *http.Request) {
	size, _ := strconv.Atoi(request.URL.Query().Get("bytes"))
	piece := make([]byte, 64<<10)
	for size > 0 {
		n, err := w.Write(piece[:min(size, len(piece))])
		if err != nil {
			return
		}
		size -= n
	}
}

// hangUp ends a connection without an answer.
func hangUp(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// full is an instance to which no connection can be established: nobody accepts, and the backlog is full.
func (r *rig) full(id string) *Instance {
	r.t.Helper()
	listener, err := listenWithoutBacklog()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(listener.close)
	target := net.JoinHostPort("127.0.0.1", strconv.Itoa(listener.port))
	// The kernel lets at least one connection wait. The backlog is full once a further one cannot be established.
	limit := patience
	for range 16 {
		conn, err := net.DialTimeout("tcp", target, limit)
		switch {
		case err != nil && limit == patience:
			r.t.Fatal(err)
		case err != nil:
			return &Instance{ID: id, Port: listener.port}
		}
		r.t.Cleanup(func() { _ = conn.Close() })
		limit = 200 * time.Millisecond
	}
	r.t.Fatal("connections to a full backlog are still established")
	return nil
}

// raw sends text as it is, and returns the connection with a reader of what comes back.
func (r *rig) raw(address, text string) (net.Conn, *bufio.Reader) {
	r.t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(5 * patience)) // some are used from the beginning of a test to its end
	if _, err := io.WriteString(conn, text); err != nil {
		r.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// ask sends text as it is, and returns the answer with its body.
func (r *rig) ask(method, text string) (*http.Response, string) {
	r.t.Helper()
	conn, reader := r.raw(r.front.HTTP, text)
	defer conn.Close()
	answer, err := http.ReadResponse(reader, &http.Request{Method: method})
	if err != nil {
		r.t.Errorf("%.80q is answered with %v", text, err)
		return &http.Response{}, ""
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Errorf("%.80q: reading the answer: %v", text, err)
	}
	return answer, string(body)
}
