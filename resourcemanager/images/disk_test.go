package images

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/internal/wire"
)

func TestAFullDiskIsSaidAndLeftAsItWas(t *testing.T) {
	testenv.Need(t, "root")
	dir := t.TempDir()
	if err := syscall.Mount("mammoth-test", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	store := openStore(t, dir, Limits{UserBytes: 1 << 30, TotalBytes: 1 << 30})
	// Somebody else fills the disk, after the store has looked.
	store.quotas.disk = func() (int64, int64, error) { return 1 << 40, 1 << 40, nil }
	importImage(t, store, webImage(t), "web:1")
	before := stored(t, store)

	says := func(err error) {
		t.Helper()
		if !errors.Is(err, errdefs.ErrResourceExhausted) || !strings.Contains(wire.Sentence(err), "the image store's disk is full") {
			t.Errorf("it says %v", err)
		}
		if left := incomingFiles(t, store); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
	_, err := store.Import(t.Context(), bytes.NewReader(largeImage(t)), "large:1")
	says(err)
	u, err := startUpload(t.Context(), store, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.uploads.append(t.Context(), u, 0, bytes.NewReader(largeImage(t)), nil)
	says(err)

	if _, _, err := store.Resolve(t.Context(), "web:1"); err != nil || stored(t, store) != before {
		t.Errorf("%v; %d bytes are stored, not %d", err, stored(t, store), before)
	}
	importImage(t, store, other(t), "web:2")

	// An image can be removed when there is no byte left for the index.
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	_, err = store.Import(t.Context(), bytes.NewReader(tarOf(t, webImage(t).oci(t, "")...)), "web:3")
	says(err)
	if freed, err := store.Remove(t.Context(), "web:1"); err != nil || freed == 0 {
		t.Errorf("freed %d on a full disk, %v", freed, err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if again := openStore(t, dir, Limits{}); !slices.Equal(names(t, again), []string{"web:2"}) {
		t.Errorf("it has %q", names(t, again))
	}
}
