package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Whoever has too many connections open is told that, and not that there is no zone.
func TestAZoneThatClosesTheConnectionIsToldFromWhatIsNone(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(*net.TCPConn)
		want   string
	}{
		"it closes":                           {func(conn *net.TCPConn) { _, _ = io.ReadFull(conn, make([]byte, 24)) }, closesConnection},
		"it closes with what was sent unread": {func(conn *net.TCPConn) { _ = conn.SetLinger(0) }, closesConnection},
		"it speaks something else": {func(conn *net.TCPConn) {
			_, _ = conn.Write([]byte("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"))
			_, _ = io.Copy(io.Discard, conn)
		}, "what answers at %s is not a zone; name another with --server"},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					c.answer(conn.(*net.TCPConn))
				}()
			}
		}()
		at := listener.Addr().String()
		dialer := &dialer{&globalFlags{server: at, output: "table"}}
		err = dialer.with(context.Background(), func(z *zone) error {
			_, err := z.apps.ListApps(context.Background(), &apiv1.ListAppsRequest{})
			return err
		})
		if want := fmt.Sprintf(c.want, at); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
		_ = listener.Close()
	}
}

const closesConnection = "the zone at %s closes the connection, as it does when too many are open; close some, or try again in a moment"
