package images

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

func importImage(t *testing.T, store *Store, image testImage, name string) string {
	t.Helper()
	imported, err := store.Import(t.Context(), bytes.NewReader(tarOf(t, image.oci(t, "")...)), name)
	if err != nil {
		t.Fatal(err)
	}
	return imported.GetDigest()
}

func names(t *testing.T, store *Store) []string {
	t.Helper()
	list, err := store.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, image := range list {
		names = append(names, image.GetName())
	}
	return names
}

func TestRemoveFreesWhatNothingElseNeeds(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	importImage(t, store, webImage(t), "web:1")
	alone := stored(t, store)
	importImage(t, store, other(t), "web:2")
	both := stored(t, store)
	if both >= 2*alone {
		t.Errorf("one image takes %d bytes, and another of the same layers %d more", alone, both-alone)
	}
	freed, err := store.Remove(t.Context(), "web:2")
	if err != nil || freed != both-alone {
		t.Errorf("freed %d, %v; want %d", freed, err, both-alone)
	}
	freed, err = store.Remove(t.Context(), "web:1")
	if err != nil || freed != alone || stored(t, store) != 0 {
		t.Errorf("freed %d, %v; want %d", freed, err, alone)
	}
	if _, err := store.Remove(t.Context(), "web:1"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

func TestWhatIsPinnedStays(t *testing.T) {
	var pinned []string
	var pinsErr error
	store := openStore(t, t.TempDir(), Limits{Pinned: func(context.Context) ([]string, error) { return pinned, pinsErr }})
	pinned = []string{importImage(t, store, webImage(t), "web:1")}
	before := stored(t, store)

	pinsErr = errors.New("nobody knows")
	if _, err := store.Remove(t.Context(), "web:1"); !errors.Is(err, pinsErr) || len(names(t, store)) != 1 {
		t.Errorf("removed without knowing what is in use: %v", err)
	}
	pinsErr = nil
	if freed, err := store.Remove(t.Context(), "web:1"); err != nil || freed != 0 || stored(t, store) != before {
		t.Errorf("freed %d, %v; want nothing", freed, err)
	}
	if sum, _, err := store.Resolve(t.Context(), "web@"+pinned[0]); err != nil || sum != pinned[0] {
		t.Errorf("the pinned image resolves to %s, %v", sum, err)
	}
	pinned = nil
	if freed, err := store.collector.collect(t.Context(), func(*catalog) error { return nil }); err != nil || freed != before {
		t.Errorf("freed %d, %v once it is no longer pinned; want %d", freed, err, before)
	}
}

func TestAnUnknownNameIsAnsweredWithTheKnownOnes(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	for name, want := range map[string]string{"web:9": `no image is named "web:9"; the store is empty`} {
		if _, _, err := store.Resolve(t.Context(), name); !errors.Is(err, errdefs.ErrNotFound) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for _, name := range []string{"api:1", "web:2", "web:1"} {
		importImage(t, store, webImage(t), name)
	}
	for name, want := range map[string]string{
		"web:9": `no image is named "web:9"; the store has web:1, web:2, api:1:`,
		"web":   `no image is named "web:latest"; the store has web:1, web:2, api:1:`,
	} {
		if _, _, err := store.Resolve(t.Context(), name); !errors.Is(err, errdefs.ErrNotFound) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, _, err := store.Resolve(t.Context(), "a b"); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("%v", err)
	}
}

func TestTheStoreIsTheSameAfterAReopen(t *testing.T) {
	dir := t.TempDir()
	store, err := Open(dir, Limits{Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	importImage(t, store, webImage(t), "web:1")
	importImage(t, store, other(t), "web:1") // The first is untagged now, and still there.
	before, err := store.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	again := openStore(t, dir, Limits{})
	after, err := again.List(t.Context())
	if err != nil || len(after) != 1 || after[0].String() != before[0].String() {
		t.Errorf("listed %v, then %v, %v", before, after, err)
	}
	first := digest.FromBytes(webImage(t).manifest(t)).String()
	if sum, _, err := again.Resolve(t.Context(), "web@"+first); err != nil || sum != first {
		t.Errorf("the untagged image resolves to %s, %v", sum, err)
	}
}

func TestACrashLeavesAConsistentStore(t *testing.T) {
	dir := t.TempDir()
	store, err := Open(dir, Limits{Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	importImage(t, store, webImage(t), "web:1")
	size := stored(t, store)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	// What could lie about: half an index, an unpacked archive, a blob on its way, one that nothing names yet, and an
	// archive that can be resumed.
	half := filepath.Join(dir, incoming, "import-1")
	loose := []byte("a layer whose manifest never came")
	for path, content := range map[string]string{
		filepath.Join(dir, incoming, "new-123"):            `{"manifests":[`,
		filepath.Join(half, "0"):                           "half a layer",
		filepath.Join(dir, incoming, "0123abcd"):           "half a blob",
		blobPath(dir, digest.FromBytes(loose)):             string(loose),
		filepath.Join(dir, incoming, "feed"+archiveSuffix): "half an archive",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := openStore(t, dir, Limits{})
	if left := incomingFiles(t, again); !slices.Equal(left, []string{"feed" + archiveSuffix}) {
		t.Errorf("incoming holds %q", left)
	}
	if offset, err := again.uploads.size("", "feed"); err != nil || offset != int64(len("half an archive")) {
		t.Errorf("the archive goes on at %d, %v", offset, err)
	}
	if _, _, err := again.Resolve(t.Context(), "web:1"); err != nil {
		t.Error(err)
	}
	if freed, err := again.collector.collect(t.Context(), func(*catalog) error { return nil }); err != nil || freed != int64(len(loose)) || stored(t, again) != size {
		t.Errorf("freed %d, %v; %d bytes are left of %d", freed, err, stored(t, again), size)
	}
}

func TestALostManifestDoesNotKeepTheStoreFromOpening(t *testing.T) {
	dir := t.TempDir()
	store, err := Open(dir, Limits{Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	lost := importImage(t, store, webImage(t), "lost:1")
	importImage(t, store, other(t), "web:1")
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(blobPath(dir, digest.Digest(lost))); err != nil {
		t.Fatal(err)
	}
	again := openStore(t, dir, Limits{})
	if got := names(t, again); !slices.Equal(got, []string{"web:1"}) {
		t.Errorf("it has %q", got)
	}
	if _, _, err := again.Resolve(t.Context(), "lost:1"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// Whatever happens to index.json, the store has the same images by its copy; with both damaged or gone it does not open, and
// never takes itself for empty.
func TestADamagedIndexIsReadByItsCopyOrRefused(t *testing.T) {
	damages := map[string]func(t *testing.T, path string, content []byte){
		"gone":    func(t *testing.T, path string, _ []byte) { must(t, os.Remove(path)) },
		"empty":   func(t *testing.T, path string, _ []byte) { must(t, os.WriteFile(path, nil, 0o600)) },
		"no list": func(t *testing.T, path string, _ []byte) { must(t, os.WriteFile(path, []byte("{}"), 0o600)) },
		"cut": func(t *testing.T, path string, content []byte) {
			must(t, os.WriteFile(path, content[:len(content)/2], 0o600))
		},
		"zeroed": func(t *testing.T, path string, content []byte) {
			must(t, os.WriteFile(path, make([]byte, len(content)), 0o600))
		},
		"another name": func(t *testing.T, path string, content []byte) {
			must(t, os.WriteFile(path, bytes.Replace(content, []byte("web:1"), []byte("wec:1"), 1), 0o600))
		},
		"no checksum": func(t *testing.T, path string, content []byte) {
			must(t, os.WriteFile(path, bytes.Replace(content, []byte("crc32c"), []byte("crc32d"), 1), 0o600))
		},
	}
	for name, damage := range damages {
		dir := t.TempDir()
		store := openStore(t, dir, Limits{})
		if _, err := store.Import(t.Context(), bytes.NewReader(tarOf(t, webImage(t).oci(t, "web:1")...)), "web:1"); err != nil {
			t.Fatal(err)
		}
		index := filepath.Join(dir, "index.json")
		whole, err := os.ReadFile(index)
		must(t, err)
		for _, path := range []string{index, index + ".copy"} {
			damage(t, path, whole)
			if got := names(t, openStore(t, dir, Limits{})); !slices.Equal(got, []string{"web:1"}) {
				t.Errorf("%s: %s: it has %q", name, path, got)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, whole) {
				t.Errorf("%s: %s was not put right: %v", name, path, err)
			}
		}
		damage(t, index, whole)
		damage(t, index+".copy", whole)
		if store, err := Open(dir, Limits{}); err == nil || !strings.Contains(err.Error(), "index.json and its copy beside it are damaged or gone; put the folder back from a backup") {
			t.Errorf("%s: opened %v, %v", name, store, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestIdleUploadsAndLooseBlobsGoAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := Open(t.TempDir(), Limits{Architecture: "amd64", UploadIdle: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		archive, err := startUpload(t.Context(), store, "")
		if err != nil {
			t.Fatal(err)
		}
		blob, err := startUpload(t.Context(), store, "web")
		if err != nil {
			t.Fatal(err)
		}
		content := []byte("a layer")
		if _, err := store.uploads.append(t.Context(), blob, 0, bytes.NewReader(content), nil); err != nil {
			t.Fatal(err)
		}
		if err := store.repositories().FinishUpload(t.Context(), "web", blob.id, digest.FromBytes(content)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(55 * time.Minute)
		if _, err := store.uploads.append(t.Context(), archive, 0, strings.NewReader("more"), nil); err != nil {
			t.Errorf("the upload rested only 55 minutes: %v", err)
		}
		if size := stored(t, store); size != int64(len(content)) {
			t.Errorf("%d bytes are stored; the manifest may still come", size)
		}
		time.Sleep(30 * time.Minute)
		if size := stored(t, store); size != 0 {
			t.Errorf("%d bytes are stored after 85 minutes", size)
		}
		time.Sleep(60 * time.Minute)
		if _, err := store.uploads.size("", archive.id); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("the upload is still there: %v", err)
		}
		if left := incomingFiles(t, store); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	image := webImage(t)
	content := tarOf(t, image.oci(t, "")...)
	var group sync.WaitGroup
	for n := range 8 {
		name := string(rune('a'+n)) + ":1"
		group.Go(func() {
			for range 5 {
				if _, err := store.Import(t.Context(), bytes.NewReader(content), name); err != nil {
					t.Error(err)
					return
				}
				if _, _, err := store.Resolve(t.Context(), name); err != nil {
					t.Error(err)
				}
				if _, err := store.List(t.Context()); err != nil {
					t.Error(err)
				}
				if _, err := store.Remove(t.Context(), name); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if size := stored(t, store); size != 0 {
		t.Errorf("%d bytes are left", size)
	}
}

func TestListTellsSizes(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	importImage(t, store, webImage(t), "team/web:1")
	list, err := store.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("listed %v, %v", list, err)
	}
	if image := list[0]; image.GetSizeBytes() != stored(t, store) || len(image.GetLayers()) != 2 || image.GetCreatedAt().AsTime().IsZero() {
		t.Errorf("listed %v; the store holds %d bytes", image, stored(t, store))
	}
}
