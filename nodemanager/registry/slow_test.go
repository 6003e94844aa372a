package registry

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener of connections within the process.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestARegistrationThatDoesNotArriveIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Config{Upstream: "127.0.0.1:1"})
		listener := make(pipes)
		f.serving.Go(func() { _ = f.server.Serve(listener) })
		ours, theirs := net.Pipe()
		listener <- theirs
		began := time.Now()
		go func() {
			_, _ = io.WriteString(ours, "PUT /v1/registry/services/web/endpoints/a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
		}()
		answer, err := io.ReadAll(ours)
		if took := time.Since(began); took != bodyTimeout || err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
			t.Errorf("after %s: %s, %v", took, answer, err)
		}
		close(listener)
		_ = f.server.Close()
		f.serving.Wait()
	})
}
