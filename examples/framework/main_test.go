package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/appmaster/mastertest"
)

// The ring has all of its workers again after one has ended, and the next attempt of the master keeps those that there are.
func TestTheRingIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := mastertest.NewZone(t, "ring")
		for _, name := range []string{"node-1", "node-2"} {
			zone.AddNode(name, 10)
		}
		attempt := func() <-chan error {
			ended, config := make(chan error, 1), zone.Master()
			go func() { ended <- keep(t.Context(), config, 3) }()
			<-time.After(5 * time.Second)
			return ended
		}
		first := attempt()
		before := zone.Registry()
		if len(before) != 3 || zone.Starts() != 3 {
			t.Fatalf("the ring is %v after %d starts", before, zone.Starts())
		}
		zone.Kill(before["ring-2"])
		<-time.After(5 * time.Second)
		after := zone.Registry()
		if len(after) != 3 || after["ring-2"] == before["ring-2"] || after["ring-1"] != before["ring-1"] || zone.Starts() != 4 {
			t.Errorf("the ring was %v and is %v after %d starts", before, after, zone.Starts())
		}
		second := attempt()
		if err := <-first; !errors.Is(err, appmaster.ErrSuperseded) {
			t.Errorf("the first attempt ended with %v", err)
		}
		if now := zone.Registry(); len(now) != 3 || zone.Starts() != 4 || now["ring-1"] != before["ring-1"] {
			t.Errorf("for the second attempt the ring is %v after %d starts", now, zone.Starts())
		}
		zone.Master()
		<-second
		for _, violation := range zone.Violations() {
			t.Error(violation)
		}
	})
}
