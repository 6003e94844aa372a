package cron_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/cron"
)

// spans writes those of a time in UTC: "04-23 22:00 to 04-24 03:00".
func spans(t *testing.T, s cron.Schedule, lasts time.Duration, from, to string) []string {
	t.Helper()
	const layout = "01-02 15:04"
	first, err1 := time.Parse("2006-"+layout, "2026-"+from)
	last, err2 := time.Parse("2006-"+layout, "2026-"+to)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	var all []string
	for span := range s.Spans(first, lasts) {
		if !span.Open.Before(last) {
			break
		}
		if span.Close.Equal(cron.Forever()) {
			all = append(all, "for ever")
			break
		}
		all = append(all, span.Open.UTC().Format(layout)+" to "+span.Close.UTC().Format(layout))
	}
	return all
}

// A span closes at its usual wall time, whatever the clocks do in between. Expressions that match every hour go by elapsed time.
func TestSpansOverChangesOfClocks(t *testing.T) {
	for _, c := range []struct {
		zone, expression string
		lasts            time.Duration
		from, to, want   string
	}{
		{"Africa/Cairo", "0 0 * * *", 6 * time.Hour, "04-22 12:00", "04-25 12:00", "04-22 22:00 to 04-23 04:00, 04-23 22:00 to 04-24 03:00, 04-24 21:00 to 04-25 03:00"},
		{"Asia/Beirut", "0 0 * * *", 6 * time.Hour, "03-28 12:00", "03-29 12:00", "03-28 22:00 to 03-29 03:00"},
		{"Antarctica/Troll", "30 1 * * *", 4 * time.Hour, "03-28 12:00", "03-30 12:00", "03-29 01:00 to 03-29 03:30, 03-29 23:30 to 03-30 03:30"},
		{"Australia/Lord_Howe", "45 1 * * *", 3 * time.Hour, "04-04 12:00", "04-05 20:00", "04-04 14:45 to 04-04 18:15, 04-05 15:15 to 04-05 18:15"},
		{"Africa/Cairo", "0 0 * * *", 6 * time.Hour, "10-29 12:00", "10-30 12:00", "10-29 22:00 to 10-30 04:00"},
		{"Africa/Cairo", "30 23 * * *", time.Hour, "10-29 12:00", "10-30 12:00", "10-29 20:30 to 10-29 22:30"},
		{"America/Santiago", "0 0 * * *", 6 * time.Hour, "09-05 12:00", "09-06 12:00", "09-06 04:00 to 09-06 09:00"},
		{"America/Havana", "0 0 * * *", 6 * time.Hour, "03-07 12:00", "03-08 12:00", "03-08 05:00 to 03-08 10:00"},
		{"Atlantic/Azores", "0 0 * * *", 6 * time.Hour, "03-28 12:00", "03-29 12:00", "03-29 01:00 to 03-29 06:00"},
		{"Europe/Berlin", "30 2 * * *", 4 * time.Hour, "03-28 12:00", "03-29 12:00", "03-29 01:00 to 03-29 04:30"},
		{"Europe/Berlin", "30 2 * * *", 15 * time.Minute, "03-28 12:00", "03-30 12:00", "03-30 00:30 to 03-30 00:45"},
		{"Europe/Berlin", "0 22 * * *", 9 * time.Hour, "03-28 12:00", "03-29 12:00", "03-28 21:00 to 03-29 05:00"},
		{"Europe/Berlin", "0 22 * * *", 9 * time.Hour, "10-24 12:00", "10-25 12:00", "10-24 20:00 to 10-25 06:00"},
		{"Europe/Berlin", "0 22 * * *", 4*time.Hour + 30*time.Minute, "03-28 12:00", "03-29 12:00", "03-28 21:00 to 03-29 01:00"},
		{"Europe/Berlin", "0 22 * * *", 4*time.Hour + 30*time.Minute, "10-24 12:00", "10-25 12:00", "10-24 20:00 to 10-25 00:30"},
		{"Europe/Berlin", "30 2 * * *", 45 * time.Minute, "10-24 12:00", "10-25 12:00", "10-25 00:30 to 10-25 02:15"},
		{"Europe/Berlin", "*/15 * * * *", 10 * time.Minute, "10-25 00:30", "10-25 01:45", "10-25 00:30 to 10-25 00:40, 10-25 00:45 to 10-25 00:55, 10-25 01:00 to 10-25 01:10, 10-25 01:15 to 10-25 01:25, 10-25 01:30 to 10-25 01:40"},
		{"Europe/Berlin", "*/15 * * * *", 10 * time.Minute, "03-29 00:30", "03-29 01:30", "03-29 00:30 to 03-29 00:40, 03-29 00:45 to 03-29 00:55, 03-29 01:00 to 03-29 01:10, 03-29 01:15 to 03-29 01:25"},
		{"America/New_York", "50 * * * *", 15 * time.Minute, "11-01 05:30", "11-01 07:30", "11-01 05:50 to 11-01 06:05, 11-01 06:50 to 11-01 07:05"},
		{"America/New_York", "0 1 * * *", time.Hour, "10-31 12:00", "11-01 12:00", "11-01 05:00 to 11-01 07:00"},
		{"Asia/Shanghai", "0 22 * * *", 9 * time.Hour, "03-01 12:00", "03-02 12:00", "03-01 14:00 to 03-01 23:00"},
	} {
		got := strings.Join(spans(t, schedule(t, c.expression, c.zone), c.lasts, c.from, c.to), ", ")
		if got != c.want {
			t.Errorf("%s in %s for %s:\ngot  %s\nwant %s", c.expression, c.zone, c.lasts, got, c.want)
		}
	}
}

