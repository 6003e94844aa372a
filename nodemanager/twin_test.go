package nodemanager_test

import (
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/nodemanager"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestARefusedNodeSaysSoOnceAndLeavesItsContainersAlone(t *testing.T) {
	log := &said{}
	inZoneWith(t, func(config *nodemanager.Config) { config.Logger = slog.New(slog.NewTextHandler(log, nil)) }, func(z *zone) {
		key := z.container(1)
		z.start(key, serving())
		z.pass(time.Second)
		z.rm.zone.RefuseNodes(status.Error(codes.AlreadyExists, "a NodeManager at 10.0.0.1 is n1 already"))
		z.restart()
		z.pass(10 * time.Minute)
		if n := log.count("a NodeManager at 10.0.0.1 is n1 already"); n != 1 {
			z.Errorf("it said %d times why", n)
		}
		if z.engine.Running() != 1 {
			z.Error("its container has ended")
		}
		z.rm.zone.RefuseNodes(nil)
		z.pass(2 * time.Second)
		z.want(key, corev1.ContainerStatus_RUNNING)
	})
}

func TestEachProcessOnAFolderIsAnother(t *testing.T) {
	inZone(t, func(z *zone) {
		first := z.rm.lastRegistration()
		z.restart()
		second := z.rm.lastRegistration()
		if first.GetFolderId() == "" || first.GetFolderId() != second.GetFolderId() {
			z.Errorf("the folder is %q, then %q", first.GetFolderId(), second.GetFolderId())
		}
		if first.GetProcessId() == "" || first.GetProcessId() == second.GetProcessId() {
			z.Errorf("the process is %q, then %q", first.GetProcessId(), second.GetProcessId())
		}
		z.rm.Break(status.Error(codes.Unavailable, "the connection was lost"))
		z.pass(3 * time.Second)
		again := z.rm.lastRegistration()
		if again.GetProcessId() != second.GetProcessId() || second.GetRegistration() < 1 || again.GetRegistration() <= second.GetRegistration() {
			z.Errorf("registration %d of process %q is followed by %d of %q", second.GetRegistration(), second.GetProcessId(), again.GetRegistration(), again.GetProcessId())
		}
	})
}
