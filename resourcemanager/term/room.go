package term

import (
	"context"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// roomLook is how often the disk is looked at.
const roomLook = 2 * time.Second

// full is why nothing that grows is taken; nil while there is room.
func (t *Term) full() error {
	if why := t.noRoom.Load(); why != nil {
		return *why
	}
	return nil
}

// followRoom looks at the store's disk for as long as ctx lives.
func (t *Term) followRoom(ctx context.Context) {
	look := time.NewTicker(roomLook)
	defer look.Stop()
	for {
		err := t.store.Room()
		if !errdefs.IsResourceExhausted(err) {
			err = nil // the next commit says what else may be wrong
		}
		if was := t.full(); (err == nil) != (was == nil) {
			t.noRoom.Store(nil)
			full := ""
			if err != nil {
				t.noRoom.Store(&err)
				full = wire.Sentence(err)
			}
			t.post(zone.RoomChanged{Full: full})
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// grow is ask for what needs room: it is refused while the disk is full, when what is reserved is for what ends things.
func grow[T any](ctx context.Context, t *Term, in zone.Input) (T, error) {
	if err := t.full(); err != nil {
		var none T
		return none, err
	}
	return ask[T](ctx, t, in)
}

// look is ask for what changes nothing: it is answered also while nothing can be stored.
func look[T any](ctx context.Context, t *Term, do func(*zone.Core) (T, error)) (T, error) {
	return askTask[T](ctx, t, t.looks, task{look: func(z *zone.Core) (any, error) { return do(z) }})
}

// lookOnly is look without an answer.
func lookOnly(ctx context.Context, t *Term, do func(*zone.Core) error) error {
	_, err := look(ctx, t, func(z *zone.Core) (struct{}, error) { return struct{}{}, do(z) })
	return err
}

// commit stores what a turn has decided. One that a full disk does not take waits until there is room, and nobody is told of it
// before.
func (t *Term) commit(ctx context.Context, out *zone.Ready) error {
	t.unstored = nil
	if out.Batch.Empty() {
		return nil
	}
	began := time.Now()
	err := t.store.Commit(ctx, out.Batch)
	if errdefs.IsResourceExhausted(err) {
		t.unstored, t.retryAt = out, began.Add(zone.Tick)
		return nil
	}
	if err == nil {
		t.config.Metrics.committed(time.Since(began))
	}
	return err
}

// answer serves those who only look while a batch waits. What has happened since the last commit is shown to them.
func (t *Term) answer(looks []task) {
	for _, look := range looks {
		t.perform(look)()
	}
}
