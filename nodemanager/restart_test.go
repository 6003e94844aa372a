package nodemanager_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager"
	"github.com/mammoth-os/mammoth/nodemanager/recovery"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestARestartFindsEveryContainerAsItWasAndStartsNone(t *testing.T) {
	inZone(t, func(z *zone) {
		const n = 20
		before := map[id.Container]*corev1.ContainerStatus{}
		for i := range int64(n) {
			z.start(z.container(i+1), serving())
		}
		z.pass(time.Second)
		for i := range int64(n) {
			before[z.container(i+1)] = z.want(z.container(i+1), corev1.ContainerStatus_RUNNING)
		}
		z.pass(time.Hour)
		z.restart()
		registration := z.rm.lastRegistration()
		if len(registration.GetContainers()) != n {
			z.Fatalf("%d containers were registered, want %d", len(registration.GetContainers()), n)
		}
		for key, was := range before {
			is := z.want(key, corev1.ContainerStatus_RUNNING)
			if !is.GetStartedAt().AsTime().Equal(was.GetStartedAt().AsTime()) || is.GetRuntimeId() != was.GetRuntimeId() {
				z.Errorf("%v was started %v as %s, is %v %s", key, was.GetStartedAt().AsTime(), was.GetRuntimeId(), is.GetStartedAt().AsTime(), is.GetRuntimeId())
			}
			if is.GetPorts()[0].GetHostPort() != was.GetPorts()[0].GetHostPort() || is.GetSequence() < was.GetSequence() {
				z.Errorf("%v: was %v, is %v", key, was, is)
			}
		}
		if z.engine.Starts() != n {
			z.Errorf("%d starts for %d containers", z.engine.Starts(), n)
		}
		z.stopCommand(z.container(1))
		z.pass(time.Second)
		z.want(z.container(1), corev1.ContainerStatus_DONE)
	})
}

func TestACrashInTheMiddleOfALaunchStartsNothingTwice(t *testing.T) {
	inZone(t, func(z *zone) {
		z.start(z.container(1), serving())
		accepted := z.records("accepted") // little but the acceptance is on the disk
		z.pass(time.Second)
		z.want(z.container(1), corev1.ContainerStatus_RUNNING)
		z.crash(accepted)
		z.want(z.container(1), corev1.ContainerStatus_RUNNING)
		if z.engine.Starts() != 1 {
			z.Errorf("%d starts", z.engine.Starts())
		}
		z.stopCommand(z.container(1))
		z.pass(time.Second)
		if z.engine.Running() != 0 {
			z.Error("it cannot be stopped after the crash")
		}
	})
}

func TestACrashBeforeTheLaunchLaunchesAfterwards(t *testing.T) {
	inZoneWith(t, nil, func(z *zone) {
		z.start(z.container(1), serving())
		z.settle() // the start takes 20 ms
		z.restart()
		z.pass(time.Second)
		z.want(z.container(1), corev1.ContainerStatus_RUNNING)
	})
}

func TestAnEndThatNobodyWatchedIsReportedWithItsCode(t *testing.T) {
	inZone(t, func(z *zone) {
		z.start(z.container(1), serving())
		z.start(z.container(2), serving())
		z.pass(time.Second)
		z.stop()
		z.engine.Kill("n1", z.container(1))
		z.engine.Kill("n1", z.container(2))
		if err := z.runtime().Remove(z.Context(), z.container(2)); err != nil {
			z.Fatal(err)
		}
		z.startNode()
		z.pass(50 * time.Millisecond)
		if exit := z.want(z.container(1), corev1.ContainerStatus_DONE).GetExit(); exit.GetReason() != corev1.Exit_EXITED || exit.GetCode() != 137 {
			z.Errorf("exit %v", exit)
		}
		if exit := z.want(z.container(2), corev1.ContainerStatus_DONE).GetExit(); exit.GetReason() != corev1.Exit_VANISHED || exit.GetCode() != -1 {
			z.Errorf("of the one that vanished: exit %v", exit)
		}
	})
}

func TestAnEndIsReportedUntilItIsForgotten(t *testing.T) {
	inZone(t, func(z *zone) {
		z.start(z.container(1), serving("exit", "0"))
		z.pass(time.Second)
		for range 2 {
			z.restart()
			if n := len(z.rm.lastRegistration().GetContainers()); n != 1 {
				z.Fatalf("%d containers were registered, want the one that ended", n)
			}
		}
		z.forget(z.container(1))
		z.pass(time.Second)
		z.restart()
		if n := len(z.rm.lastRegistration().GetContainers()); n != 0 {
			z.Errorf("%d containers were registered after they were forgotten", n)
		}
		if left := z.inEngine(); len(left) != 0 {
			z.Errorf("the engine still has %v", left)
		}
	})
}

