// Package cron reads the five-field cron expressions that people write, on the clock of a time zone.
//
// An expression is about the local time of its zone, which the code calls the wall time. An expression that names hours fires once
// for each matching wall time. When clocks go forward, it fires at that moment for the wall times that are skipped ("30 2 * * *"
// fires at 03:00 that night). When clocks go back, it fires for the first of two equal wall times. So a change of clocks neither
// drops an event nor repeats it. An expression that matches every hour goes by elapsed time instead: it fires in both of two equal
// hours, and not in a skipped one.
//
// It is pure and has no state: an expression and a time go in, the next time comes out.
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
		return c, fmt.Errorf("the cron expression %q never fires", expression)
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

// tick is when the expression fires next after a moment, and the matching wall time, which a change of clocks may have skipped.
func (s Schedule) tick(after time.Time) (at, wall time.Time, ok bool) {
	if s.calendar.isHourly() {
		return s.hourlyTick(after)
	}
	for wall = wallTime(after, s.location); ; {
		if wall, ok = s.calendar.next(wall); !ok {
			return time.Time{}, wall, false
		}
		// After the clocks went back, the same wall times come again. They have fired already.
		if at = first(wall, s.location); !at.After(after) {
			continue
		}
		// Several skipped wall times fire at one moment. Return the latest of them.
		for passed := !wallTime(at, s.location).Equal(wall); passed; {
			next, more := s.calendar.next(wall)
			if passed = more && first(next, s.location).Equal(at); passed {
				wall = next
			}
		}
		return at, wall, true
	}
}

// hourlyTick is tick for an expression that matches every hour. Between two changes of clocks each wall time is one moment.
func (s Schedule) hourlyTick(after time.Time) (at, wall time.Time, ok bool) {
	at = after.In(s.location)
	for wall = wallTime(at, s.location); ; {
		_, offset := at.Zone()
		ends := zoneEnds(at)
		if wall, ok = s.calendar.next(wall); !ok {
			return time.Time{}, wall, false
		}
		found := wall.Add(-time.Duration(offset) * time.Second).In(s.location)
		if ends.IsZero() || found.Before(ends) {
			return found, wall, true
		}
		// The clocks change before. Where that is years before, the changes between do not matter.
		if near := found.Add(-2 * dayLong); near.After(ends) {
			at = near
			wall = wallTime(at, s.location)
			continue
		}
		at = ends
		wall = wallTime(ends, s.location).Add(-time.Nanosecond)
	}
}

// Last is when the expression fired last, up to and with a moment; false if that is too long ago to be found.
func (s Schedule) Last(until time.Time) (time.Time, bool) {
	if s.calendar.isHourly() {
		return s.lastHourly(until)
	}
	furthest := wallTime(until, s.location)
	if began, _ := until.In(s.location).ZoneBounds(); !began.IsZero() {
		if before := wallTime(began.Add(-time.Nanosecond), s.location); before.After(furthest) {
			furthest = before // the clocks went back; this later wall time has passed already
		}
	}
	wall, ok := s.calendar.last(furthest)
	if !ok {
		return time.Time{}, false
	}
	return first(wall, s.location), true
}

func (s Schedule) lastHourly(until time.Time) (time.Time, bool) {
	for at := until.In(s.location); ; {
		_, offset := at.Zone()
		began, _ := at.ZoneBounds()
		wall, ok := s.calendar.last(wallTime(at, s.location))
		if !ok {
			return time.Time{}, false
		}
		found := wall.Add(-time.Duration(offset) * time.Second).In(s.location)
		if began.IsZero() || !found.Before(began) {
			return found, true
		}
		if at = began.Add(-time.Nanosecond); found.Add(2 * dayLong).Before(at) {
			at = found.Add(2 * dayLong)
		}
	}
}

// zoneEnds is until when the offset of a moment certainly holds; zero is for ever. After the last change in the database the
// library ends each zone with the year, and in a leap year a day too early.
func zoneEnds(at time.Time) time.Time {
	_, ends := at.ZoneBounds()
	if !ends.IsZero() && !ends.After(at) {
		return at.Add(time.Hour)
	}
	return ends
}

// wallTime is the local time at a moment, expressed in UTC so that it can be computed with.
func wallTime(t time.Time, location *time.Location) time.Time {
	t = t.In(location)
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// first is the first moment at which the local time is wall or later.
func first(wall time.Time, location *time.Location) time.Time {
	near := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), wall.Nanosecond(), location)
	began, ends := near.ZoneBounds()
	found := time.Time{}
	for _, zone := range []time.Time{near, began.Add(-time.Nanosecond), ends} {
		_, offset := zone.Zone()
		at := wall.Add(-time.Duration(offset) * time.Second).In(location)
		if wallTime(at, location).Equal(wall) && (found.IsZero() || at.Before(found)) {
			found = at
		}
	}
	if !found.IsZero() {
		return found
	}
	// A change of clocks skips it, at the beginning or the end of this offset.
	if !began.IsZero() && !wallTime(began, location).Before(wall) && wallTime(began.Add(-time.Nanosecond), location).Before(wall) {
		return began.In(location)
	}
	return ends.In(location)
}
