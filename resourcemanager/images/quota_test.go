package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/mammoth-os/mammoth/internal/distribution"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/peer/peertest"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// by is a request of a user's program.
func by(t *testing.T, user string) context.Context {
	return peertest.With(t.Context(), peer.User{Name: user, Operator: user == "root"})
}

// noise is content that stays as large as it is.
func noise(size int) []byte {
	content, state := make([]byte, size), uint32(1)
	for i := range content {
		state = state*1664525 + 1013904223
		content[i] = byte(state >> 24)
	}
	return content
}

// startUpload starts an upload, and finds it.
func startUpload(ctx context.Context, store *Store, repository string) (*upload, error) {
	id, err := store.uploads.start(ctx, repository)
	if err != nil {
		return nil, err
	}
	return store.uploads.find(repository, id)
}

// large is an image with a layer of so many bytes of its own.
func large(t *testing.T, mark string, size int) []byte {
	image := webImage(t)
	image.layers = append(image.layers, tarOf(t, entry{name: mark, content: noise(size)}))
	return tarOf(t, image.oci(t, "")...)
}

// bubbleStore opens a store inside a bubble.
func bubbleStore(t *testing.T, limits Limits) *Store {
	limits.Architecture = "amd64"
	store, err := Open(t.TempDir(), limits)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func wantSays(t *testing.T, err, class error, says string) {
	t.Helper()
	if !errors.Is(err, class) || !strings.Contains(wire.Sentence(err), says) {
		t.Errorf("it says %v, which is not %q with %q", err, class, says)
	}
}

func TestEachUserHasAPartOfTheStore(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{UserBytes: 8 << 20})
	if _, err := store.Import(by(t, "ann"), bytes.NewReader(large(t, "a", 4<<20)), "ann:1"); err != nil {
		t.Fatal(err)
	}
	_, err := store.Import(by(t, "ann"), bytes.NewReader(large(t, "b", 5<<20)), "ann:2")
	wantSays(t, err, errdefs.ErrResourceExhausted, `user "ann" has 7`)
	wantSays(t, err, errdefs.ErrResourceExhausted, "of the 8MiB that one user may have in the image store, including uploads in progress; remove images with `mammoth image rm`")
	for _, other := range []string{"bob", "root", ""} {
		if _, err := store.Import(by(t, other), bytes.NewReader(large(t, "b"+other, 5<<20)), "of-"+other+"x:1"); err != nil {
			t.Errorf("%q is refused what ann has used up: %v", other, err)
		}
	}
	if _, err := store.Import(by(t, "root"), bytes.NewReader(large(t, "c", 12<<20)), "of-root:2"); err != nil {
		t.Errorf("an operator is held to a user's part: %v", err)
	}
	// What a restart finds is still ann's, and what is removed is not any more.
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	again := openStore(t, store.dir, Limits{UserBytes: 8 << 20})
	_, err = again.Import(by(t, "ann"), bytes.NewReader(large(t, "b", 5<<20)), "ann:2")
	wantSays(t, err, errdefs.ErrResourceExhausted, `user "ann" has `)
	if _, err := again.Remove(by(t, "ann"), "ann:1"); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Import(by(t, "ann"), bytes.NewReader(large(t, "b", 5<<20)), "ann:2"); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	if again.quotas.incoming != 0 || len(again.quotas.byUser)+len(again.uploads.byUser) != 0 {
		t.Errorf("%d bytes are on their way for %v", again.quotas.incoming, again.quotas.byUser)
	}
	if size := stored(t, again); size != again.blobs.bytes() {
		t.Errorf("%d bytes are stored, and %d counted", size, again.blobs.bytes())
	}
}