func TestAnEndIsToldAgainToAResourceManagerThatStillWantsTheStop(t *testing.T) {
	inZone(t, func(z *zone) {
		z.start(z.container(1), serving("exit", "0"))
		z.pass(time.Second)
		z.forget(z.container(1))
		z.pass(time.Second)
		z.rm.ForgetStatus(z.container(1).String())
		z.stopCommand(z.container(1))
		z.pass(time.Second)
		z.want(z.container(1), corev1.ContainerStatus_DONE)
	})
}

func TestContainersWithoutARecordAreReapedOnlyWhenTheResourceManagerSaysSo(t *testing.T) {
	inZone(t, func(z *zone) {
		z.start(z.container(1), serving())
		z.start(z.container(2), serving())
		z.pass(time.Second)
		z.stop()
		if err := os.RemoveAll(filepath.Join(z.dir, recovery.FolderName)); err != nil {
			z.Fatal(err)
		}
		z.rm.Reap(z.container(2).String())
		z.startNode()
		z.pass(time.Second)
		if n := len(z.rm.lastRegistration().GetContainers()); n != 2 {
			z.Errorf("%d containers were registered, want both", n)
		}
		kept := z.want(z.container(1), corev1.ContainerStatus_RUNNING)
		if kept.GetLease().GetAppName() != "web" || kept.GetLabels()["instance"] != "web-1" || len(kept.GetPorts()) != 1 {
			z.Errorf("what was found is told as %v", kept)
		}
		left := z.inEngine()
		if len(left) != 1 || left[0].ID != z.container(1) || !left[0].Running {
			z.Errorf("the engine has %v, want container 1 running", left)
		}
		z.stopCommand(z.container(1))
		z.pass(time.Second)
		z.want(z.container(1), corev1.ContainerStatus_DONE)
	})
}

func TestALeaseThatEndedMeanwhileIsReaped(t *testing.T) {
	inZone(t, func(z *zone) {
		z.start(z.container(1), serving())
		z.start(z.container(2), serving())
		z.pass(time.Second)
		z.rm.Reap(z.container(1).String())
		z.restart()
		z.pass(time.Second)
		left := z.inEngine()
		if len(left) != 1 || left[0].ID != z.container(2) {
			z.Errorf("the engine has %v, want container 2 only", left)
		}
	})
}

func TestOtherNodesContainersAreNotTouched(t *testing.T) {
	inZone(t, func(z *zone) {
		other := fakeNode(z, "n2")
		foreign := runtime.Spec{ID: z.container(99), Command: []string{"serve"}}
		if _, err := other.Start(z.Context(), foreign); err != nil {
			z.Fatal(err)
		}
		z.rm.Reap(foreign.ID.String())
		z.restart()
		z.pass(time.Second)
		if n := len(z.rm.lastRegistration().GetContainers()); n != 0 {
			z.Errorf("%d containers were registered", n)
		}
		if z.engine.Running() != 1 {
			z.Error("a foreign container was stopped")
		}
		if err := other.Stop(z.Context(), foreign.ID, 0); err != nil {
			z.Error(err)
		}
	})
}

func TestWhileTheResourceManagerIsAwayContainersGoOn(t *testing.T) {
	inZone(t, func(z *zone) {
		for i := range int64(3) {
			z.start(z.container(i+1), serving())
		}
		z.pass(time.Second)
		z.rm.zone.Stop()
		z.pass(10 * time.Minute)
		if z.engine.Running() != 3 {
			z.Fatalf("%d containers run", z.engine.Running())
		}
		z.engine.Kill("n1", z.container(2))
		z.start(z.container(4), serving()) // its keys are still good
		z.pass(time.Minute)
		z.rm.zone.Start()
		z.pass(5 * time.Second)
		z.want(z.container(1), corev1.ContainerStatus_RUNNING)
		z.want(z.container(2), corev1.ContainerStatus_DONE)
		z.want(z.container(4), corev1.ContainerStatus_RUNNING)
		if z.engine.Starts() != 4 {
			z.Errorf("%d starts", z.engine.Starts())
		}
	})
}

func TestTheNodeRegistersAgainWhenItIsTold(t *testing.T) {
	inZone(t, func(z *zone) {
		z.start(z.container(1), serving())
		z.pass(time.Second)
		before := len(z.rm.Registrations())
		z.rm.Break(status.Error(codes.Aborted, "register again"))
		z.pass(100 * time.Millisecond)
		if after := len(z.rm.Registrations()); after != before+1 {
			z.Errorf("%d registrations, want %d", after, before+1)
		}
		z.stopCommand(z.container(1))
		z.pass(time.Second)
		z.want(z.container(1), corev1.ContainerStatus_DONE)
	})
}

