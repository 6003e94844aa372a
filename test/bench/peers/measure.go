package main

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// contender is a scheduler to be compared: one of the peers, or ours.
type contender interface {
	name() string
	// covers says what its figures have in them and what they leave out.
	covers() string
	// prepare makes ready what the scheduler is given, outside of what is measured.
	prepare(w workload) (trial, error)
}

// trial is one workload for one scheduler, to be run once.
type trial interface {
	// run lets the scheduler take in the workload and grant it. It returns when nothing more can be granted. It calls
	// decided, from any goroutine and as often as it likes, once everything is decided and only writing is left.
	run(decided func()) error
	// placed is what was granted.
	placed() ([]placement, error)
	close() error
}

// figure is how a contender did on a workload.
type figure struct {
	granted int
	// whole is all of it, deciding what passed before the first grant was written.
	whole, deciding span
}

func (f figure) perSecond(by clock) float64 { return float64(f.granted) / f.whole.seconds(by) }

func (f figure) decidedPerSecond(by clock) float64 {
	return float64(f.granted) / f.deciding.seconds(by)
}

// span is a length of time, by each clock.
type span struct {
	// processor is what all threads of this process have used, wall what passed. Both have garbage collection in them.
	processor, wall time.Duration
}

func (s span) seconds(by clock) float64 {
	if by == wall {
		return s.wall.Seconds()
	}
	return s.processor.Seconds()
}

// clock is what rates are by.
type clock string

const (
	processor clock = "processor"
	wall      clock = "wall"
)

// stopwatch is started by what makes it.
type stopwatch struct {
	began time.Time
	spent time.Duration
}

func start() stopwatch { return stopwatch{began: time.Now(), spent: processorTime()} }

func (s stopwatch) read() span {
	return span{processor: processorTime() - s.spent, wall: time.Since(s.began)}
}

const (
	// enough is how long a contender takes at a shape before it is not tried again, mostTrials how often it is at most.
	enough     = time.Second
	mostTrials = 3
)

// measure runs a contender up to three times and takes the run in the middle by processor time, of two the faster.
func measure(c contender, w workload) (figure, error) {
	var figures []figure
	for began := time.Now(); len(figures) == 0 || len(figures) < mostTrials && time.Since(began) < enough; {
		f, err := once(c, w)
		if err != nil {
			return figure{}, fmt.Errorf("%s, %s: %w", c.name(), w.shape, err)
		}
		figures = append(figures, f)
	}
	slices.SortFunc(figures, func(a, b figure) int { return cmp.Compare(a.whole.processor, b.whole.processor) })
	return figures[(len(figures)-1)/2], nil
}

func once(c contender, w workload) (figure, error) {
	t, err := c.prepare(w)
	if err != nil {
		return figure{}, err
	}
	runtime.GC()
	watch := start()
	deciding := sync.OnceValue(watch.read)
	err = t.run(func() { deciding() })
	f := figure{whole: watch.read(), deciding: deciding()}
	if err != nil {
		return figure{}, err
	}
	placed, err := t.placed()
	if err != nil {
		return figure{}, err
	}
	if err := w.check(placed); err != nil {
		return figure{}, err
	}
	f.granted = len(placed)
	return f, t.close()
}

// processorTime is what all threads of this process have used.
func processorTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}
