package admission

import (
	"errors"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/peer"
)

func TestAQuotaCountsEachCallerAndAll(t *testing.T) {
	q := NewQuota("watches", 2, 3)
	take := func(caller string) func() {
		t.Helper()
		release, err := q.Take(caller)
		if err != nil {
			t.Fatalf("%s: %v", caller, err)
		}
		return release
	}
	refused := func(caller, want string) {
		t.Helper()
		if _, err := q.Take(caller); !errdefs.IsResourceExhausted(err) || err.Error() != want+": resource exhausted" {
			t.Errorf("%s: %v", caller, err)
		}
	}
	first := take("ann")
	take("ann")
	refused("ann", "you have 2 watches open, and one caller may not have more; close some of them first")
	take("ben")
	refused("cleo", "3 watches are open, and there cannot be more at once; try again later")
	first()
	first() // counts once
	take("cleo")
	refused("ben", "3 watches are open, and there cannot be more at once; try again later")
}

func TestLimitsLeaveDescriptorsForTheRest(t *testing.T) {
	most := Limits{Total: 65536, Others: 4096, PerCaller: 1024}
	for descriptors, want := range map[uint64]Limits{
		256:       {Total: 128, Others: 64, PerCaller: 32},
		1024:      {Total: 512, Others: 256, PerCaller: 128},
		1 << 20:   most,
		1<<64 - 1: most,
	} {
		if got := most.within(descriptors); got != want {
			t.Errorf("%d descriptors: %+v, want %+v", descriptors, got, want)
		}
	}
}

// pipes is a listener whose connections are pipes, or whatever Accept is told to fail with.
type pipes chan any

func (p pipes) Accept() (net.Conn, error) {
	switch next := (<-p).(type) {
	case net.Conn:
		return next, nil
	case error:
		return nil, next
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return nil }

// client is the other end of a connection from an address.
type client struct {
	net.Conn
	from string
}

func (c client) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.from), Port: 1} }

type bounded struct {
	t        *testing.T
	pipes    pipes
	listener *Listener
	accepted chan net.Conn
}

func bound(t *testing.T, limits Limits, trusted func(peer.User) bool) *bounded {
	b := &bounded{t: t, pipes: make(pipes), accepted: make(chan net.Conn, 100)}
	b.listener = Listen(b.pipes, Config{Limits: limits, Trusted: trusted, Logger: slog.New(slog.DiscardHandler)})
	go func() {
		for {
			c, err := b.listener.Accept()
			if err != nil {
				close(b.accepted)
				return
			}
			b.accepted <- c
		}
	}()
	return b
}

// dial connects; open reports whether the connection is still there.
func (b *bounded) dial(from string) (ours net.Conn, open func() bool) {
	ours, theirs := net.Pipe()
	b.pipes <- client{theirs, from}
	synctest.Wait()
	return ours, func() bool {
		_ = ours.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := ours.Read(make([]byte, 1))
		var timeout net.Error
		return errors.As(err, &timeout) && timeout.Timeout()
	}
}

// say sends a byte over a connection that was accepted as the n-th.
func (b *bounded) say(ours, theirs net.Conn) {
	b.t.Helper()
	go func() { _, _ = ours.Write([]byte{1}) }()
	if _, err := theirs.Read(make([]byte, 1)); err != nil {
		b.t.Fatal(err)
	}
}

func nobody(peer.User) bool { return false }

func TestOneCallerCannotTakeTheConnectionsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bound(t, Limits{Total: 8, Others: 4, PerCaller: 2}, nobody)
		defer close(b.pipes)
		var opens []func() bool
		for _, from := range []string{"10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"} {
			_, open := b.dial(from)
			opens = append(opens, open)
		}
		for i, want := range []bool{true, true, false, true, true, false} {
			if got := opens[i](); got != want {
				t.Errorf("connection %d is open: %v, want %v", i, got, want)
			}
		}
		if b.listener.Refused() != 2 {
			t.Errorf("%d refused", b.listener.Refused())
		}
		// What is closed counts no more.
		_ = (<-b.accepted).Close()
		if _, open := b.dial("10.0.0.1"); !open() {
			t.Error("a connection that was closed still counts")
		}
	})
}

// At the limit, connections without data are closed; those of a node that reports every second or answers pings are not.
func TestTheSilentMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bound(t, Limits{Total: 3, Others: 3, PerCaller: 3}, func(peer.User) bool { return true })
		defer close(b.pipes)
		node, nodeOpen := b.dial("10.0.0.1")
		nodeEnd := <-b.accepted
		b.say(node, nodeEnd)
		_, mute1 := b.dial("10.0.0.2")
		<-time.After(time.Millisecond)
		_, mute2 := b.dial("10.0.0.2")
		if _, open := b.dial("10.0.0.3"); open() {
			t.Error("one too many was let in before anybody was silent for long enough")
		}
		<-time.After(silentBeforeRequest)
		late, lateOpen := b.dial("10.0.0.3")
		<-b.accepted
		<-b.accepted
		b.say(late, <-b.accepted)
		if mute1() || !mute2() || !lateOpen() || !nodeOpen() {
			t.Errorf("open are: first mute %v, second mute %v, late %v, node %v", mute1(), mute2(), lateOpen(), nodeOpen())
		}
		<-time.After(silentTrusted - time.Second)
		b.say(node, nodeEnd)
		<-time.After(time.Second)
		b.dial("10.0.0.4") // for the second mute one
		b.dial("10.0.0.4") // for the late one
		if mute2() || lateOpen() || !nodeOpen() {
			t.Errorf("open are: second mute %v, late %v, node %v", mute2(), lateOpen(), nodeOpen())
		}
	})
}

func TestALackOfDescriptorsEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bound(t, Limits{Total: 3, Others: 3, PerCaller: 3}, nobody)
		_, mute := b.dial("10.0.0.1")
		<-time.After(silentBeforeRequest)
		for range 20 {
			b.pipes <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		if mute() {
			t.Error("no descriptor was freed")
		}
		if _, open := b.dial("10.0.0.2"); !open() {
			t.Error("nobody is let in when there are descriptors again")
		}
		b.pipes <- &net.OpError{Op: "accept", Err: syscall.EINVAL}
		<-b.accepted
		<-b.accepted
		if _, open := <-b.accepted; open {
			t.Error("a listener that is broken goes on")
		}
	})
}
