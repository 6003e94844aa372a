package cron

import (
	"iter"
	"time"
)

// Span opens when an expression fires and closes a duration later. If the expression fires again before it closes, the
// duration starts anew.
type Span struct{ Open, Close time.Time }

// Forever is the Close of a span that never closes, because the expression always fires again before.
func Forever() time.Time { return time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }

// Spans returns the spans that close after a moment, in order. If the expression names hours, the duration lasts is a difference of
// local time: nine hours from 22:00 end at 07:00 in any night, and a span that opens late because its wall time is skipped closes
// at its usual time. If it has every hour, lasts is elapsed time. The cost does not depend on how often the expression fires.
func (s Schedule) Spans(after time.Time, lasts time.Duration) iter.Seq[Span] {
	p := spans{schedule: s, lasts: lasts, runs: s.calendar.runs(lasts)}
	return func(yield func(Span) bool) {
		if p.neverEnds(wallTime(after, s.location).Truncate(dayLong)) {
			if open, ok := s.Last(after); ok {
				yield(Span{open, Forever()})
			}
			return
		}
		// The clocks may change by some hours within a span.
		next, ok := p.next(after.Add(-lasts - 3*time.Hour))
		for ok {
			span := Span{next.open, next.closes}
			for {
				if next, ok = p.next(next.last); !ok || next.open.After(span.Close) {
					break
				}
				if next.closes.After(span.Close) {
					span.Close = next.closes
				}
			}
			if span.Close.After(after) && span.Close.After(span.Open) && !yield(span) {
				return
			}
		}
	}
}

// spans finds the spans of a schedule.
type spans struct {
	schedule Schedule
	lasts    time.Duration
	runs     []run
}

// run is a part of a day, from its first to its last firing in minutes since midnight, in which no gap between two firings is
// longer than lasts.
type run struct{ first, last int }

// runs are the runs of any day, in order.
func (c *calendar) runs(lasts time.Duration) []run {
	var all []run
	for minute := c.minuteFrom(0); minute >= 0 && minute < 24*60; minute = c.minuteFrom(minute + 1) {
		last := len(all) - 1
		if last < 0 || time.Duration(minute-all[last].last)*time.Minute > lasts {
			all = append(all, run{minute, minute})
			continue
		}
		all[last].last = minute
	}
	return all
}

// neverEnds reports whether a span that is open before a day never closes. It examines nine years, which contain every length of a
// month and of a year.
func (p *spans) neverEnds(day time.Time) bool {
	if len(p.runs) != 1 {
		return false
	}
	first, last := time.Duration(p.runs[0].first)*time.Minute, time.Duration(p.runs[0].last)*time.Minute
	c := &p.schedule.calendar
	before, ok := c.last(day.Add(-time.Minute))
	if !ok {
		return false
	}
	ends := before.Add(p.lasts)
	for covered := day.AddDate(9, 0, 0); day.Before(covered); day = day.Add(dayLong) {
		if !c.hasDay(day) {
			continue
		}
		if day.Add(first).After(ends) {
			return false
		}
		ends = day.Add(last + p.lasts)
	}
	return true
}

// stretch is a run on a certain day: when it opens, when the expression fires last in it, and when it closes.
type stretch struct{ open, last, closes time.Time }

// next is the first run, or the rest of a run, after a moment.
func (p *spans) next(after time.Time) (stretch, bool) {
	s := &p.schedule
	open, wall, ok := s.tick(after)
	if !ok {
		return stretch{}, false
	}
	day := wall.Truncate(dayLong)
	minute := int(wall.Sub(day) / time.Minute)
	for _, run := range p.runs {
		if minute <= run.last {
			minute = max(minute, run.last)
			break
		}
	}
	lastWall := day.Add(time.Duration(minute) * time.Minute)
	if !s.calendar.isHourly() {
		return stretch{open, first(lastWall, s.location), first(lastWall.Add(p.lasts), s.location)}, true
	}
	last := open.Add(lastWall.Sub(wall))
	if ends := zoneEnds(open); !ends.IsZero() && !last.Before(ends) {
		if last, ok = s.Last(ends.Add(-time.Nanosecond)); !ok {
			return stretch{}, false
		}
	}
	return stretch{open, last, last.Add(p.lasts)}, true
}
