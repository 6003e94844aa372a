package resourcemanager

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// tick is the longest the loop sleeps: deadlines that are seconds long need no timer of their own.
const tick = time.Second

var errStopped = fmt.Errorf("the ResourceManager is stopping; try again in a moment: %w", errdefs.ErrUnavailable)

// task is what the loop is given to do: an input, or a look at the zone that changes nothing that is stored.
type task struct {
	in   input
	look func(*zone) (any, error)
	// before is called by the loop just before, done with the answer once the turn is stored; nil is nothing.
	before func()
	done   func(any, error)
}

// reply is a done with its answer.
type reply func()

// perform does what a task is for, and gives its reply.
func (t task) perform(z *zone) reply {
	if t.before != nil {
		t.before()
	}
	var answer any
	var err error
	if t.in != nil {
		answer, err = t.in.step(z)
	} else {
		answer, err = t.look(z)
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
		if err := rm.step(); err != nil {
			rm.closeStreams()
			return err
		}
		timer.Reset(rm.sleep(time.Now()))
	}
}

// step is a turn, or, while one waits for room on the disk, another try to store that.
func (rm *ResourceManager) step() error {
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
	z.begin(started, newSeed())
	rm.replies = rm.replies[:0]
	for _, t := range tasks {
		rm.replies = append(rm.replies, t.perform(z))
	}
	if z.isDue() {
		_, _ = beatsInput{rm.streams.beats()}.step(z) // which answers nothing
	}
	out, err := z.ready()
	if err != nil {
		return err
	}
	if err := rm.commit(out); err != nil || rm.unstored != nil {
		return err
	}
	rm.publish(out)
	rm.metrics.observe(z, time.Since(started))
	return nil
}

// sleep is how long the loop may sleep if nobody wants anything.
func (rm *ResourceManager) sleep(now time.Time) time.Duration {
	until := rm.zone.wake
	if rm.unstored != nil {
		until = rm.retryAt
	}
	return max(0, until.Sub(now))
}

// publish tells everybody about a turn that is stored: the registry first, so that a master that reads its applied sequence finds
// the registry right.
func (rm *ResourceManager) publish(out *ready) {
	rm.publisher.perform(out)
	rm.streams.perform(out, rm.post)
	for _, fault := range out.faults {
		level := slog.LevelWarn
		if fault.severe {
			level = slog.LevelError
		}
		rm.config.Logger.Log(context.Background(), level, fault.text, fault.about...)
	}
	if rm.config.Logger.Enabled(context.Background(), slog.LevelInfo) {
		for _, event := range out.events {
			rm.config.Logger.LogAttrs(context.Background(), slog.LevelInfo, "transition", eventAttrs(event)...)
		}
	}
	rm.past.Add(out.events...)
	for _, reply := range rm.replies {
		reply()
	}
	clear(rm.replies)
	rm.replies = rm.replies[:0]
}

func (rm *ResourceManager) closeStreams() {
	rm.streams.endAll(errStopped)
	rm.past.Close(errStopped)
}

// newSeed draws the seed of a turn.
func newSeed() seed {
	var fresh seed
	_, _ = rand.Read(fresh[:]) // crypto/rand never fails; it ends the program instead
	return fresh
}

// ask gives the loop an input and waits until what follows from it is stored. The answer of its step is a T.
func ask[T any](ctx context.Context, rm *ResourceManager, in input) (T, error) {
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
func tell(ctx context.Context, rm *ResourceManager, in input) error {
	_, err := ask[any](ctx, rm, in)
	return err
}

// Kinds of records.
const (
	kindZone      store.Kind = "zone"
	kindApp       store.Kind = "app"
	kindVersion   store.Kind = "version"
	kindMemo      store.Kind = "memo"
	kindAsk       store.Kind = "ask"
	kindInstance  store.Kind = "instance"
	kindContainer store.Kind = "container"
	kindNode      store.Kind = "node"
	kindQueues    store.Kind = "queues"
	kindContract  store.Kind = "contract"
)

type recordKey struct {
	kind store.Kind
	key  string
}

// changes gathers what a turn has to write. A record that changes ten times in a turn is written once.
type changes struct {
	order   []recordKey
	records map[recordKey]proto.Message
	events  []store.Event
	// raw are records of the store's own making.
	raw []store.Put
}

func (c *changes) save(kind store.Kind, key string, record proto.Message) {
	k := recordKey{kind, key}
	if c.records == nil {
		c.records = map[recordKey]proto.Message{}
	}
	if _, ok := c.records[k]; !ok {
		c.order = append(c.order, k)
	}
	c.records[k] = record
}

func (c *changes) forget(kind store.Kind, key string) { c.save(kind, key, nil) }

// pack writes the gathered changes as a batch and begins a new set.
func (c *changes) pack() (store.Batch, error) {
	batch := store.Batch{Puts: c.raw, Events: c.events}
	for _, k := range c.order {
		put := store.Put{Kind: k.kind, Key: k.key}
		if record := c.records[k]; record != nil {
			if app, ok := record.(*storev1.App); ok {
				record = withoutVersions(app)
			}
			raw, err := proto.Marshal(record)
			if err != nil {
				return batch, fmt.Errorf("encode the %s record %q: %w", k.kind, k.key, err)
			}
			put.Value = raw
		}
		batch.Puts = append(batch.Puts, put)
	}
	*c = changes{}
	return batch, nil
}
