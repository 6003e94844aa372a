package resourcemanager

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
func (rm *ResourceManager) full() error {
	if why := rm.noRoom.Load(); why != nil {
		return *why
	}
	return nil
}

// followRoom looks at the store's disk for as long as ctx lives.
func (rm *ResourceManager) followRoom(ctx context.Context) {
	look := time.NewTicker(roomLook)
	defer look.Stop()
	for {
		err := rm.store.Room()
		if !errdefs.IsResourceExhausted(err) {
			err = nil // the next commit says what else may be wrong
		}
		if was := rm.full(); (err == nil) != (was == nil) {
			rm.noRoom.Store(nil)
			full := ""
			if err != nil {
				rm.noRoom.Store(&err)
				full = wire.Sentence(err)
			}
			rm.post(zone.RoomChanged{Full: full})
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// grow is ask for what needs room: it is refused while the disk is full, when what is reserved is for what ends things.
func grow[T any](ctx context.Context, rm *ResourceManager, in zone.Input) (T, error) {
	if err := rm.full(); err != nil {
		var none T
		return none, err
	}
	return ask[T](ctx, rm, in)
}

// look is ask for what changes nothing: it is answered also while nothing can be stored.
func look[T any](ctx context.Context, rm *ResourceManager, do func(*zone.Core) (T, error)) (T, error) {
	return askTask[T](ctx, rm, rm.looks, task{look: func(z *zone.Core) (any, error) { return do(z) }})
}

// lookOnly is look without an answer.
func lookOnly(ctx context.Context, rm *ResourceManager, do func(*zone.Core) error) error {
	_, err := look(ctx, rm, func(z *zone.Core) (struct{}, error) { return struct{}{}, do(z) })
	return err
}

// commit stores what a turn has decided. One that a full disk does not take waits until there is room, and nobody is told of it
// before.
func (rm *ResourceManager) commit(out *zone.Ready) error {
	rm.unstored = nil
	if out.Batch.Empty() {
		return nil
	}
	began := time.Now()
	err := rm.store.Commit(out.Batch)
	if errdefs.IsResourceExhausted(err) {
		rm.unstored, rm.retryAt = out, began.Add(zone.Tick)
		return nil
	}
	if err == nil {
		rm.metrics.committed(time.Since(began))
	}
	return err
}

// answer serves those who only look while a batch waits. What has happened since the last commit is shown to them.
func (rm *ResourceManager) answer(looks []task) {
	for _, look := range looks {
		look.perform(rm)()
	}
}
