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

// moment parses a local time of a zone; of two equal ones, the abbreviation after it says which.
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
		{"every hour goes by what passes", "0 * * * *", "Europe/Berlin", "2026-10-25 01:30 CEST", "2026-10-25 02:00 CEST, 2026-10-25 02:00 CET, 2026-10-25 03:00 CET"},
		{"every hour but one", "0 0-22 * * *", "Europe/Berlin", "2026-10-25 01:30 CEST", "2026-10-25 02:00 CEST, 2026-10-25 03:00 CET, 2026-10-25 04:00 CET"},
		{"every hour, the clocks half an hour back", "45 * * * *", "Australia/Lord_Howe", "2026-04-05 01:00 +11", "2026-04-05 01:45 +11, 2026-04-05 01:45 +1030, 2026-04-05 02:45 +1030"},
		{"every hour of a rare day", "0 * 29 2 *", "Europe/Berlin", "2026-10-25 01:30 CEST", "2028-02-29 00:00 CET, 2028-02-29 01:00 CET, 2028-02-29 02:00 CET"},
		{"midnight that is left out", "0 0 * * *", "Africa/Cairo", "2026-04-23 12:00 EET", "2026-04-24 01:00 EEST, 2026-04-25 00:00 EEST, 2026-04-26 00:00 EEST"},
		{"the clocks go back at midnight", "30 23 * * *", "Africa/Cairo", "2026-10-28 12:00 EEST", "2026-10-28 23:30 EEST, 2026-10-29 23:30 EEST, 2026-10-30 23:30 EET"},
		{"either of two days", "0 0 13 * FRI", "UTC", "2026-02-10 00:00 UTC", "2026-02-13 00:00 UTC, 2026-02-20 00:00 UTC, 2026-02-27 00:00 UTC"},
		{"both of two days", "0 0 */2 * MON", "UTC", "2026-02-10 00:00 UTC", "2026-02-23 00:00 UTC, 2026-03-09 00:00 UTC, 2026-03-23 00:00 UTC"},
		{"the last day and the last Friday", "0 12 L * 5L", "UTC", "2026-02-10 00:00 UTC", "2026-02-27 12:00 UTC, 2026-02-28 12:00 UTC, 2026-03-27 12:00 UTC"},
		{"the second Tuesday", "0 12 * * 2#2", "UTC", "2026-02-11 00:00 UTC", "2026-03-10 12:00 UTC, 2026-04-14 12:00 UTC, 2026-05-12 12:00 UTC"},
		{"Sunday by either number", "0 0 * * 7", "UTC", "2026-02-10 00:00 UTC", "2026-02-15 00:00 UTC, 2026-02-22 00:00 UTC, 2026-03-01 00:00 UTC"},
		{"names, steps and lists", "1-10/4,50/5 0 1 jan-MAR *", "UTC", "2026-01-01 00:09 UTC", "2026-01-01 00:50 UTC, 2026-01-01 00:55 UTC, 2026-02-01 00:01 UTC"},
		{"half an hour", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00 +11", "2026-04-05 01:45 +11, 2026-04-06 01:45 +1030, 2026-04-07 01:45 +1030"},
		{"a day that is not there", "0 12 30 12 *", "Pacific/Apia", "2011-12-01 00:00 -10", "2011-12-31 00:00 +14, 2012-12-30 12:00 +14, 2013-12-30 12:00 +14"},
		{"beyond what the database lists", "0 * * 12 *", "Europe/Berlin", "2040-12-31 22:30 CET", "2040-12-31 23:00 CET, 2041-12-01 00:00 CET, 2041-12-01 01:00 CET"},
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

func TestWhatIsNoScheduleIsRefusedInOneSentence(t *testing.T) {
	for _, c := range []struct{ expression, hint string }{
		{"often", "of five fields"},
		{"0 0 22 * * *", "as in \"0 22"},
		{"", "of five fields"},
		{"@daily", "of five fields"},
		{"0 0 30 2 *", "never fires"},
		// What is wrong may stand anywhere in a list.
		{"0 0-23,25 * * *", "\"25\" in \"0-23,25\" is no hour"},
		{"0 9-17-20 * * *", "is no hour"},
		{"0-59,75 * * * *", "is no minute"},
		{"75,0-59 * * * *", "is no minute"},
		{"0 0 1-31,32 * *", "is no day of the month"},
		{"0 0 0 * *", "is no day of the month"},
		{"0 0 * 1-12,13 *", "is no month"},
		{"0 0 * 0 *", "is no month"},
		{"0 22 * * 0-6,8", "is no day of the week"},
		{"0 22 * * 5-8", "is no day of the week"},
		{"0 22 * * FRI-MON", "comes before"},
		{"0,,5 * * * *", "is no minute"},
		{"0, * * * *", "is no minute"},
		{"*,*/0 * * * *", "\"0\" is no step"},
		{"*/60 * * * *", "goes beyond it"},
		{"*/ * * * *", "is no step"},
		{"*/5/5 * * * *", "is no step"},
		{"-5 * * * *", "is no minute"},
		{"+5 * * * *", "is no minute"},
		{"5- * * * *", "is no minute"},
		{"10-5 * * * *", "comes before"},
		{"*-5 * * * *", "is no minute"},
		{"*5 * * * *", "is no minute"},
		{"0x1 * * * *", "is no minute"},
		{"007 * * * *", "is no minute"},
		{"? * * * *", "is no minute"},
		{"0 0 15W * *", "is no day of the month"},
		{"0 0 * * 1#6", "is no day of the week"},
		{"0 0 * * 1#", "is no day of the week"},
		{"0 0 * * 9L", "is no day of the week"},
		{"0 0 * jan-foo *", "is no month"},
		{"٣ * * * *", "is no minute"},
		{"0 * * * *" + strings.Repeat(" ", 300), "at most 256 characters"},
	} {
		if err := cron.Check(c.expression); err == nil || !strings.Contains(err.Error(), c.hint) {
			t.Errorf("%s: %v, want a hint with %s", c.expression, err, c.hint)
		}
	}
}

func TestOnlyZonesThatMeanTheSameEverywhereCount(t *testing.T) {
	for _, name := range []string{
		"Mars/Olympus", "Local", "localtime", "posixrules", "posix/Europe/Berlin", "right/Europe/Berlin", "Factory", "europe/berlin",
		" ", "/Europe/Berlin", "../Europe/Berlin", "Europe/../UTC", "Europe", "tzdata.zi", "zone.tab", "+VERSION", "Europe/Berlin/", strings.Repeat("A", 9999),
	} {
		if _, err := cron.Location(name); err == nil || !strings.Contains(err.Error(), "is not a time zone") || len(err.Error()) > 200 {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "America/Port-au-Prince", "EST5EDT", "NZ-CHAT", "Antarctica/Troll", "GMT"} {
		if _, err := cron.Location(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := cron.Parse("0 22 * * *", ""); err != nil {
		t.Errorf("no zone is UTC: %v", err)
	}
	if _, err := cron.Parse("0 22 * * *", "localtime"); err == nil {
		t.Error("localtime was taken")
	}
}

// Next and Last tell the same story from both sides, in every zone and around every change of clocks.
func TestNothingLiesBetweenLastAndNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Shanghai", "Africa/Casablanca", "Pacific/Apia", "Africa/Cairo", "Antarctica/Troll"}).Draw(t, "zone")
		expression := rapid.SampledFrom([]string{"* * * * *", "30 2 * * *", "*/17 1-3 * * *", "0 0 * * 0", "15,45 * * * *", "0 3 29 3 *", "*/20 * 25 10 *", "0 * L * 5#2"}).Draw(t, "expression")
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
