package store_test

import (
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/store/storetest"
)

type memoryPlace struct{ disk *store.Disk }

func (p memoryPlace) Open(options store.Options) (store.Store, error) {
	return store.OpenMemory(p.disk, options), nil
}

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Place { return memoryPlace{&store.Disk{}} })
}

type boltPlace struct{ path string }

func (p boltPlace) Open(options store.Options) (store.Store, error) {
	return store.OpenSmallBolt(p.path, options)
}

func TestBolt(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Place {
		return boltPlace{filepath.Join(t.TempDir(), "zone.db")}
	})
}

func TestAFileThatIsOpenIsRefusedInASentence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "zone.db")
		first, err := store.OpenBolt(path, store.Options{Now: time.Now(), EventRetention: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.OpenBolt(path, store.Options{Now: time.Now(), EventRetention: 1}); !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("the second opening: %v", err)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
