package calendar_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/resourcemanager/calendar"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

func at(t *testing.T, zone, text string) time.Time {
	t.Helper()
	location, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	when, err := time.ParseInLocation("2006-01-02 15:04", text, location)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

func TestWindowsFollowTheClockOfTheirZone(t *testing.T) {
	for _, c := range []struct {
		name, cron, zone, from, to string
		duration                   time.Duration
		want                       []string
	}{
		{"over midnight", "0 22 * * *", "Asia/Shanghai", "2026-03-01 12:00", "2026-03-03 12:00", 9 * time.Hour, []string{"2026-03-01 22:00", "2026-03-02 07:00", "2026-03-02 22:00", "2026-03-03 07:00"}},
		{"one that is open already", "0 22 * * *", "UTC", "2026-03-02 03:00", "2026-03-02 12:00", 9 * time.Hour, []string{"2026-03-01 22:00", "2026-03-02 07:00"}},
		{"clocks go forward", "0 22 * * *", "Europe/Berlin", "2026-03-28 12:00", "2026-03-29 12:00", 9 * time.Hour, []string{"2026-03-28 22:00", "2026-03-29 07:00"}},
		{"clocks go back", "0 22 * * *", "Europe/Berlin", "2026-10-24 12:00", "2026-10-25 12:00", 9 * time.Hour, []string{"2026-10-24 22:00", "2026-10-25 07:00"}},
		{"weekdays only", "30 20 * * 1-5", "UTC", "2026-01-02 00:00", "2026-01-06 00:00", time.Hour, []string{"2026-01-02 20:30", "2026-01-02 21:30", "2026-01-05 20:30", "2026-01-05 21:30"}},
		{"windows that touch are one", "0 9-11 * * *", "UTC", "2026-01-01 09:30", "2026-01-01 09:40", time.Hour, []string{"2026-01-01 09:00", "2026-01-01 12:00"}},
		{"windows that always follow each other", "0 * * * *", "UTC", "2026-01-01 00:30", "2026-01-01 02:30", time.Hour, []string{"2026-01-01 00:00", "9999-01-01 00:00"}},
		{"none", "0 22 1 1 *", "UTC", "2026-03-01 00:00", "2026-04-01 00:00", time.Hour, nil},
	} {
		w := calendar.Window{Cron: c.cron, Duration: c.duration, Timezone: c.zone}
		got, err := w.Between(at(t, c.zone, c.from), at(t, c.zone, c.to))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if len(got) != len(c.want)/2 {
			t.Errorf("%s: got %v", c.name, got)
			continue
		}
		for i, w := range got {
			if !w.Open.Equal(at(t, c.zone, c.want[2*i])) || !w.Close.Equal(at(t, c.zone, c.want[2*i+1])) {
				t.Errorf("%s: window %d is %v, want %s to %s", c.name, i, w, c.want[2*i], c.want[2*i+1])
			}
		}
	}
}

func TestThereIsAlwaysAWindowToComeAndNeverALongList(t *testing.T) {
	now := at(t, "UTC", "2026-01-05 12:00")
	for _, c := range []struct {
		cron           string
		duration       time.Duration
		windows        int
		opens, lastOne string
	}{
		{"0 22 * * *", 9 * time.Hour, 1, "2026-01-05 22:00", "2026-01-05 22:00"},
		{"0 0 29 2 *", time.Hour, 1, "2028-02-29 00:00", "2028-02-29 00:00"},
		{"*/2 * * * *", time.Minute, 16, "2026-01-05 12:00", "2026-01-05 12:30"},
		{"* * * 1-11 *", time.Hour, 2, "2026-01-05 08:01", "2027-01-01 00:00"},
	} {
		got, err := calendar.Window{Cron: c.cron, Duration: c.duration}.Ahead(now)
		if err != nil || len(got) != c.windows || !got[len(got)-1].Open.Equal(at(t, "UTC", c.lastOne)) || !got[0].Open.Equal(at(t, "UTC", c.opens)) {
			t.Errorf("%s for %s: %v, %v", c.cron, c.duration, got, err)
		}
	}
}

func TestTheNightWithTheMissingHourIsShorter(t *testing.T) {
	w := calendar.Window{Cron: "0 22 * * *", Duration: 9 * time.Hour, Timezone: "Europe/Berlin"}
	got, err := w.Between(at(t, "Europe/Berlin", "2026-03-28 12:00"), at(t, "Europe/Berlin", "2026-03-29 12:00"))
	if err != nil || len(got) != 1 || got[0].Close.Sub(got[0].Open) != 8*time.Hour {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestBadWindowsAreRefusedInOneSentence(t *testing.T) {
	for hint, w := range map[string]calendar.Window{
		"cron expression": {Cron: "often", Duration: time.Hour},
		"five fields":     {Cron: "0 0 22 * * *", Duration: time.Hour},
		"one minute":      {Cron: "0 22 * * *"},
		"time zone":       {Cron: "0 22 * * *", Duration: time.Hour, Timezone: "Mars/Olympus"},
		"no hour":         {Cron: "0 0-23,25 * * *", Duration: time.Hour},
	} {
		if err := w.Check(); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%+v: %v, want a hint with %q", w, err, hint)
		}
	}
}

func TestMergedWindowsAreInOrderAndApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var windows []scheduler.Window
		base := time.Unix(0, 0)
		for range rapid.IntRange(0, 8).Draw(t, "windows") {
			open := base.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "open")) * time.Minute)
			windows = append(windows, scheduler.Window{Open: open, Close: open.Add(time.Duration(rapid.IntRange(1, 30).Draw(t, "length")) * time.Minute)})
		}
		merged := calendar.Merge(windows)
		for i := 1; i < len(merged); i++ {
			if !merged[i].Open.After(merged[i-1].Close) {
				t.Fatalf("%v", merged)
			}
		}
		covers := func(all []scheduler.Window, at time.Time) bool {
			for _, w := range all {
				if !at.Before(w.Open) && at.Before(w.Close) {
					return true
				}
			}
			return false
		}
		for minute := range 140 {
			if when := base.Add(time.Duration(minute) * time.Minute); covers(windows, when) != covers(merged, when) {
				t.Fatalf("at minute %d: %v became %v", minute, windows, merged)
			}
		}
	})
}
