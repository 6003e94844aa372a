package zone

import (
	"testing"
	"time"
)

// A turn that begins for what every turn does is no reason to look at all deadlines.
func TestATurnComesBeforeTheDeadlines(t *testing.T) {
	begun := time.UnixMilli(1700000000000)
	z := &Core{turn: &turn{wake: begun.Add(time.Second)}}
	z.turn.begin(begun, Seed{})
	z.turn.nextBy(begun.Add(300 * time.Millisecond))
	z.turn.nextBy(begun.Add(200 * time.Millisecond))
	z.turn.nextBy(begun.Add(400 * time.Millisecond))
	if at := z.turn.nextTurn().Sub(begun); at != 200*time.Millisecond {
		t.Errorf("the next turn is after %s", at)
	}
	z.turn.begin(begun.Add(100*time.Millisecond), Seed{})
	if at := z.turn.nextTurn().Sub(begun); at != 200*time.Millisecond {
		t.Errorf("after a turn before it, it is after %s", at)
	}
	z.turn.begin(begun.Add(200*time.Millisecond), Seed{})
	if at := z.turn.nextTurn().Sub(begun); at != time.Second || z.IsDue() {
		t.Errorf("after it, the next one is after %s; the deadlines are due: %v", at, z.IsDue())
	}
	z.turn.nextBy(begun.Add(2 * time.Second))
	if at := z.turn.nextTurn().Sub(begun); at != time.Second {
		t.Errorf("deadlines are looked at after %s", at)
	}
}
