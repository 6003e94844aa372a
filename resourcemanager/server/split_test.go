package server

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mammoth-os/mammoth/internal/credentials"
)

func TestConnectionsAreSplitByWhatTheySayFirst(t *testing.T) {
	for _, test := range []struct {
		pieces []string
		http2  bool
	}{
		{[]string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}, true},
		{[]string{"PRI ", "* HTTP", "/2.0\r\n"}, true},
		{[]string{"GET / HTTP/1.1\r\n\r\n"}, false},
		{[]string{"P", "OST /v1/apps HTTP/1.1\r\n"}, false},
		{[]string{"PRI * HTTP/1"}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			type result struct {
				begun net.Conn
				http2 bool
			}
			results := make(chan result, 1)
			go func() {
				begun, http2 := identify(theirs)
				results <- result{begun, http2}
			}()
			go func() {
				for _, piece := range test.pieces {
					_, _ = io.WriteString(ours, piece)
				}
				_ = ours.Close()
			}()
			got := <-results
			if got.http2 != test.http2 {
				t.Errorf("%q is taken for HTTP/2: %v", test.pieces, got.http2)
			}
			text, err := io.ReadAll(got.begun)
			if err != nil || string(text) != strings.Join(test.pieces, "") {
				t.Errorf("%q arrived as %q, %v", test.pieces, text, err)
			}
		})
	}
}

func TestASilentConnectionIsHungUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go identify(theirs)
		started := time.Now()
		if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read: %v", err)
		}
		if waited := time.Since(started); waited != credentials.BeginWithin {
			t.Errorf("hung up after %s", waited)
		}
	})
}
