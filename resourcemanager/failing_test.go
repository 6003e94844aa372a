package resourcemanager

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

var errDiskFull = errors.New("no space left on device")

// fullDisk is a store that takes nothing any more once full is set.
type fullDisk struct {
	store.Store
	full bool
}

func (s *fullDisk) Commit(batch store.Batch) error {
	if s.full {
		return errDiskFull
	}
	return s.Store.Commit(batch)
}

// What cannot be stored was not: the ResourceManager ends with the reason, tells nobody of that turn, and goes on later from
// what is stored.
func TestAStoreThatTakesNothingEndsTheResourceManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, broken := &store.Disk{}, &fullDisk{}
		z := newTestZone(t, func() store.Store {
			broken.full = false
			broken.Store = store.OpenMemory(disk, store.Options{Now: time.Now(), EventRetention: 10_000})
			return broken
		})
		z.deploy(webSpec(1))
		watch, err := z.rm.WatchApp(as("root"), "web")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		services := z.board.generation
		z.rm.post(func(*zone) { broken.full = true })
		if _, err := z.rm.Scale(as("root"), &apiv1.ScaleAppRequest{Name: "web", Instances: 7}); !errdefs.IsUnavailable(err) {
			t.Errorf("the caller was told %v", err)
		}
		if got, err := watch.Next(t.Context()); !errdefs.IsUnavailable(err) {
			t.Errorf("a watcher was told %v, %v", got, err)
		}
		if _, err := z.rm.Deploy(as("root"), &apiv1.DeployRequest{Spec: specIn("other", "default")}); !errdefs.IsUnavailable(err) {
			t.Errorf("who came after it was told %v", err)
		}
		if z.board.generation != services {
			t.Error("the registry was told of what is not stored")
		}
		if err := <-z.ended; !errors.Is(err, errDiskFull) {
			t.Errorf("it ended with %v", err)
		}
		_ = z.conn.Close()
		z.start()
		defer z.stop()
		if got := z.app("web"); got.GetWanted() != 1 {
			t.Errorf("%d instances are wanted after a refusal", got.GetWanted())
		}
	})
}