func TestPushedBlobsCountBeforeTheirManifestComes(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{UserBytes: 4 << 20})
	push := func(user string, content []byte) error {
		u, err := startUpload(by(t, user), store, "web")
		if err != nil {
			return err
		}
		if _, err := store.uploads.append(by(t, user), u, 0, bytes.NewReader(content), nil); err != nil {
			return err
		}
		return store.repositories().FinishUpload(by(t, user), "web", u.id, digest.FromBytes(content))
	}
	if err := push("ann", noise(3<<20)); err != nil {
		t.Fatal(err)
	}
	wantSays(t, push("ann", noise(2<<20)), errdefs.ErrResourceExhausted, `user "ann" has `)
	if err := push("bob", noise(2<<20)); err != nil {
		t.Error(err)
	}
	if left := incomingFiles(t, store); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestTheStoreAsAWholeIsBounded(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{TotalBytes: 8 << 20})
	if _, err := store.Import(by(t, "root"), bytes.NewReader(large(t, "a", 4<<20)), "a:1"); err != nil {
		t.Fatal(err)
	}
	_, err := store.Import(by(t, "root"), bytes.NewReader(large(t, "b", 5<<20)), "b:1")
	wantSays(t, err, errdefs.ErrResourceExhausted, "of the 8MiB that it may have, including uploads in progress; remove images with `mammoth image rm`")
}

func TestRoomIsKeptForTheZonesRecords(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{KeepFree: 100 << 20})
	free := int64(104 << 20)
	store.quotas.disk = func() (int64, int64, error) { return free, 1 << 30, nil }
	u, err := startUpload(by(t, "root"), store, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.uploads.append(by(t, "root"), u, 0, bytes.NewReader(noise(1<<20)), nil); err != nil {
		t.Fatal(err)
	}
	free = 100 << 20
	_, err = store.uploads.append(by(t, "root"), u, -1, bytes.NewReader(noise(1<<20)), nil)
	wantSays(t, err, errdefs.ErrResourceExhausted, "the image store's disk has 100MiB free, of which 100MiB are reserved for the zone's own records; remove images")
	_, err = store.uploads.size("", u.id)
	wantSays(t, err, errdefs.ErrNotFound, "there is no upload with the id")
	image := webImage(t)
	pushed := distribution.Manifest{Digest: digest.FromBytes(image.manifest(t)), MediaType: distribution.MediaTypeOCIManifest, Content: image.manifest(t)}
	err = store.repositories().PutManifest(by(t, "root"), "web", pushed.Digest.String(), pushed)
	wantSays(t, err, errdefs.ErrResourceExhausted, "are reserved for the zone's own records")
}

func TestOneUserDoesNotTakeAllUploads(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{Uploads: 6, UserUploads: 4})
	start := func(user string, n int) error {
		for range n {
			if _, err := startUpload(by(t, user), store, ""); err != nil {
				return err
			}
		}
		return nil
	}
	if err := start("ann", 4); err != nil {
		t.Fatal(err)
	}
	wantSays(t, start("ann", 1), errdefs.ErrUnavailable, `user "ann" has 4 uploads in progress, which is the limit`)
	if err := start("bob", 2); err != nil {
		t.Fatal(err)
	}
	wantSays(t, start("bob", 1), errdefs.ErrUnavailable, "6 uploads are in progress, which is the limit; try again later")
	if err := start("root", 6); err != nil {
		t.Errorf("an operator is kept out: %v", err)
	}
	wantSays(t, start("root", 1), errdefs.ErrUnavailable, "has 6 uploads in progress, which is the limit")

	store = openStore(t, t.TempDir(), Limits{Uploads: 6, UserUploads: 4})
	if err := errors.Join(start("root", 6), start("ann", 4)); err != nil {
		t.Errorf("an operator's uploads keep others out: %v", err)
	}
}

func TestUploadsThatRestMakeRoomAfterMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := bubbleStore(t, Limits{Uploads: 2, UserUploads: 2, TotalBytes: 4 << 20})
		defer store.Close()
		resting, err := startUpload(by(t, "ann"), store, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.uploads.append(by(t, "ann"), resting, 0, bytes.NewReader(noise(2<<20)), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := startUpload(by(t, "ann"), store, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		_, err = startUpload(by(t, "bob"), store, "")
		wantSays(t, err, errdefs.ErrUnavailable, "uploads are in progress")
		_, err = store.Import(by(t, "bob"), bytes.NewReader(large(t, "b", 3<<20)), "bob:1")
		wantSays(t, err, errdefs.ErrResourceExhausted, "including uploads in progress")
		time.Sleep(61 * time.Second)
		if _, err := startUpload(by(t, "bob"), store, ""); err != nil {
			t.Errorf("uploads that rested two minutes keep others out: %v", err)
		}
		if _, err := store.Import(by(t, "bob"), bytes.NewReader(large(t, "b", 3<<20)), "bob:1"); err != nil {
			t.Errorf("uploads that rested two minutes take up room: %v", err)
		}
		_, err = store.uploads.size("", resting.id)
		wantSays(t, err, errdefs.ErrNotFound, "it may have been idle for too long")
	})
}

func TestBlobsOfAPushThatGoesOnStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := bubbleStore(t, Limits{UploadIdle: 10 * time.Minute})
		defer store.Close()
		first := noise(1000)
		u, err := startUpload(by(t, "ann"), store, "web")
		if err == nil {
			_, err = store.uploads.append(by(t, "ann"), u, 0, bytes.NewReader(first), nil)
		}
		if err == nil {
			err = store.repositories().FinishUpload(by(t, "ann"), "web", u.id, digest.FromBytes(first))
		}
		if err != nil {
			t.Fatal(err)
		}
		// A large layer takes longer than what rests may.
		slow, err := startUpload(by(t, "ann"), store, "web")
		if err != nil {
			t.Fatal(err)
		}
		if err := store.uploads.lock(t.Context(), slow, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		store.collector.dropIdle(t.Context())
		if size := stored(t, store); size != 1000 {
			t.Errorf("%d bytes are stored while the push goes on", size)
		}
		store.uploads.unlock(slow)
		time.Sleep(time.Hour)
		if size := stored(t, store); size != 0 {
			t.Errorf("%d bytes are stored an hour after the push ended", size)
		}
	})
}

func TestNamesAndManifestsAreBounded(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{Names: 8})
	content := tarOf(t, webImage(t).oci(t, "")...)
	for _, name := range []string{"a:1", "a:2"} {
		if _, err := store.Import(by(t, "ann"), bytes.NewReader(content), name); err != nil {
			t.Fatal(err)
		}
	}
	_, err := store.Import(by(t, "ann"), bytes.NewReader(content), "a:3")
	wantSays(t, err, errdefs.ErrResourceExhausted, `user "ann" has 3 names and 1 manifests in the image store; the limits are 2 and 8`)
	for _, name := range []string{"b:1", "b:2", "b:3", "b:4", "b:5", "b:6"} {
		if _, err := store.Import(by(t, "root"), bytes.NewReader(content), name); err != nil {
			t.Fatal(err)
		}
	}
	_, err = store.Import(by(t, "root"), bytes.NewReader(content), "b:7")
	wantSays(t, err, errdefs.ErrResourceExhausted, "has 9 names and 1 manifests; the limits are 8 and 32")
}

func TestFinishedUploadsAreForgotten(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	for range maxFinished + 10 {
		u, err := startUpload(t.Context(), store, "")
		if err != nil {
			t.Fatal(err)
		}
		store.uploads.finish(u, &apiv1.Image{})
	}
	if len(store.uploads.byUser)+len(store.quotas.byUser) != 0 || len(store.uploads.all) != maxFinished {
		t.Errorf("%d uploads are remembered, for %v and %v", len(store.uploads.all), store.uploads.byUser, store.quotas.byUser)
	}
}

func TestAFewImagesAreExaminedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newLimiter()
		ann, bob := peer.User{Name: "ann"}, peer.User{Name: "bob"}
		first, _ := turns.acquire(t.Context(), ann)
		second, _ := turns.acquire(t.Context(), ann)
		began := make(chan func())
		go func() {
			third, _ := turns.acquire(t.Context(), ann)
			began <- third
		}()
		synctest.Wait()
		others, err := turns.acquire(t.Context(), bob)
		if err != nil {
			t.Error("another user waits for ann")
		}
		select {
		case <-began:
			t.Error("three images of one user are examined at once")
		default:
		}
		first()
		third := <-began
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := turns.acquire(gone, ann); !errors.Is(err, context.Canceled) {
			t.Errorf("somebody who left gets a turn: %v", err)
		}
		second()
		third()
		others()
		if !turns.all.TryAcquire(maxExaminations) {
			t.Error("a turn was not given back")
		}
	})
}

