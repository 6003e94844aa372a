package term

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

var errStopped = fmt.Errorf("the ResourceManager is stopping; try again in a moment: %w", errdefs.ErrUnavailable)

// task is what the loop is given to do: an input, or a look at the zone that changes nothing that is stored.
type task struct {
	in   zone.Input
	look func(*zone.Core) (any, error)
	// The loop calls before right before the step, and did right after it; done gets the answer once the turn is stored. Each may be nil.
	before func(*task)
	did    func(any, error)
	done   func(any, error)
}

// reply is a done with its answer.
type reply func()

// perform does what a task is for, and gives its reply.
func (t *Term) perform(todo task) reply {
	if todo.before != nil {
		todo.before(&todo)
	}
	var answer any
	var err error
	if todo.in != nil {
		answer, err = t.step(todo.in)
	} else {
		answer, err = todo.look(t.zone)
	}
	if todo.did != nil {
		todo.did(answer, err)
	}
	return func() {
		if todo.done != nil {
			todo.done(answer, err)
		}
	}
}

// loop owns the zone until ctx ends or the store fails. Each turn drains the inbox, folds what is in it into the
// zone, lets the scheduler decide, commits all changes at once, and only then tells anybody.
func (t *Term) loop(ctx context.Context) error {
	defer close(t.stopped)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			t.closeStreams()
			return nil
		case <-t.inbox.wake:
		case <-t.looks.wake:
		case <-timer.C:
		}
		if err := t.round(ctx); err != nil {
			t.closeStreams()
			return err
		}
		timer.Reset(t.sleep(time.Now()))
	}
}

// round is a turn, or, while one waits for room on the disk, another try to store that.
func (t *Term) round(ctx context.Context) error {
	if now := time.Now(); t.unstored != nil && !now.Before(t.retryAt) {
		waiting := t.unstored
		if err := t.commit(ctx, waiting); err != nil {
			return err
		}
		if t.unstored == nil {
			t.publish(waiting)
		}
	}
	looks, _ := t.looks.take()
	if t.unstored != nil {
		t.answer(looks)
		return nil
	}
	tasks, _ := t.inbox.take()
	return t.turn(ctx, append(tasks, looks...))
}

func (t *Term) turn(ctx context.Context, tasks []task) error {
	z := t.zone
	started := time.Now()
	fresh := newSeed()
	if t.record != nil {
		t.record.Begin(started, fresh)
	}
	z.Begin(started, fresh)
	t.replies = t.replies[:0]
	for _, todo := range tasks {
		t.replies = append(t.replies, t.perform(todo))
	}
	if z.IsDue() {
		_, _ = t.step(zone.Beats{Beats: t.streams.beats()}) // which answers nothing
	}
	out, err := t.ready()
	if err != nil {
		return err
	}
	if err := t.commit(ctx, out); err != nil || t.unstored != nil {
		return err
	}
	t.publish(out)
	t.config.Metrics.observe(z, out, started)
	// Whoever was just told runs before the next turn. While the garbage collector marks, no other processor may be free to take them.
	runtime.Gosched()
	return nil
}

// sleep is how long the loop may sleep if nobody wants anything.
func (t *Term) sleep(now time.Time) time.Duration {
	until := t.zone.Wake()
	if t.unstored != nil {
		until = t.retryAt
	}
	return max(0, until.Sub(now))
}

// publish tells everybody about a turn that is stored: the registry first, so that a master that reads its applied sequence finds
// the registry right.
func (t *Term) publish(out *zone.Ready) {
	t.publisher.perform(out)
	t.shown.publish(out, t.streams)
	t.streams.perform(out, t.post)
	for _, fault := range out.Faults {
		level := slog.LevelWarn
		if fault.Severe {
			level = slog.LevelError
		}
		t.config.Logger.Log(context.Background(), level, fault.Text, fault.About...)
	}
	if t.config.Logger.Enabled(context.Background(), slog.LevelInfo) {
		for _, event := range out.Events {
			t.config.Logger.LogAttrs(context.Background(), slog.LevelInfo, "transition", eventAttrs(event)...)
		}
	}
	t.past.Add(out.Events...)
	for _, reply := range t.replies {
		reply()
	}
	clear(t.replies)
	t.replies = t.replies[:0]
}

func (t *Term) closeStreams() {
	t.streams.endAll(errStopped)
	t.past.Close(errStopped)
	t.board.End(errStopped)
	if t.record != nil {
		_ = t.record.file.Close() // each line is in it already
	}
}

// newSeed draws the seed of a turn.
func newSeed() zone.Seed {
	var fresh zone.Seed
	_, _ = rand.Read(fresh[:]) // crypto/rand never fails; it ends the program instead
	return fresh
}
