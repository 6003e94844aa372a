package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/appmaster/mastertest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// The ring has all of its workers again after one has ended, and the next attempt of the master keeps those that there are.
func TestTheRingIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := mastertest.NewZone(t, "ring")
		for _, name := range []string{"node-1", "node-2"} {
			zone.AddNode(name, 10)
		}
		want := func(workers float64) {
			zone.SetDesired(func(desired *masterv1.DesiredState) {
				desired.Spec.Options = &structpb.Struct{Fields: map[string]*structpb.Value{
					"workers": structpb.NewNumberValue(workers),
					"command": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue("worker")}}),
				}}
			})
			<-time.After(5 * time.Second)
		}
		want(3)
		attempt := func() <-chan error {
			ended, config := make(chan error, 1), zone.Master()
			go func() { ended <- keep(t.Context(), config) }()
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
		want(5)
		if now := zone.Registry(); len(now) != 5 || zone.Starts() != 6 || zone.Status().GetState() != apiv1.MasterStatus_DONE {
			t.Errorf("of 5 workers the ring is %v after %d starts: %v", now, zone.Starts(), zone.Status())
		}
		want(2)
		if now := zone.Registry(); len(now) != 2 || now["ring-1"] != before["ring-1"] || zone.Status().GetText() != "2 of 2 workers are in the ring" {
			t.Errorf("of 2 workers the ring is %v: %v", now, zone.Status())
		}
		zone.SetDesired(func(desired *masterv1.DesiredState) { desired.Stopped = true })
		if err := <-second; err != nil {
			t.Error(err)
		}
		for _, violation := range zone.Violations() {
			t.Error(violation)
		}
	})
}
