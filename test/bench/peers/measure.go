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
	// apart is whether a trial leaves behind what would weigh on the next, so that each needs a process of its own.
	apart() bool
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
	// Processor is what all threads of this process have used, Wall what passed. Both have garbage collection in them.
	Processor, Wall time.Duration
}

func (s span) seconds(by clock) float64 {
	if by == wall {
		return s.Wall.Seconds()
	}
	return s.Processor.Seconds()
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
	return span{Processor: processorTime() - s.spent, Wall: time.Since(s.began)}
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
	slices.SortFunc(figures, func(a, b figure) int { return cmp.Compare(a.whole.Processor, b.whole.Processor) })
	return figures[(len(figures)-1)/2], nil
}

func once(c contender, w workload) (figure, error) {
	o, err := try(c, w)
	if err != nil {
		return figure{}, err
	}
	if err := w.check(o.Placed); err != nil {
		return figure{}, err
	}
	return figure{granted: len(o.Placed), whole: o.Whole, deciding: o.Deciding}, nil
}

// outcome is what came of a trial.
type outcome struct {
	Whole, Deciding span
	Placed          []placement
}

func try(c contender, w workload) (outcome, error) {
	if c.apart() {
		return tryApart(c, w)
	}
	return tryHere(c, w)
}

func tryHere(c contender, w workload) (outcome, error) {
	t, err := c.prepare(w)
	if err != nil {
		return outcome{}, err
	}
	runtime.GC()
	watch := start()
	deciding := sync.OnceValue(watch.read)
	err = t.run(func() { deciding() })
	o := outcome{Whole: watch.read(), Deciding: deciding()}
	if err != nil {
		return outcome{}, err
	}
	if o.Placed, err = t.placed(); err != nil {
		return outcome{}, err
	}
	return o, t.close()
}

// processorTime is what all threads of this process have used.
func processorTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}
