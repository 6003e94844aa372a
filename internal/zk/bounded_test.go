package zk

import (
	"net"
	"testing"
	"time"
)

// noted is a connection that notes until when a read may take.
type noted struct {
	net.Conn
	until time.Time
}

func (c *noted) SetReadDeadline(at time.Time) error {
	c.until = at
	return nil
}

// A server may grant a longer session than requested, and the pings depend on that.
func TestOnlyTheFirstAnswerIsBounded(t *testing.T) {
	inner := &noted{}
	conn := &bounded{Conn: inner, first: time.Second}
	long := time.Now().Add(time.Hour)
	for n, want := range []bool{true, false, false} {
		if err := conn.SetReadDeadline(long); err != nil {
			t.Fatal(err)
		}
		if sooner := inner.until.Before(long); sooner != want {
			t.Errorf("answer %d is waited for until %s: bounded %v, want %v", n, inner.until, sooner, want)
		}
	}
}
