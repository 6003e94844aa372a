package term

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// lossy is a zone with an app that runs on one node, whose disk may be changed between two starts.
func lossy(t *testing.T, test func(z *testZone, n *fakeNode, m *fakeMaster, disk *store.Disk)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		disk := &store.Disk{}
		z := newTestZone(t, func() store.Store {
			return store.OpenMemory(disk, store.Options{Now: time.Now(), EventRetention: 10_000})
		})
		defer z.stop()
		n := z.addNode("node-1")
		z.deploy(webSpec(2))
		test(z, n, n.launchMaster(), disk)
	})
}

// change changes what is stored, while the zone is down.
func change(t *testing.T, disk *store.Disk, puts ...store.Put) {
	t.Helper()
	s := store.OpenMemory(disk, store.Options{Now: time.Now(), EventRetention: 10_000})
	if err := s.Commit(t.Context(), store.Batch{Puts: puts}); err != nil {
		t.Fatal(err)
	}
}

// A zone that has lost records ends nothing that it does not know, lets no master act on what may be out of date, and says so, until
// an operator accepts the loss.
func TestAZoneThatLostRecordsStandsStill(t *testing.T) {
	lossy(t, func(z *testZone, n *fakeNode, m *fakeMaster, disk *store.Disk) {
		one, two := m.startInstance(n, "web-1"), m.startInstance(n, "web-2")
		n.cut()
		z.stop()
		change(z.t, disk,
			store.Put{Kind: "container", Key: one}, // its record is lost
			store.NoteLoss(time.Now(), []string{"container " + one}))
		z.start()
		n.register()
		z.pass(3 * time.Minute) // much longer than a silent master is waited for
		if len(n.reap) > 0 || n.stopped(one) || n.stopped(two) {
			z.t.Errorf("it ended something: reaped %v, stopped %v", n.reap, n.stops)
		}
		node := z.node("node-1")
		if len(node.GetUnknown()) != 1 || node.GetUnknown()[0].GetId() != one {
			z.t.Errorf("without a record are %v", node.GetUnknown())
		}
		zone := z.rm.Zone()
		if !slices.Equal(zone.GetLosses(), []string{"container " + one}) {
			z.t.Errorf("the zone says that it lost %q", zone.GetLosses())
		}
		if _, err := z.rm.RegisterMaster(z.t.Context(), m.bearer, &masterv1.RegisterRequest{}); !errdefs.IsUnavailable(err) {
			z.t.Errorf("a master was told %v", err)
		}
		if !z.board.Held() {
			z.t.Error("balancers are sent a registry that lacks an instance")
		}
		z.restart() // it is still so after another start
		n.register()
		if zone := z.rm.Zone(); len(zone.GetLosses()) != 1 || n.stopped(one) {
			z.t.Errorf("after another start the zone says %q", zone.GetLosses())
		}

		answer, err := z.rm.AcceptLoss(as("root"))
		if err != nil || len(answer.GetLosses()) != 1 || len(answer.GetEnded()) != 1 || answer.GetEnded()[0].GetId() != one {
			z.t.Fatalf("accepted as %v, %v", answer, err)
		}
		z.pass(time.Second)
		if !n.stopped(one) || n.stopped(two) {
			z.t.Errorf("stopped: %v", n.stops)
		}
		if z.board.Held() {
			z.t.Error("balancers are sent nothing after the loss was accepted")
		}
		if zone := z.rm.Zone(); len(zone.GetLosses()) > 0 || len(z.node("node-1").GetUnknown()) > 0 {
			z.t.Errorf("afterwards the zone says %q, and the node %v", zone.GetLosses(), z.node("node-1").GetUnknown())
		}
		if _, err := z.rm.RegisterMaster(z.t.Context(), m.bearer, &masterv1.RegisterRequest{}); errdefs.IsUnavailable(err) {
			z.t.Errorf("a master still waits: %v", err)
		}
	})
}

// A store that is an older copy is found out by what nodes run, and so is one of another zone.
func TestAnOlderStoreIsFoundOut(t *testing.T) {
	for name, c := range map[string]struct {
		container func(start int64, epoch int64) string
		granted   time.Duration
		known     bool // as ended
		lossy     bool
	}{
		"granted before the last commit": {granted: -time.Hour, known: true},
		"granted after the last commit":  {granted: time.Minute, lossy: true},
		"of a later opening": {
			granted: -time.Hour, lossy: true,
			container: func(start, epoch int64) string { return fmt.Sprintf("container_e%d_%d_0001_000077", epoch+5, start) },
		},
		"of another zone": {
			granted:   -time.Hour,
			container: func(start, _ int64) string { return fmt.Sprintf("container_e1_%d_0001_000077", start-1) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			lossy(t, func(z *testZone, n *fakeNode, m *fakeMaster, _ *store.Disk) {
				m.startInstance(n, "web-1")
				n.cut()
				z.stop()
				last := time.Now()
				z.pass(2 * time.Minute)
				z.start()
				identity := z.rm.store.Identity()
				if c.container == nil {
					c.container = func(start, epoch int64) string { return fmt.Sprintf("container_e%d_%d_0001_000077", epoch-1, start) }
				}
				foreign := c.container(identity.ClusterStart.UnixMilli(), identity.Epoch)
				n.containers[foreign] = &corev1.ContainerStatus{
					Lease: &corev1.Lease{ContainerId: foreign, GrantedAt: timestamppb.New(last.Add(c.granted))}, State: corev1.ContainerStatus_RUNNING,
				}
				n.register()
				if reaped := slices.Contains(n.reap, foreign); reaped != c.known {
					z.t.Errorf("reaped: %v", n.reap)
				}
				if got := len(z.node("node-1").GetUnknown()); (got == 1) == c.known {
					z.t.Errorf("%d are without a record", got)
				}
				if zone := z.rm.Zone(); (len(zone.GetLosses()) > 0) != c.lossy {
					z.t.Errorf("the zone says that it lost %q", zone.GetLosses())
				}
				answer, err := z.rm.AcceptLoss(as("root"))
				if err != nil || (len(answer.GetEnded()) == 1) == c.known {
					z.t.Errorf("accepted as %v, %v", answer, err)
				}
				z.pass(time.Second)
				if !c.known && !n.stopped(foreign) {
					z.t.Error("it goes on after the loss was accepted")
				}
			})
		})
	}
}

// Whatever record is lost, the zone starts with the rest.
func TestAZoneStartsWithAnyRecordLost(t *testing.T) {
	for _, kind := range []store.Kind{"zone", "schema", "balancers", "app", "memo", "ask", "instance", "container", "node", "queues", "contract", "version"} {
		t.Run(string(kind), func(t *testing.T) {
			lossy(t, func(z *testZone, n *fakeNode, m *fakeMaster, disk *store.Disk) {
				m.startInstance(n, "web-1")
				n.cut()
				z.stop()
				puts := []store.Put{store.NoteLoss(time.Now(), []string{"all of a kind"})}
				s := store.OpenMemory(disk, store.Options{Now: time.Now(), EventRetention: 10})
				if err := s.Load(kind, func(key string, _ []byte) error {
					puts = append(puts, store.Put{Kind: kind, Key: key})
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				change(t, disk, puts...)
				z.start()
				n.register()
				z.pass(time.Minute)
				if len(n.stops) > 0 || len(n.reap) > 0 {
					t.Errorf("stopped %v, reaped %v", n.stops, n.reap)
				}
				if _, err := z.rm.AcceptLoss(as("root")); err != nil {
					t.Errorf("accepted: %v", err)
				}
				z.restart() // without a loss nothing that is missing is put up with
				n.register()
			})
		})
	}
}
