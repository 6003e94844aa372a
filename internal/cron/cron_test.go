package cron_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/cron"
)

const layout = "2006-01-02 15:04 MST"

func schedule(t *testing.T, expression, zone string) cron.Schedule {
	t.Helper()
	s, err := cron.Parse(expression, zone)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// moment reads a time on the clock of a zone; a reading that is there twice has its abbreviation behind it.
func moment(t *testing.T, zone, text string) time.Time {
	t.Helper()
	location, err := cron.Location(zone)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.ParseInLocation(layout, text, location)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestAChangeOfClocksNeitherLosesAnOrderNorGivesItTwice(t *testing.T) {
	for _, c := range []struct{ name, expression, zone, after, want string }{
		{"left out by the clocks", "30 2 * * *", "Europe/Berlin", "2026-03-28 12:00 CET", "2026-03-29 03:00 CEST, 2026-03-30 02:30 CEST, 2026-03-31 02:30 CEST"},
		{"left out several times", "*/20 * * * *", "Europe/Berlin", "2026-03-29 01:30 CET", "2026-03-29 01:40 CET, 2026-03-29 03:00 CEST, 2026-03-29 03:20 CEST"},
		{"at the very change", "0 3 * * *", "Europe/Berlin", "2026-03-28 12:00 CET", "2026-03-29 03:00 CEST, 2026-03-30 03:00 CEST, 2026-03-31 03:00 CEST"},
		{"there twice", "30 2 * * *", "Europe/Berlin", "2026-10-24 12:00 CEST", "2026-10-25 02:30 CEST, 2026-10-26 02:30 CET, 2026-10-27 02:30 CET"},
		{"seen from between both", "30 2 * * *", "Europe/Berlin", "2026-10-25 02:00 CET", "2026-10-26 02:30 CET, 2026-10-27 02:30 CET, 2026-10-28 02:30 CET"},
		{"every hour pauses for one", "0 * * * *", "Europe/Berlin", "2026-10-25 01:30 CEST", "2026-10-25 02:00 CEST, 2026-10-25 03:00 CET, 2026-10-25 04:00 CET"},
		{"half an hour", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00 +11", "2026-04-05 01:45 +11, 2026-04-06 01:45 +1030, 2026-04-07 01:45 +1030"},
		{"a day that is not there", "0 12 30 12 *", "Pacific/Apia", "2011-12-01 00:00 -10", "2011-12-31 00:00 +14, 2012-12-30 12:00 +14, 2013-12-30 12:00 +14"},
		{"no changes", "0 22 * * 1-5", "Asia/Shanghai", "2026-01-02 22:00 CST", "2026-01-05 22:00 CST, 2026-01-06 22:00 CST, 2026-01-07 22:00 CST"},
		{"a leap day", "0 0 29 2 *", "UTC", "2026-01-01 00:00 UTC", "2028-02-29 00:00 UTC, 2032-02-29 00:00 UTC, 2036-02-29 00:00 UTC"},
	} {
		s := schedule(t, c.expression, c.zone)
		at := moment(t, c.zone, c.after)
		var got []string
		for range 3 {
			next, ok := s.Next(at)
			if !ok {
				break
			}
			if last, ok := s.Last(next); !ok || !last.Equal(next) {
				t.Errorf("%s: at %v it came true last at %v", c.name, next, last)
			}
			got = append(got, next.Format(layout))
			at = next
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, strings.Join(got, ", "), c.want)
		}
	}
}

func TestWhatCameTrueLast(t *testing.T) {
	for _, c := range []struct{ expression, zone, until, want string }{
		{"0 22 * * *", "UTC", "2026-01-01 22:00 UTC", "2026-01-01 22:00 UTC"},
		{"0 22 * * *", "UTC", "2026-01-01 21:59 UTC", "2025-12-31 22:00 UTC"},
		{"30 2 * * *", "Europe/Berlin", "2026-03-29 12:00 CEST", "2026-03-29 03:00 CEST"},
		{"30 2 * * *", "Europe/Berlin", "2026-03-29 01:59 CET", "2026-03-28 02:30 CET"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-25 02:00 CET", "2026-10-25 02:30 CEST"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-25 12:00 CET", "2026-10-25 02:30 CEST"},
	} {
		if got, ok := schedule(t, c.expression, c.zone).Last(moment(t, c.zone, c.until)); !ok || got.Format(layout) != c.want {
			t.Errorf("%s until %s: %v, want %s", c.expression, c.until, got, c.want)
		}
	}
}

func TestLaterIsReadFromTheClock(t *testing.T) {
	for _, c := range []struct {
		zone, from string
		d          time.Duration
		want       string
	}{
		{"Europe/Berlin", "2026-03-28 22:00 CET", 9 * time.Hour, "2026-03-29 07:00 CEST"},
		{"Europe/Berlin", "2026-10-24 22:00 CEST", 9 * time.Hour, "2026-10-25 07:00 CET"},
		{"Europe/Berlin", "2026-03-28 22:00 CET", 4*time.Hour + 30*time.Minute, "2026-03-29 03:00 CEST"},
		{"Europe/Berlin", "2026-10-24 22:00 CEST", 4*time.Hour + 30*time.Minute, "2026-10-25 02:30 CEST"},
	} {
		if got := cron.Later(moment(t, c.zone, c.from), c.d); got.Format(layout) != c.want {
			t.Errorf("%s and %s: %v, want %s", c.from, c.d, got, c.want)
		}
	}
}

func TestWhatIsNoScheduleIsRefusedInOneSentence(t *testing.T) {
	for hint, c := range map[string][2]string{
		"of five fields":   {"often", ""},
		"as in \"0 22":     {"0 0 22 * * *", ""},
		"never comes true": {"0 0 30 2 *", ""},
		"not a time zone":  {"0 22 * * *", "Mars/Olympus"},
		"\"Local\" is not": {"0 22 * * *", "Local"},
	} {
		if _, err := cron.Parse(c[0], c[1]); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%v: %v, want a hint with %s", c, err, hint)
		}
	}
}

// Next and Last tell the same story from both sides, in every zone and around every change of clocks.
func TestNothingLiesBetweenLastAndNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Shanghai", "Africa/Casablanca", "Pacific/Apia"}).Draw(t, "zone")
		expression := rapid.SampledFrom([]string{"* * * * *", "30 2 * * *", "*/17 1-3 * * *", "0 0 * * 0", "15,45 * * * *", "0 3 29 3 *"}).Draw(t, "expression")
		s, err := cron.Parse(expression, zone)
		if err != nil {
			t.Fatal(err)
		}
		location, _ := cron.Location(zone)
		day := time.Date(2026, time.Month(rapid.IntRange(1, 12).Draw(t, "month")), rapid.IntRange(1, 31).Draw(t, "day"), 0, 0, 0, 0, location)
		at := day.Add(time.Duration(rapid.IntRange(0, 8*3600).Draw(t, "second")) * time.Second)
		last, ok1 := s.Last(at)
		next, ok2 := s.Next(at)
		if !ok1 || !ok2 || last.After(at) || !next.After(at) {
			t.Fatalf("at %v: last %v, next %v", at, last, next)
		}
		if again, _ := s.Next(last); !again.Equal(next) {
			t.Fatalf("at %v: next after the last, %v, is %v, not %v", at, last, again, next)
		}
		if again, _ := s.Last(next.Add(-time.Nanosecond)); !again.Equal(last) {
			t.Fatalf("at %v: last before the next, %v, is %v, not %v", at, next, again, last)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("0 22 * * *", "Asia/Shanghai")
	f.Add("*/5 0-3,7 L * 1#2", "")
	f.Fuzz(func(t *testing.T, expression, zone string) {
		s, err := cron.Parse(expression, zone)
		if err != nil {
			return
		}
		from := time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC)
		if next, ok := s.Next(from); ok && !next.After(from) {
			t.Errorf("%q in %q: next after %v is %v", expression, zone, from, next)
		}
	})
}
