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

// followRoom looks at the store's disk for as long as ctx lives.
func (t *Term) followRoom(ctx context.Context) {
	look := time.NewTicker(roomLook)
	defer look.Stop()
	for {
		err := t.store.Room()
		if !errdefs.IsResourceExhausted(err) {
			err = nil // the next commit says what else may be wrong
		}
		if was := t.checkRoom(); (err == nil) != (was == nil) {
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