func TestSpansThatTouchAreOne(t *testing.T) {
	for _, c := range []struct {
		zone, expression string
		lasts            time.Duration
		from, to, want   string
	}{
		{"UTC", "* * * * *", time.Hour, "01-01 00:00", "02-01 00:00", "for ever"},
		{"UTC", "* * * * *", time.Minute, "01-01 00:00", "02-01 00:00", "for ever"},
		{"Europe/Berlin", "*/10 * * * *", time.Hour, "01-01 00:00", "02-01 00:00", "for ever"},
		{"UTC", "0 * * * *", time.Hour, "01-01 00:30", "02-01 00:00", "for ever"},
		{"UTC", "0 0 * * *", 24 * time.Hour, "01-01 00:30", "02-01 00:00", "for ever"},
		{"Europe/Berlin", "0 0 * * *", 24 * time.Hour, "01-01 00:30", "02-01 00:00", "for ever"},
		{"UTC", "0 0 1 * *", 31 * 24 * time.Hour, "01-01 00:30", "02-01 00:00", "for ever"},
		{"UTC", "0 0 * * 1-5", 72 * time.Hour, "01-01 00:30", "02-01 00:00", "for ever"},
		{"UTC", "0 0 * * 1-5", 71 * time.Hour, "01-05 00:00", "01-13 00:00", "01-05 00:00 to 01-11 23:00, 01-12 00:00 to 01-18 23:00"},
		{"UTC", "* 8-18 * * *", time.Minute, "01-05 07:00", "01-06 12:00", "01-05 08:00 to 01-05 19:00, 01-06 08:00 to 01-06 19:00"},
		{"UTC", "*/10 8-11,13-18 * * *", 10 * time.Minute, "01-05 09:00", "01-05 20:00", "01-05 08:00 to 01-05 12:00, 01-05 13:00 to 01-05 19:00"},
		{"UTC", "*/15 * * * *", 10 * time.Minute, "01-05 00:00", "01-05 00:30", "01-05 00:00 to 01-05 00:10, 01-05 00:15 to 01-05 00:25"},
		{"UTC", "* * * 2-12 *", time.Hour, "01-05 00:00", "02-05 00:30", "02-01 00:00 to 01-01 00:59"},
		{"UTC", "0 0 1,15,29 * *", 14 * 24 * time.Hour, "01-05 00:00", "03-05 00:30", "for ever"},
		{"UTC", "0 0 1,16,29 * *", 14 * 24 * time.Hour, "01-05 00:00", "02-05 00:30", "12-29 00:00 to 01-15 00:00, 01-16 00:00 to 02-15 00:00"},
	} {
		got := strings.Join(spans(t, schedule(t, c.expression, c.zone), c.lasts, c.from, c.to), ", ")
		if got != c.want {
			t.Errorf("%s in %s for %s:\ngot  %s\nwant %s", c.expression, c.zone, c.lasts, got, c.want)
		}
	}
}

