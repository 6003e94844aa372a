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

// Window opens when a cron expression of five fields comes true in a time zone and lasts for a duration on the
// clock: nine hours from 22:00 end at 07:00, also in the night in which the clocks change. Of an expression that has every
// hour it lasts as time passes.
type Window struct {
	Cron     string
	Duration time.Duration
	// Timezone is a name of the time zone database; empty is UTC.
	Timezone string
}

// Longest is the longest that a window may last.
const Longest = 31 * 24 * time.Hour

// Forever is when a window closes that is always open: it opens again in time each time.
func Forever() time.Time { return cron.Forever() }

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
// touch are one, wherever that ends.
func (w Window) Between(from, to time.Time) ([]scheduler.Window, error) {
	return w.windows(from, func(_ int, next scheduler.Window) bool { return next.Open.Before(to) })
}

// mostAhead is how many windows are worked out at a time, and dayAhead how far unless they are more.
const (
	mostAhead = 16
	dayAhead  = 24 * time.Hour
)

// Ahead gives the window that is open and the next ones: those of a day, but sixteen at most, and at least one to come, if there
// is one.
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

// windows gives those that close after a time for as long as more are wanted.
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
