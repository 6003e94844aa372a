// Package calendar computes the times of windows and schedules from cron expressions, durations and time zones, so that the
// scheduler needs no calendar. It is pure and has no state: the time is an argument.
package calendar

import (
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/cron"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// Window opens when a cron expression of five fields fires in a time zone. Its duration is a difference of local time: nine hours
// from 22:00 end at 07:00, also in a night in which the clocks change. If the expression matches every hour, the duration is
// elapsed time.
type Window struct {
	Cron     string
	Duration time.Duration
	// Timezone is a name of the time zone database; empty is UTC.
	Timezone string
}

// Longest is the longest that a window may last.
const Longest = 31 * 24 * time.Hour

// Forever is the close of a window that never closes, since it always opens again before.
func Forever() time.Time { return cron.Forever() }

// Check returns what is wrong with a window, one sentence.
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

// Between returns the windows that are open at some moment between two times, in order. Windows that overlap or touch are joined;
// the last one may end later.
func (w Window) Between(from, to time.Time) ([]scheduler.Window, error) {
	return w.windows(from, func(_ int, next scheduler.Window) bool { return next.Open.Before(to) })
}

// mostAhead limits how many windows Ahead returns, and dayAhead how far it looks.
const (
	mostAhead = 16
	dayAhead  = 24 * time.Hour
)

// Ahead returns the open window and the next ones: those of one day, at most sixteen, and at least one future window if there is
// one.
func (w Window) Ahead(now time.Time) ([]scheduler.Window, error) {
	toCome := 0
	return w.windows(now, func(count int, next scheduler.Window) bool {
		if count == mostAhead || toCome > 0 && next.Open.After(now.Add(dayAhead)) {
			return false
		}
		if next.Open.After(now) {
			toCome++
		}
		return true
	})
}

// windows returns the windows that close after a time, until more returns false.
func (w Window) windows(from time.Time, more func(count int, next scheduler.Window) bool) ([]scheduler.Window, error) {
	schedule, err := w.schedule()
	if err != nil {
		return nil, err
	}
	var windows []scheduler.Window
	for span := range schedule.Spans(from, w.Duration) {
		next := scheduler.Window{Open: span.Open, Close: span.Close}
		if !more(len(windows), next) {
			break
		}
		windows = append(windows, next)
	}
	return windows, nil
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