func TestReportsAreEmptyWhenNothingChangesAndCarryEachChangeAtOnce(t *testing.T) {
	inZone(t, func(z *zone) {
		z.pass(500 * time.Millisecond)
		before := z.rm.Reports()
		z.pass(10 * time.Second)
		idle := z.rm.Reports() - before
		if idle != 10 {
			z.Errorf("%d reports in 10 s at an interval of 1 s", idle)
		}
		z.start(z.container(1), serving())
		z.pass(50 * time.Millisecond)
		z.want(z.container(1), corev1.ContainerStatus_RUNNING)
		z.engine.Kill("n1", z.container(1))
		z.pass(5 * time.Millisecond)
		z.want(z.container(1), corev1.ContainerStatus_DONE)
		if states := z.rm.States(z.container(1).String()); !slices.IsSorted(states) {
			z.Errorf("states were reported in the order %v", states)
		}
	})
}

func TestTwoHundredStarts(t *testing.T) {
	inZone(t, func(z *zone) {
		for i := range int64(200) {
			z.start(z.container(i+1), serving())
		}
		z.pass(5 * time.Second)
		ports := map[int32]bool{}
		for i := range int64(200) {
			s := z.want(z.container(i+1), corev1.ContainerStatus_RUNNING)
			ports[s.GetPorts()[0].GetHostPort()] = true
		}
		if len(ports) != 200 || z.engine.Starts() != 200 {
			z.Errorf("%d ports and %d starts for 200 containers", len(ports), z.engine.Starts())
		}
	})
}

func TestTheRegistrationTellsWhatTheNodeIs(t *testing.T) {
	inZone(t, func(z *zone) {
		z.pass(time.Second)
		r := z.rm.lastRegistration()
		if r.GetNodeId() != "n1" || r.GetAddress() != "127.0.0.1" || r.GetContainerManager() != "127.0.0.1:7071" || r.GetVersion() != "test" {
			z.Errorf("registered as %v", r)
		}
		if r.GetCapacity().GetCpuMillis() != 4000 || r.GetCapacity().GetDiskBytes() == 0 || r.GetCapacity().GetPorts() != 10000 {
			z.Errorf("capacity %v", r.GetCapacity())
		}
		for _, name := range []string{"arch", "os", "kernel", "host_network", "cgroup_version", "disk_quota"} {
			if r.GetAttributes()[name] == nil {
				z.Errorf("attribute %s is missing from %v", name, r.GetAttributes())
			}
		}
	})
}

func TestTwoNodeManagersCannotShareAFolder(t *testing.T) {
	inZone(t, func(z *zone) {
		config := nodemanager.Config{
			Dir: z.dir, NodeID: "n2", ResourceManager: "127.0.0.1:7070",
			Runtimes: map[corev1.ContainerSpec_Runtime]runtime.Runtime{corev1.ContainerSpec_DOCKER: z.runtime()},
		}
		if _, err := nodemanager.New(config); !errdefs.IsFailedPrecondition(err) {
			z.Errorf("got %v", err)
		}
	})
}

// slow is a runtime whose Remove hangs while stuck.
type slow struct {
	runtime.Runtime
	stuck *atomic.Bool
}

func (s slow) Remove(ctx context.Context, key id.Container) error {
	if s.stuck.Load() {
		<-ctx.Done()
		return fmt.Errorf("the removal was interrupted: %w", context.Cause(ctx))
	}
	return s.Runtime.Remove(ctx, key)
}

func TestARemovalThatARestartInterruptedIsTakenUpAgain(t *testing.T) {
	stuck := &atomic.Bool{}
	stuck.Store(true)
	inZoneWith(t, func(config *nodemanager.Config) {
		config.Runtimes[corev1.ContainerSpec_DOCKER] = slow{config.Runtimes[corev1.ContainerSpec_DOCKER], stuck}
	}, func(z *zone) {
		for i := range int64(3) {
			z.start(z.container(i+1), serving("exit", "0"))
		}
		z.pass(time.Second)
		z.forget(z.container(1), z.container(2), z.container(3))
		z.pass(time.Second)
		if n := len(z.inEngine()); n != 3 {
			z.Fatalf("%d containers are in the engine before the restart", n)
		}
		z.stop()
		stuck.Store(false)
		z.startNode()
		z.pass(time.Second)
		if left := z.inEngine(); len(left) != 0 {
			z.Errorf("the engine still has %v", left)
		}
	})
}