// The spans are equal to those computed from every single time at which the expression fires.
func TestSpansAreThoseOfEachTimeTakenTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "Africa/Cairo", "Antarctica/Troll", "America/New_York"}).Draw(t, "zone")
		expression := rapid.SampledFrom([]string{"*/7 * * * *", "0,10,40 * * * *", "*/20 1-3 * * *", "5 */5 * * *", "0 0 * * 1-3", "30 1,2 * * *", "*/9 8-12 * * 6,0", "0 * * * 1", "0,50 0,2 * * *"}).Draw(t, "expression")
		lasts := time.Duration(rapid.IntRange(1, 180).Draw(t, "minutes")) * time.Minute
		s, err := cron.Parse(expression, zone)
		if err != nil {
			t.Fatal(err)
		}
		location, _ := cron.Location(zone)
		// About the changes of clocks of 2026 in these zones.
		day := rapid.SampledFrom([]string{"2026-03-07", "2026-03-28", "2026-04-23", "2026-10-24", "2026-10-29", "2026-10-31", "2026-07-01"}).Draw(t, "day")
		from, _ := time.ParseInLocation(time.DateOnly, day, location)
		from = from.Add(time.Duration(rapid.IntRange(0, 24*60).Draw(t, "at")) * time.Minute)
		until := from.Add(48 * time.Hour)
		var got, want []cron.Span
		for span := range s.Spans(from, lasts) {
			if !span.Open.Before(until) {
				break
			}
			got = append(got, span)
		}
		hourly := strings.Fields(expression)[1] == "*"
		for at, ok := s.Next(from.Add(-lasts - 3*time.Hour)); ok && at.Before(until.Add(96*time.Hour)); at, ok = s.Next(at) {
			closes := at.Add(lasts)
			if !hourly {
				closes = usual(expression, at, lasts, location)
			}
			if last := len(want) - 1; last >= 0 && !at.After(want[last].Close) {
				if closes.After(want[last].Close) {
					want[last].Close = closes
				}
				continue
			}
			want = append(want, cron.Span{Open: at, Close: closes})
		}
		want = slices.DeleteFunc(want, func(span cron.Span) bool {
			return !span.Close.After(from) || !span.Open.Before(until) || !span.Close.After(span.Open)
		})
		if len(got) == 1 && got[0].Close.Equal(cron.Forever()) {
			if len(want) != 1 || want[0].Open.After(from) {
				t.Fatalf("for ever, want %v", want)
			}
			return
		}
		if !slices.EqualFunc(got, want, func(x, y cron.Span) bool { return x.Open.Equal(y.Open) && x.Close.Equal(y.Close) }) {
			t.Fatalf("got  %v\nwant %v", got, want)
		}
	})
}

// usual is when a span that opens at a moment closes by local time: at that moment the latest of its wall times counts, including
// those that a change of clocks skips.
func usual(expression string, at time.Time, lasts time.Duration, location *time.Location) time.Time {
	wall := func(t time.Time) time.Time {
		_, offset := t.In(location).Zone()
		return t.UTC().Add(time.Duration(offset) * time.Second)
	}
	read := wall(at)
	if before := wall(at.Add(-time.Nanosecond)); read.Sub(before) > time.Second {
		// A change of clocks skips wall times here; the expression in UTC has them.
		s, err := cron.Parse(expression, "UTC")
		if last, ok := s.Last(read); err == nil && ok && last.After(before) {
			read = last
		}
	}
	want := read.Add(lasts)
	// The first moment whose local time is not less.
	for minute := at.Truncate(time.Minute); ; minute = minute.Add(time.Minute) {
		if !wall(minute).Before(want) {
			return minute
		}
	}
}