func TestANameThatIsAnothersToMoveStaysWhereItIs(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{MayMove: func(ctx context.Context, name string) error {
		if who := peer.From(ctx); who.Name != "ann" && name == "web:1" {
			return fmt.Errorf("%s may not move %s: %w", who, name, errdefs.ErrPermissionDenied)
		}
		return nil
	}})
	ours, theirs := webImage(t), other(t)
	if _, err := store.Import(by(t, "ann"), bytes.NewReader(tarOf(t, ours.oci(t, "")...)), "web:1"); err != nil {
		t.Fatal(err)
	}
	content := tarOf(t, theirs.saved(t, "new:1", "web:1")...)
	for _, name := range []string{"web:1", ""} {
		_, err := store.Import(by(t, "bob"), bytes.NewReader(content), name)
		wantSays(t, err, errdefs.ErrPermissionDenied, `user "bob" may not move web:1`)
	}
	if _, err := store.Import(by(t, "bob"), bytes.NewReader(tarOf(t, ours.oci(t, "")...)), "web:1"); err != nil {
		t.Errorf("the same image is no move: %v", err)
	}
	if got := names(t, store); !slices.Equal(got, []string{"web:1"}) {
		t.Errorf("it has %q", got)
	}
	pushBlobs(t, store, "web", theirs)
	m := distribution.Manifest{Digest: digest.FromBytes(theirs.manifest(t)), MediaType: distribution.MediaTypeOCIManifest, Content: theirs.manifest(t)}
	for _, reference := range []string{"1", digest.FromBytes(ours.manifest(t)).String()} {
		err := store.repositories().DeleteManifest(by(t, "bob"), "web", reference)
		wantSays(t, err, errdefs.ErrPermissionDenied, `user "bob" may not move web:1`)
	}
	_, err := store.Remove(by(t, "bob"), "web:1")
	wantSays(t, err, errdefs.ErrPermissionDenied, `user "bob" may not move web:1`)
	wantSays(t, store.repositories().PutManifest(by(t, "bob"), "web", "1", m), errdefs.ErrPermissionDenied, `user "bob" may not move web:1`)
	if sum, _, err := store.Resolve(t.Context(), "web:1"); err != nil || sum != digest.FromBytes(ours.manifest(t)).String() {
		t.Errorf("web:1 is %s, %v", sum, err)
	}
	pushBlobs(t, store, "web", theirs)
	if err := store.repositories().PutManifest(by(t, "ann"), "web", "1", m); err != nil {
		t.Error(err)
	}
}

func TestANameInUseIsNotDeletedByTheRegistryEither(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{Unused: func(_ context.Context, name, sum string) error {
		return fmt.Errorf("app web uses image %s: %w", name, errdefs.ErrFailedPrecondition)
	}})
	sum := importImage(t, store, webImage(t), "web:1")
	for _, reference := range []string{"1", sum} {
		ask(t, store, "DELETE", "/v2/web/manifests/"+reference, nil).want(t, 400, "app web uses image web:1")
	}
}

func TestPromisesAreBounded(t *testing.T) {
	pending := newPendingBlobs()
	ask := func(user string, n int) {
		for i := range n {
			pending.keep(pendingKey{fmt.Sprint(i), user, emptyDigest}, 0)
		}
	}
	ask("ann", maxPending)
	ask("bob", 10)
	if ann, bob := pending.byUser["ann"], pending.byUser["bob"]; ann != maxPending/4 || bob != 10 || len(pending.blobs) != ann+bob {
		t.Errorf("ann has %d promises, bob %d, of %d", ann, bob, len(pending.blobs))
	}
	pending.dropOld(time.Now().Add(time.Hour), time.Minute, nil)
	if len(pending.blobs)+len(pending.byUser) != 0 {
		t.Errorf("%d promises are left, of %v", len(pending.blobs), pending.byUser)
	}
}
