// Package calendar turns the windows that people write, a cron expression with a duration and a time zone, into
// moments, so that the scheduler core needs neither a clock nor a calendar.
package calendar

import (
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/cron"
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
	_, err := w.schedule()
	return err
}

func (w Window) schedule() (cron.Schedule, error) {
	if w.Duration < time.Minute || w.Duration > Longest {
		return cron.Schedule{}, fmt.Errorf("a window lasts from one minute to 31 days, not %s: %w", w.Duration, errdefs.ErrInvalidArgument)
	}
	schedule, err := cron.Parse(w.Cron, w.Timezone)
	if err != nil {
		return schedule, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return schedule, nil
}

// Between gives the windows that are open at some moment from one time to another, in order. Those that overlap or
// touch are one.
func (w Window) Between(from, to time.Time) ([]scheduler.Window, error) {
	schedule, err := w.schedule()
	if err != nil {
		return nil, err
	}
	// The clock may be changed by an hour or two within a window.
	at := from.Add(-w.Duration - 3*time.Hour)
	var windows []scheduler.Window
	for {
		open, ok := schedule.Next(at)
		if !ok || !open.Before(to) {
			return Merge(windows), nil
		}
		at = open
		opened := scheduler.Window{Open: open, Close: cron.Later(open, w.Duration)}
		if opened.Close.After(from) && opened.Close.After(opened.Open) {
			windows = append(windows, opened)
		}
	}
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
