// Package cron reads the five-field cron expressions that people write, on the clock of a time zone.
//
// What counts is what the clock on the wall reads, and each reading comes true once. When the clocks go forward, the
// readings that are left out come true at that moment: "30 2 * * *" at 03:00 that night. When they go back, a reading that
// is there twice comes true the first time. So a change of clocks neither loses an order nor gives it twice, and what comes every
// hour pauses for one hour in autumn.
package cron

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // zones are named by people, and a host may have no database of them

	"github.com/adhocore/gronx"
)

// Schedule is an expression on the clock of a time zone.
type Schedule struct {
	expression string
	location   *time.Location
}

// Parse reads an expression such as "0 22 * * *" and a name of the time zone database; empty is UTC. Errors are sentences.
func Parse(expression, timezone string) (Schedule, error) {
	location, err := Location(timezone)
	if err != nil {
		return Schedule{}, err
	}
	return Schedule{expression, location}, Check(expression)
}

// Check says in one sentence why an expression is none, or never comes true.
func Check(expression string) error {
	fields := strings.Fields(expression)
	if len(fields) == 5 {
		for i, what := range []string{"minute", "hour", "day of the month", "month", "day of the week"} {
			alone := []string{"*", "*", "*", "*", "*"}
			alone[i] = fields[i]
			if !gronx.IsValid(strings.Join(alone, " ")) {
				return fmt.Errorf("%q is not a cron expression, as in \"0 22 * * *\": %q is no %s", expression, fields[i], what)
			}
		}
	}
	if len(fields) != 5 || !gronx.IsValid(expression) {
		return fmt.Errorf("%q is not a cron expression of five fields, as in \"0 22 * * *\"", expression)
	}
	// Whether it ever comes true does not depend on when one begins to look; a leap day follows this.
	if _, err := gronx.NextTickAfter(expression, time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), false); err != nil {
		return fmt.Errorf("the cron expression %q never comes true", expression)
	}
	return nil
}

// Location finds a time zone by its name in the database; empty is UTC. "Local" is none: it would be another one on each host.
func Location(timezone string) (*time.Location, error) {
	location, err := time.LoadLocation(timezone)
	if err != nil || timezone == "Local" {
		return nil, fmt.Errorf("%q is not a time zone, as in Asia/Shanghai", timezone)
	}
	return location, nil
}

// Next is when the expression comes true next after a moment; false if that is too far ahead to be found, some years.
func (s Schedule) Next(after time.Time) (time.Time, bool) {
	for read := reading(after, s.location).Truncate(time.Minute); ; {
		tick, err := gronx.NextTickAfter(s.expression, read, false)
		if err != nil || !tick.After(read) {
			return time.Time{}, false
		}
		// In a second pass over the same readings, those of the first are over.
		if at := first(tick, s.location); at.After(after) {
			return at, true
		}
		read = tick
	}
}

// Last is when the expression came true last, up to and with a moment; false if that is too long ago to be found.
func (s Schedule) Last(until time.Time) (time.Time, bool) {
	furthest := reading(until, s.location)
	if began, _ := until.In(s.location).ZoneBounds(); !began.IsZero() {
		if before := reading(began.Add(-time.Nanosecond), s.location); before.After(furthest) {
			furthest = before // the clocks went back, and were further on already
		}
	}
	tick, err := gronx.PrevTickBefore(s.expression, furthest.Truncate(time.Minute), true)
	if err != nil {
		return time.Time{}, false
	}
	return first(tick, s.location), true
}

// Later is when the clock of t's zone reads so much more than at t: nine hours from 22:00 end at 07:00, also in the night in
// which the clocks change.
func Later(t time.Time, d time.Duration) time.Time {
	return first(reading(t, t.Location()).Add(d), t.Location())
}

// reading is what the clock reads, as a time of a zone whose clocks never change.
func reading(t time.Time, location *time.Location) time.Time {
	t = t.In(location)
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// first is the first moment at which the clock reads no less than a reading.
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
