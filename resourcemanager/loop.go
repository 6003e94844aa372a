package resourcemanager

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

var errStopped = fmt.Errorf("the ResourceManager is stopping; try again in a moment: %w", errdefs.ErrUnavailable)

// task is what the loop is given to do: an input, or a look at the zone that changes nothing that is stored.
type task struct {
	in   zone.Input
	look func(*zone.Core) (any, error)
	// The loop calls before just before and did just after, and done with the answer once the turn is stored; nil is nothing.
	before func(*task)
	did    func(any, error)
	done   func(any, error)
}

// reply is a done with its answer.
type reply func()

// perform does what a task is for, and gives its reply.
func (t task) perform(rm *ResourceManager) reply {
	if t.before != nil {
		t.before(&t)
	}
	var answer any
	var err error
	if t.in != nil {
		answer, err = rm.step(t.in)
	} else {
		answer, err = t.look(rm.zone)
	}
	if t.did != nil {
		t.did(answer, err)
	}
	return func() {
		if t.done != nil {
			t.done(answer, err)
		}
	}
}

// loop owns the zone until ctx ends or the store fails. Each turn drains the inbox, folds what is in it into the
// zone, lets the scheduler decide, commits all changes at once, and only then tells anybody.
func (rm *ResourceManager) loop(ctx context.Context) error {
	defer close(rm.stopped)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			rm.closeStreams()
			return nil
		case <-rm.inbox.wake:
		case <-rm.looks.wake:
		case <-timer.C:
		}
		if err := rm.round(); err != nil {
			rm.closeStreams()
			return err
		}
		timer.Reset(rm.sleep(time.Now()))
	}
}

// round is a turn, or, while one waits for room on the disk, another try to store that.
func (rm *ResourceManager) round() error {
	if now := time.Now(); rm.unstored != nil && !now.Before(rm.retryAt) {
		waiting := rm.unstored
		if err := rm.commit(waiting); err != nil {
			return err
		}
		if rm.unstored == nil {
			rm.publish(waiting)
		}
	}
	looks, _ := rm.looks.take()
	if rm.unstored != nil {
		rm.answer(looks)
		return nil
	}
	tasks, _ := rm.inbox.take()
	return rm.turn(append(tasks, looks...))
}

func (rm *ResourceManager) turn(tasks []task) error {
	z := rm.zone
	started := time.Now()
	fresh := newSeed()
	if rm.record != nil {
		rm.record.Begin(started, fresh)
	}
	z.Begin(started, fresh)
	rm.replies = rm.replies[:0]
	for _, t := range tasks {
		rm.replies = append(rm.replies, t.perform(rm))
	}
	if z.IsDue() {
		_, _ = rm.step(zone.Beats{Beats: rm.streams.beats()}) // which answers nothing
	}
	out, err := rm.ready()
	if err != nil {
		return err
	}
	if err := rm.commit(out); err != nil || rm.unstored != nil {
		return err
	}
	rm.publish(out)
	rm.metrics.observe(z, out, started)
	return nil
}

// sleep is how long the loop may sleep if nobody wants anything.
func (rm *ResourceManager) sleep(now time.Time) time.Duration {
	until := rm.zone.Wake()
	if rm.unstored != nil {
		until = rm.retryAt
	}
	return max(0, until.Sub(now))
}

// publish tells everybody about a turn that is stored: the registry first, so that a master that reads its applied sequence finds
// the registry right.
func (rm *ResourceManager) publish(out *zone.Ready) {
	rm.publisher.perform(out)
	rm.streams.perform(out, rm.post)
	for _, fault := range out.Faults {
		level := slog.LevelWarn
		if fault.Severe {
			level = slog.LevelError
		}
		rm.config.Logger.Log(context.Background(), level, fault.Text, fault.About...)
	}
	if rm.config.Logger.Enabled(context.Background(), slog.LevelInfo) {
		for _, event := range out.Events {
			rm.config.Logger.LogAttrs(context.Background(), slog.LevelInfo, "transition", eventAttrs(event)...)
		}
	}
	rm.past.Add(out.Events...)
	for _, reply := range rm.replies {
		reply()
	}
	clear(rm.replies)
	rm.replies = rm.replies[:0]
}

func (rm *ResourceManager) closeStreams() {
	rm.streams.endAll(errStopped)
	rm.past.Close(errStopped)
	if rm.record != nil {
		_ = rm.record.file.Close() // each line is in it already
	}
}

// newSeed draws the seed of a turn.
func newSeed() zone.Seed {
	var fresh zone.Seed
	_, _ = rand.Read(fresh[:]) // crypto/rand never fails; it ends the program instead
	return fresh
}

// ask gives the loop an input and waits until what follows from it is stored. The answer of its step is a T.
func ask[T any](ctx context.Context, rm *ResourceManager, in zone.Input) (T, error) {
	return askTask[T](ctx, rm, rm.inbox, task{in: in})
}

// askTask puts a task into an inbox and waits for its answer.
func askTask[T any](ctx context.Context, rm *ResourceManager, inbox *mailbox[task], t task) (T, error) {
	type answer struct {
		value any
		err   error
	}
	answers := make(chan answer, 1)
	t.done = func(value any, err error) { answers <- answer{value, err} }
	inbox.put(t)
	var none T
	select {
	case got := <-answers:
		if got.err != nil || got.value == nil {
			return none, got.err
		}
		return got.value.(T), nil
	case <-ctx.Done():
		return none, context.Cause(ctx)
	case <-rm.stopped:
		return none, errStopped
	}
}

// tell is ask without an answer.
func tell(ctx context.Context, rm *ResourceManager, in zone.Input) error {
	_, err := ask[any](ctx, rm, in)
	return err
}
