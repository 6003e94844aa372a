package appmaster_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/appmaster/mastertest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// master is a client whose events are collected as they come.
type master struct {
	*appmaster.Client
	allocated map[string]*masterv1.Allocation
	completed map[string]bool
	seen      map[string]corev1.ContainerStatus_State
	withdrawn []string
	last      appmaster.Event
	t         *testing.T
}

func register(t *testing.T, zone *mastertest.Zone) *master {
	t.Helper()
	m := &master{
		t: t, Client: appmaster.New(zone.Master()), allocated: map[string]*masterv1.Allocation{},
		completed: map[string]bool{}, seen: map[string]corev1.ContainerStatus_State{},
	}
	answer, err := m.Register(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, allocation := range answer.GetContainers() {
		m.allocated[allocation.GetLease().GetContainerId()] = allocation
	}
	t.Cleanup(m.Close)
	return m
}

// hear collects all events of a while. A repeated grant or end fails the test.
func (m *master) hear(d time.Duration) {
	m.t.Helper()
	timer := time.After(d)
	for {
		select {
		case event, ok := <-m.Events():
			if !ok {
				return
			}
			m.last = event
			m.take(event)
		case <-timer:
			return
		}
	}
}

func (m *master) take(event appmaster.Event) {
	m.t.Helper()
	switch event := event.(type) {
	case appmaster.Allocated:
		container := event.Allocation.GetLease().GetContainerId()
		if m.allocated[container] != nil {
			m.t.Errorf("%s was granted twice", container)
		}
		m.allocated[container] = event.Allocation
	case appmaster.Completed:
		container := event.Status.GetLease().GetContainerId()
		if m.completed[container] {
			m.t.Errorf("the end of %s arrived twice", container)
		}
		m.completed[container] = true
	case appmaster.NodeSnapshot:
		for _, status := range event.Containers {
			m.seen[status.GetLease().GetContainerId()] = status.GetState()
		}
	case appmaster.StatusChanged:
		m.seen[event.Status.GetLease().GetContainerId()] = event.Status.GetState()
	case appmaster.Withdrawn:
		m.withdrawn = append(m.withdrawn, event.Instance)
	}
}

func ask(id string, count int32) *masterv1.Ask {
	return &masterv1.Ask{Id: id, Count: count, Resources: &corev1.Resources{CpuMillis: 100}}
}

func TestAsksAreAbsolute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := mastertest.NewZone(t, "batch")
		zone.AddNode("node-1", 4)
		m := register(t, zone)
		m.SetAsk(ask("a", 3))
		m.SetAsk(ask("a", 3))
		m.hear(time.Second)
		if len(m.allocated) != 3 {
			t.Fatalf("%d containers for an ask of 3", len(m.allocated))
		}
		m.SetAsk(ask("b", 3))
		m.hear(time.Second)
		m.WithdrawAsk("b")
		m.hear(time.Second)
		zone.AddNode("node-2", 4)
		m.hear(time.Second)
		if len(m.allocated) != 4 {
			t.Errorf("%d containers, want 4: the node was full and the rest withdrawn", len(m.allocated))
		}
	})
}

func TestNothingIsLostOrDoubledWhileTheResourceManagerComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(3, 4))
		zone := mastertest.NewZone(t, "batch")
		zone.AddNode("node-1", 1000)
		m := register(t, zone)
		released := map[string]bool{}
		for round := range 40 {
			m.SetAsk(ask(fmt.Sprintf("ask-%d", round), 5))
			if random.IntN(2) == 0 {
				zone.Restart(time.Duration(random.IntN(300)) * time.Millisecond)
			}
			for _, container := range slices.Sorted(maps.Keys(m.allocated)) {
				if !released[container] && random.IntN(3) == 0 {
					released[container] = true
					m.Release(container, "enough")
				}
			}
			m.ReportInstance(&masterv1.InstanceReport{Id: fmt.Sprintf("batch-%d", round%7), Restarts: int32(round)})
			m.SaveMemo([]byte(fmt.Sprint(round)))
			m.ReportGeneration(int64(round))
			m.hear(time.Duration(random.IntN(200)) * time.Millisecond)
		}
		m.hear(time.Minute)
		if len(m.allocated) != 200 {
			t.Errorf("%d containers were granted, want 200", len(m.allocated))
		}
		for container := range released {
			if !m.completed[container] {
				t.Errorf("the end of %s never arrived", container)
			}
		}
		if got := zone.Leases(); got != 200-len(released) {
			t.Errorf("%d leases, want %d", got, 200-len(released))
		}
		if len(zone.Instances()) != 7 || zone.Instances()[39%7].GetRestarts() != 39 || zone.ReportedGeneration() != 39 {
			t.Errorf("reports %v, observed %d", zone.Instances(), zone.ReportedGeneration())
		}
		m.Close()
		next := appmaster.New(zone.Master())
		defer next.Close()
		answer, err := next.Register(t.Context())
		if err != nil || string(answer.GetMemo()) != "39" || len(answer.GetContainers()) != zone.Leases() {
			t.Errorf("the next attempt is given the memo %q and %d containers: %v", answer.GetMemo(), len(answer.GetContainers()), err)
		}
	})
}

