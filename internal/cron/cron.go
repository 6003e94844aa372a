// Package cron reads the five-field cron expressions that people write, on the clock of a time zone.
//
// An expression goes by the local time of its zone; the code calls a local time a reading. An expression that names hours comes
// true once for each of its readings. When clocks go forward, the readings that are skipped fire at that moment ("30 2 * * *"
// at 03:00 that night); when clocks go back, a reading that comes twice fires the first time. So a change of clocks neither
// drops an event nor repeats it. An expression with every hour goes by elapsed time: in an hour that comes twice it fires
// both times, and in one that is skipped not at all.
package cron

import (
	"fmt"
	"regexp"
	"time"
	_ "time/tzdata" // zones are named by people, and a host may have no database of them
)

// Schedule is an expression on the clock of a time zone.
type Schedule struct {
	calendar calendar
	location *time.Location
}

// Parse reads an expression such as "0 22 * * *" and a name of the time zone database; empty is UTC. Errors are sentences.
func Parse(expression, timezone string) (Schedule, error) {
	location, err := Location(timezone)
	if err != nil {
		return Schedule{}, err
	}
	c, err := read(expression)
	return Schedule{c, location}, err
}

// Check returns why an expression is invalid, or never fires, in one sentence.
func Check(expression string) error {
	_, err := read(expression)
	return err
}

func read(expression string) (calendar, error) {
	c, err := parse(expression)
	if err != nil {
		return c, err
	}
	// If it ever fires, it does so again after any date.
	if _, ok := c.next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)); !ok {
		return c, fmt.Errorf("the cron expression %q never comes true", expression)
	}
	return c, nil
}

// zoneName matches names of the database that mean the same on every host. Those that begin with a small letter may differ:
// localtime, posixrules, posix/Europe/Berlin, right/Europe/Berlin.
var zoneName = regexp.MustCompile(`^[A-Z][A-Za-z0-9+_-]{0,30}(/[A-Z][A-Za-z0-9+_-]{0,30}){0,2}$`)

// Location returns a time zone by its name in the database; empty is UTC. It refuses "Local", which differs between hosts,
// and "Factory", which means that no zone was set.
func Location(timezone string) (*time.Location, error) {
	if timezone == "" {
		return time.UTC, nil
	}
	if zoneName.MatchString(timezone) && timezone != "Local" && timezone != "Factory" {
		if location, err := time.LoadLocation(timezone); err == nil {
			return location, nil
		}
	}
	const most = 60
	if len(timezone) > most {
		timezone = timezone[:most] + "…"
	}
	return nil, fmt.Errorf("%q is not a time zone, as in Asia/Shanghai", timezone)
}

// Next is when the expression fires next after a moment; false if that is too far ahead to be found, some forty years.
func (s Schedule) Next(after time.Time) (time.Time, bool) {
	at, _, ok := s.tick(after)
	return at, ok
}

// tick is when the expression fires next after a moment, and its reading: the local time by the expression, also if the change
// of clocks skips it.
func (s Schedule) tick(after time.Time) (at, read time.Time, ok bool) {
	if s.calendar.isHourly() {
		return s.hourlyTick(after)
	}
	for read = reading(after, s.location); ; {
		if read, ok = s.calendar.next(read); !ok {
			return time.Time{}, read, false
		}
		// In a second pass over the same readings, those of the first are over.
		if at = first(read, s.location); !at.After(after) {
			continue
		}
		// Of readings that fire at one moment, because the clocks pass over them, the latest counts.
		for passed := !reading(at, s.location).Equal(read); passed; {
			next, more := s.calendar.next(read)
			if passed = more && first(next, s.location).Equal(at); passed {
				read = next
			}
		}
		return at, read, true
	}
}

// hourlyTick is tick for an expression with every hour. Between two changes of clocks each reading is one moment.
func (s Schedule) hourlyTick(after time.Time) (at, read time.Time, ok bool) {
	at = after.In(s.location)
	for read = reading(at, s.location); ; {
		_, offset := at.Zone()
		ends := zoneEnds(at)
		if read, ok = s.calendar.next(read); !ok {
			return time.Time{}, read, false
		}
		found := read.Add(-time.Duration(offset) * time.Second).In(s.location)
		if ends.IsZero() || found.Before(ends) {
			return found, read, true
		}
		// The clocks change before. Where that is years before, the changes between do not matter.
		if near := found.Add(-2 * dayLong); near.After(ends) {
			at = near
			read = reading(at, s.location)
			continue
		}
		at = ends
		read = reading(ends, s.location).Add(-time.Nanosecond)
	}
}

// Last is when the expression fired last, up to and with a moment; false if that is too long ago to be found.
func (s Schedule) Last(until time.Time) (time.Time, bool) {
	if s.calendar.isHourly() {
		return s.lastHourly(until)
	}
	furthest := reading(until, s.location)
	if began, _ := until.In(s.location).ZoneBounds(); !began.IsZero() {
		if before := reading(began.Add(-time.Nanosecond), s.location); before.After(furthest) {
			furthest = before // the clocks went back, and were further on already
		}
	}
	read, ok := s.calendar.last(furthest)
	if !ok {
		return time.Time{}, false
	}
	return first(read, s.location), true
}

func (s Schedule) lastHourly(until time.Time) (time.Time, bool) {
	for at := until.In(s.location); ; {
		_, offset := at.Zone()
		began, _ := at.ZoneBounds()
		read, ok := s.calendar.last(reading(at, s.location))
		if !ok {
			return time.Time{}, false
		}
		found := read.Add(-time.Duration(offset) * time.Second).In(s.location)
		if began.IsZero() || !found.Before(began) {
			return found, true
		}
		if at = began.Add(-time.Nanosecond); found.Add(2 * dayLong).Before(at) {
			at = found.Add(2 * dayLong)
		}
	}
}

// zoneEnds is the end of the time for which the offset at a moment certainly holds; zero is never. After the last change in the
// database the library ends each zone with the year, and in a leap year a day too early.
func zoneEnds(at time.Time) time.Time {
	_, ends := at.ZoneBounds()
	if !ends.IsZero() && !ends.After(at) {
		return at.Add(time.Hour)
	}
	return ends
}

// reading is what the clock reads, as a time of a zone whose clocks never change.
func reading(t time.Time, location *time.Location) time.Time {
	t = t.In(location)
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// first is the first moment at which the clock shows a reading or a later one.
func first(read time.Time, location *time.Location) time.Time {
	near := time.Date(read.Year(), read.Month(), read.Day(), read.Hour(), read.Minute(), read.Second(), read.Nanosecond(), location)
	began, ends := near.ZoneBounds()
	found := time.Time{}
	for _, zone := range []time.Time{near, began.Add(-time.Nanosecond), ends} {
		_, offset := zone.Zone()
		at := read.Add(-time.Duration(offset) * time.Second).In(location)
		if reading(at, location).Equal(read) && (found.IsZero() || at.Before(found)) {
			found = at
		}
	}
	if !found.IsZero() {
		return found
	}
	// The clocks pass over it, at the one end of the zone or at the other.
	if !began.IsZero() && !reading(began, location).Before(read) && reading(began.Add(-time.Nanosecond), location).Before(read) {
		return began.In(location)
	}
	return ends.In(location)
}
