package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func TestTheNumberThatHoldsIsToldWithWhoSaidIt(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 11, 30, 7, 0, 0, 0, time.UTC))
	when := moment(at)
	for _, c := range []struct {
		held *apiv1.Schedule
		want []string
	}{
		{&apiv1.Schedule{Instances: 3, SpecInstances: 3, Until: at, Then: 1}, []string{"3 instances until " + when + ", when the calendar sets 1"}},
		{&apiv1.Schedule{Instances: 1, SpecInstances: 2, ByCalendar: true, Until: at, Then: 3}, []string{"1 instance by the calendar until " + when + ", then 3 (2 without it)"}},
		{&apiv1.Schedule{Role: "front", Instances: 3, SpecInstances: 3, ByCalendar: true, Until: at, Then: 1}, []string{"3 instances of front by the calendar until " + when + ", then 1"}},
		{&apiv1.Schedule{Instances: 1, SpecInstances: 2, ByCalendar: true}, []string{"1 instance by the calendar (2 without it)"}},
		{&apiv1.Schedule{Instances: 2, SpecInstances: 2}, nil},
	} {
		if got := calendarNotes(&apiv1.App{Schedules: []*apiv1.Schedule{c.held}}); !slices.Equal(got, c.want) {
			t.Errorf("%v is told as %q, want %q", c.held, got, c.want)
		}
	}
	app := &apiv1.App{
		Name: "web", State: apiv1.App_RUNNING, Wanted: 1, Running: 1, Instances: []*apiv1.Instance{{Id: "web-1", State: apiv1.Instance_RUNNING}}, Spec: &apiv1.AppSpec{Roles: []*apiv1.RoleSpec{{Instances: 2}}},
		Schedules: []*apiv1.Schedule{{Instances: 1, SpecInstances: 2, ByCalendar: true, Until: at, Then: 3}},
	}
	var out bytes.Buffer
	if err := appTable(&out, []*apiv1.App{app}); err != nil || !strings.Contains(out.String(), "1/1 (2 without the calendar)") {
		t.Errorf("app ls: %q, %v", out.String(), err)
	}
	// Whoever waits is done when the number that holds runs.
	if done, err := scaled(change{app: app}, app); !done || err != nil {
		t.Errorf("done %v, error %v", done, err)
	}
}