func TestAnEndThatNoMasterSawIsReportedToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := mastertest.NewZone(t, "batch")
		zone.AddNode("node-1", 4)
		m := register(t, zone)
		m.SetAsk(ask("a", 1))
		m.hear(time.Second)
		container := slices.Collect(maps.Keys(m.allocated))[0]
		m.start(container)
		m.hear(time.Second)
		m.Close()
		zone.Kill(container)
		m = register(t, zone)
		m.hear(time.Second)
		if !m.completed[container] {
			t.Errorf("the end of %s was not reported", container)
		}
		zone.Restart(time.Second)
		m.hear(5 * time.Second) // it must not be reported again
	})
}

func (m *master) start(container string) {
	m.t.Helper()
	if _, err := m.Start(m.t.Context(), m.allocated[container], &corev1.ContainerSpec{Command: []string{"true"}}); err != nil {
		m.t.Fatal(err)
	}
}

func TestStatusesGoOnAfterTheNodeManagerMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := mastertest.NewZone(t, "batch")
		node := zone.AddNode("node-1", 4)
		m := register(t, zone)
		m.SetAsk(ask("a", 2))
		m.hear(time.Second)
		containers := slices.Sorted(maps.Keys(m.allocated))
		m.start(containers[0])
		m.hear(time.Second)
		if m.seen[containers[0]] != corev1.ContainerStatus_RUNNING {
			t.Fatalf("%s is seen %v", containers[0], m.seen[containers[0]])
		}
		node.Restart()
		m.hear(time.Second)
		m.start(containers[1])
		zone.Kill(containers[0])
		m.hear(time.Second)
		if m.seen[containers[0]] != corev1.ContainerStatus_DONE || m.seen[containers[1]] != corev1.ContainerStatus_RUNNING {
			t.Errorf("seen: %v", m.seen)
		}
	})
}

// A master's token to watch a node may have been signed by a key that is no longer valid when the node is watched anew.
func TestANodeIsWatchedAfterTheKeysWereRotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := mastertest.NewZone(t, "batch")
		node := zone.AddNode("node-1", 4)
		m := register(t, zone)
		m.SetAsk(ask("a", 2)) // for the other one's sake the node is watched after the end of the first
		m.hear(time.Second)
		container := slices.Sorted(maps.Keys(m.allocated))[0]
		m.start(container)
		m.hear(time.Second)
		zone.RotateKey()
		zone.RotateKey()
		node.Restart()
		m.hear(5 * time.Second)
		zone.Kill(container)
		m.hear(time.Second)
		if m.seen[container] != corev1.ContainerStatus_DONE {
			t.Errorf("%s is seen %v", container, m.seen[container])
		}
	})
}

func TestAWithdrawalIsConfirmedThatWasReportedDuringARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := mastertest.NewZone(t, "web")
		m := register(t, zone)
		report := &masterv1.InstanceReport{Id: "web-1", State: apiv1.Instance_RUNNING, InService: true}
		m.ReportInstance(report)
		m.hear(time.Second)
		zone.Restart(time.Second)
		out := proto.CloneOf(report)
		out.InService, out.State = false, apiv1.Instance_DRAINING
		m.ReportInstance(out)
		m.hear(5 * time.Second)
		if !slices.Contains(m.withdrawn, "web-1") {
			t.Error("it was never confirmed that web-1 is withdrawn")
		}
	})
}

func TestAReplacedAttemptIsSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := mastertest.NewZone(t, "web")
		first := register(t, zone)
		register(t, zone)
		first.hear(10 * time.Second)
		if _, ok := first.last.(appmaster.Superseded); !ok {
			t.Errorf("the last event was %#v", first.last)
		}
		config := zone.Master()
		config.Attempt = 1
		late := appmaster.New(config)
		defer late.Close()
		if _, err := late.Register(t.Context()); !errors.Is(err, appmaster.ErrSuperseded) {
			t.Errorf("an old attempt registered: %v", err)
		}
	})
}

func TestTheEnvironmentNamesTheMaster(t *testing.T) {
	for name, value := range map[string]string{
		appmaster.EnvResourceManager: "127.0.0.1:7070", appmaster.EnvAppID: "application_1_0001",
		appmaster.EnvApp: "web", appmaster.EnvAttempt: "2", appmaster.EnvToken: "secret",
	} {
		t.Setenv(name, value)
	}
	config, err := appmaster.FromEnvironment()
	if err != nil || config.Attempt != 2 || config.App != "web" || config.Token != "secret" || config.ResourceManager != "127.0.0.1:7070" {
		t.Fatalf("%+v, %v", config, err)
	}
	for name, bad := range map[string]string{
		appmaster.EnvResourceManager: "nowhere", appmaster.EnvAppID: "7", appmaster.EnvApp: "", appmaster.EnvAttempt: "zero",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, bad)
			if _, err := appmaster.FromEnvironment(); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%s=%q: %v", name, bad, err)
			}
		})
	}
}
