// Package calendar turns the windows that people write, a cron expression with a duration and a time zone, into
// moments, so that the scheduler core needs neither a clock nor a calendar.
package calendar

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/adhocore/gronx"
	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// Window opens at the ticks of a cron expression of five fields in a time zone and lasts for a duration on the
// clock: nine hours from 22:00 end at 07:00, also in the night in which the clocks change.
type Window struct {
	Cron     string
	Duration time.Duration
	// Timezone is a name of the time zone database; empty is UTC.
	Timezone string
}

// Longest is the longest that a window may last.
const Longest = 31 * 24 * time.Hour

// Check says in one sentence what is wrong with a window.
func (w Window) Check() error {
	switch {
	case len(strings.Fields(w.Cron)) != 5 || !gronx.IsValid(w.Cron):
		return fmt.Errorf("%q is not a cron expression of five fields, as in \"0 22 * * *\": %w", w.Cron, errdefs.ErrInvalidArgument)
	case w.Duration < time.Minute || w.Duration > Longest:
		return fmt.Errorf("a window lasts from one minute to 31 days, not %s: %w", w.Duration, errdefs.ErrInvalidArgument)
	}
	if _, err := w.location(); err != nil {
		return err
	}
	return nil
}

func (w Window) location() (*time.Location, error) {
	location, err := time.LoadLocation(w.Timezone)
	if err != nil || w.Timezone == "Local" {
		return nil, fmt.Errorf("%q is not a time zone, as in Asia/Shanghai: %w", w.Timezone, errdefs.ErrInvalidArgument)
	}
	return location, nil
}

// Between gives the windows that are open at some moment from one time to another, in order. Those that overlap or
// touch are one.
func (w Window) Between(from, to time.Time) ([]scheduler.Window, error) {
	if err := w.Check(); err != nil {
		return nil, err
	}
	location, err := w.location()
	if err != nil {
		return nil, err
	}
	// The clock may be changed by an hour or two within a window.
	at := from.In(location).Add(-w.Duration - 3*time.Hour)
	var windows []scheduler.Window
	for {
		tick, err := gronx.NextTickAfter(w.Cron, at, false)
		if err != nil || !tick.Before(to) {
			return Merge(windows), nil
		}
		at = tick
		opened := scheduler.Window{Open: tick, Close: w.closes(tick)}
		if opened.Close.After(from) && opened.Close.After(opened.Open) {
			windows = append(windows, opened)
		}
	}
}

// closes is the duration later on the clock.
func (w Window) closes(open time.Time) time.Time {
	year, month, day := open.Date()
	hour, minute, second := open.Clock()
	return time.Date(year, month, day, hour, minute, second+int(w.Duration/time.Second), 0, open.Location())
}

// Merge orders windows and joins those that overlap or touch.
func Merge(windows []scheduler.Window) []scheduler.Window {
	sorted := slices.Clone(windows)
	slices.SortFunc(sorted, func(x, y scheduler.Window) int { return x.Open.Compare(y.Open) })
	merged := sorted[:0]
	for _, w := range sorted {
		if last := len(merged) - 1; last >= 0 && !w.Open.After(merged[last].Close) {
			if w.Close.After(merged[last].Close) {
				merged[last].Close = w.Close
			}
			continue
		}
		merged = append(merged, w)
	}
	return merged
}
