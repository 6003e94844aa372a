package store_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/records"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/store/storetest"
)

type memoryPlace struct{ disk *store.Disk }

func (p memoryPlace) Open(options store.Options) (store.Store, error) {
	return store.OpenMemory(p.disk, options), nil
}

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Opener { return memoryPlace{&store.Disk{}} })
}

type filePlace struct{ dir string }

func (p filePlace) Open(options store.Options) (store.Store, error) {
	return store.OpenSmallFile(p.dir, options)
}

func TestFile(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Opener {
		return filePlace{filepath.Join(t.TempDir(), "store")}
	})
}

func TestARepairSaysWhatIsLost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	options := store.Options{Now: time.Now(), EventRetention: 10}
	s, err := store.OpenSmallFile(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(3) {
		batch := store.Batch{
			Puts:   []store.Put{{Kind: "app", Key: fmt.Sprint("a", i), Value: []byte("an app that is lost")}},
			Events: []store.Event{{Sequence: i + 1, Value: []byte("deployed")}},
		}
		if err := s.Commit(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	runs, err := filepath.Glob(filepath.Join(dir, "*.run"))
	if err != nil || len(runs) == 0 {
		t.Fatal(runs, err)
	}
	raw, err := os.ReadFile(runs[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[bytes.Index(raw, []byte("that is lost"))] ^= 1
	if err := os.WriteFile(runs[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenSmallFile(dir, options); !errdefs.IsDataLoss(err) {
		t.Fatalf("it was opened: %v", err)
	}
	_, lost, err := store.Examine(dir, records.ID{})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(lost, "; "); !strings.Contains(got, " to event ") {
		t.Errorf("lost: %q", got)
	}
	if _, err := store.Repair(dir, records.ID{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if s, err = store.OpenSmallFile(dir, options); err != nil {
		t.Fatal(err)
	}
	noted := 0
	if err := s.Load(store.Losses, func(string, []byte) error { noted++; return nil }); err != nil || noted != 1 {
		t.Errorf("%d losses are noted, %v", noted, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
