package term

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

var (
	errDiskBroken = errors.New("input/output error")
	errDiskFull   = fmt.Errorf("the disk of /zone is full; make room there, and changes are taken again: %w", errdefs.ErrResourceExhausted)
)

// failingDisk is a store that takes nothing while fails is set, and says so while lacks is.
type failingDisk struct {
	store.Store
	mu           sync.Mutex
	fails, lacks error
}

func (s *failingDisk) fail(commit, room error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails, s.lacks = commit, room
}

func (s *failingDisk) Commit(ctx context.Context, batch store.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		return s.fails
	}
	return s.Store.Commit(ctx, batch)
}

func (s *failingDisk) Room() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lacks
}

// A full disk is said, and nothing that needs room is taken; what ends things is, as long as what is reserved lasts. When that is
// used up too, nobody is told of what is not stored, everybody may still look, and nothing is lost when there is room again.
func TestAFullDiskIsSurvived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, failing := &store.Disk{}, &failingDisk{}
		z := newTestZone(t, func() store.Store {
			failing.Store = store.OpenMemory(disk, store.Options{Now: time.Now(), EventRetention: 10_000})
			return failing
		})
		defer z.stop()
		n := z.addNode("node-1")
		z.deploy(webSpec(2))
		m := n.launchMaster()
		container := m.startInstance(n, "web-1")
		failing.fail(nil, errDiskFull)
		z.pass(2 * roomLook)
		_, err := z.apps().Deploy(t.Context(), &apiv1.DeployRequest{Spec: specIn("other", "default"), IfGeneration: -1})
		if got := wire.Error(err); !errdefs.IsResourceExhausted(got) || !strings.HasPrefix(wire.Sentence(got), "the disk of /zone is full") {
			t.Errorf("a deployment: %v", err)
		}
		if _, err := z.rm.Drain(as("root"), "node-1", ""); err != nil {
			t.Errorf("a drain: %v", err)
		}
		if _, err := z.rm.Undrain(as("root"), "node-1"); err != nil {
			t.Errorf("the end of a drain: %v", err)
		}
		if zone := z.rm.Zone(); !strings.HasPrefix(zone.GetFull(), "the disk of /zone is full") {
			t.Errorf("the zone says %q", zone.GetFull())
		}

		failing.fail(errDiskFull, errDiskFull)
		stopped := make(chan error, 1)
		go func() {
			_, err := z.rm.Stop(as("root"), "web")
			stopped <- err
		}()
		synctest.Wait()
		for range 3 {
			if app := z.app("web"); app.GetName() != "web" {
				t.Errorf("nobody can look: %v", app)
			}
			n.report(container, func(s *corev1.ContainerStatus) { s.Labels = map[string]string{"instance": "web-1", "seen": "late"} })
			z.pass(time.Second)
		}
		select {
		case err := <-stopped:
			t.Errorf("a stop that is not stored was answered with %v", err)
		default:
		}
		failing.fail(nil, nil)
		z.pass(2 * roomLook)
		if err := <-stopped; err != nil {
			t.Errorf("the stop: %v", err)
		}
		z.deploy(specIn("other", "default"))
		var said []string
		for _, event := range z.events("") {
			if event.GetKind() == "zone" {
				said = append(said, event.GetFrom()+">"+event.GetTo())
			}
		}
		if !slices.Equal(said, []string{">DISK_FULL", "DISK_FULL>"}) {
			t.Errorf("events: %q", said)
		}
	})
}

// A ResourceManager that starts on a full disk publishes nothing until there is room, and balancers keep what they route.
func TestAStartOnAFullDiskLeavesBalancersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, failing := &store.Disk{}, &failingDisk{}
		z := newTestZone(t, func() store.Store {
			failing.Store = store.OpenMemory(disk, store.Options{Now: time.Now(), EventRetention: 10_000})
			return failing
		})
		defer z.stop()
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		n.launchMaster().startInstance(n, "web-1")
		n.cut()
		z.stop()
		change(t, disk, store.Put{Kind: "zone", Key: "zone"}) // which is written anew
		failing.fail(errDiskFull, errDiskFull)
		z.start()
		z.pass(3 * time.Second)
		if ids, known := z.board.Serving("web"); known || !z.board.Held() {
			t.Errorf("the registry has %v, and companions are sent that", ids)
		}
		failing.fail(nil, nil)
		z.pass(3 * time.Second)
		if ids, _ := z.board.Serving("web"); !slices.Equal(ids, []string{"web-1"}) || z.board.Held() {
			t.Errorf("with room the registry has %v; companions are sent nothing: %v", ids, z.board.Held())
		}
	})
}

// What cannot be stored was not: the ResourceManager ends with the reason, tells nobody of that turn, and goes on later from
// what is stored.
func TestAStoreThatTakesNothingEndsTheResourceManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, broken := &store.Disk{}, &failingDisk{}
		z := newTestZone(t, func() store.Store {
			broken.fail(nil, nil)
			broken.Store = store.OpenMemory(disk, store.Options{Now: time.Now(), EventRetention: 10_000})
			return broken
		})
		z.deploy(webSpec(1))
		watch, err := z.rm.WatchApp("web")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		services := z.board.Generation()
		z.rm.looks.put(task{look: func(*zone.Core) (any, error) { broken.fail(errDiskBroken, nil); return nil, nil }})
		if _, err := z.rm.Scale(as("root"), &apiv1.ScaleAppRequest{Name: "web", Instances: 7}); !errdefs.IsUnavailable(err) {
			t.Errorf("the caller was told %v", err)
		}
		if got, err := watch.Next(t.Context()); !errdefs.IsUnavailable(err) {
			t.Errorf("a watcher was told %v, %v", got, err)
		}
		if _, err := z.rm.Deploy(as("root"), &apiv1.DeployRequest{Spec: specIn("other", "default")}); !errdefs.IsUnavailable(err) {
			t.Errorf("who came after it was told %v", err)
		}
		if z.board.Generation() != services {
			t.Error("the registry was told of what is not stored")
		}
		if err := <-z.ended; !errors.Is(err, errDiskBroken) {
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
