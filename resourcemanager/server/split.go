package server

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/peer"
)

// http2Preface is the start of every HTTP/2 connection, and of no HTTP/1 request.
var http2Preface = []byte("PRI * HTTP/2")

// identify reads the start of a connection to find out whether it is HTTP/2. It closes a connection on which nothing arrives in
// time, and returns nil.
func identify(connection net.Conn) (begun net.Conn, http2 bool) {
	_ = connection.SetReadDeadline(time.Now().Add(credentials.BeginWithin))
	read := make([]byte, 0, len(http2Preface))
	for len(read) < len(http2Preface) {
		n, err := connection.Read(read[len(read):cap(read)])
		read = read[:len(read)+n]
		if !bytes.HasPrefix(http2Preface, read) {
			break
		}
		if err != nil {
			_ = connection.Close()
			return nil, false
		}
	}
	_ = connection.SetReadDeadline(time.Time{})
	return &begunConn{Conn: connection, read: read}, bytes.Equal(read, http2Preface)
}

// begunConn is a connection whose first bytes were read already.
type begunConn struct {
	net.Conn
	read []byte
}

func (c *begunConn) Read(into []byte) (int, error) {
	if len(c.read) > 0 {
		n := copy(into, c.read)
		c.read = c.read[n:]
		return n, nil
	}
	return c.Conn.Read(into)
}

// SyscallConn implements syscall.Conn, which package peer needs to find the user at the other end.
func (c *begunConn) SyscallConn() (syscall.RawConn, error) {
	inner, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, syscall.EOPNOTSUPP
	}
	return inner.SyscallConn()
}

// WriteTo prevents io.Copy from bypassing Read.
func (c *begunConn) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

// handedListener is a net.Listener for connections that were accepted elsewhere.
type handedListener struct {
	address net.Addr
	handed  chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newHandedListener(address net.Addr) *handedListener {
	return &handedListener{address: address, handed: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *handedListener) hand(connection net.Conn) {
	select {
	case l.handed <- connection:
	case <-l.closed:
		_ = connection.Close()
	}
}

// Accept implements net.Listener.
func (l *handedListener) Accept() (net.Conn, error) {
	select {
	case connection := <-l.handed:
		return connection, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *handedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *handedListener) Addr() net.Addr { return l.address }

// dial connects to the listener inside this process.
func (l *handedListener) dial(ctx context.Context, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.handed <- peer.Inside(theirs):
		return ours, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
