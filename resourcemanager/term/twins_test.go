package term

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// twin registers as a NodeManager that has the name of a node.
func (n *fakeNode) twin(folder, process string) error { return n.z.twin(n.name, folder, process) }

func (z *testZone) twin(name, folder, process string) error {
	_, err := trackerv1.NewResourceTrackerClient(z.conn).Register(context.Background(), &trackerv1.RegisterRequest{
		NodeId: name, Address: "10.0.0.2", ContainerManager: "10.0.0.2:7071",
		Health: &corev1.NodeHealth{Healthy: true}, FolderId: folder, ProcessId: process,
	})
	return err
}

func TestASecondNodeManagerOfANameIsRefused(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		container := n.launchMaster().startInstance(n, "web-1")
		for range 30 {
			err := n.twin("another folder", "another process")
			if status.Code(err) != codes.AlreadyExists || !strings.Contains(err.Error(), "the NodeManager at 10.0.0.1 is node-1 already, with another folder") {
				t.Fatalf("it was answered %v", err)
			}
			z.pass(time.Second)
		}
		if err := n.twin("folder of node-1", "another process"); status.Code(err) != codes.AlreadyExists || !strings.Contains(err.Error(), "a copy of this one's folder") {
			t.Errorf("one on a copy of the folder was answered %v", err)
		}
		if app := z.app("web"); app.GetRunning() != 1 || app.GetInstances()[0].GetContainerId() != container {
			t.Errorf("beside its twin the node runs %v", app.GetInstances())
		}
		if node := z.node("node-1"); node.GetAddress() != "10.0.0.1" || node.GetState() != apiv1.NodeState_READY {
			t.Errorf("the node is %v", node)
		}
		told := 0
		for _, event := range z.events("") {
			if strings.Contains(event.GetMessage(), "a second NodeManager named node-1, at 10.0.0.2:7071, is refused") {
				told++
			}
		}
		if told != 2 {
			t.Errorf("people were told %d times of two of them", told)
		}
	})
}

// A call that is repeated over a new connection may arrive twice, and late. What it says of the node is not true any more then.
func TestALateRegistrationIsRefused(t *testing.T) {
	inZone(t, func(z *testZone) {
		register := func(process string, number int64) error {
			_, err := trackerv1.NewResourceTrackerClient(z.conn).Register(context.Background(), &trackerv1.RegisterRequest{
				NodeId: "node-1", Address: "10.0.0.1", ContainerManager: "10.0.0.1:7071", FolderId: "folder", ProcessId: process, Registration: number,
			})
			return err
		}
		for _, step := range []struct {
			process string
			number  int64
			want    codes.Code
		}{
			{"first", 1, codes.OK},
			{"first", 1, codes.Aborted},
			{"first", 3, codes.OK},
			{"first", 2, codes.Aborted},
			{"second", 1, codes.OK},
			{"first", 3, codes.Aborted},
			{"second", 1, codes.Aborted},
			{"second", 2, codes.OK},
			{"first", 4, codes.OK},
		} {
			if err := register(step.process, step.number); status.Code(err) != step.want {
				t.Errorf("registration %d of the %s process is answered %v, want %v", step.number, step.process, err, step.want)
			}
		}
		z.restart()
		if err := register("first", 4); status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "registration 4 of node-1 arrives late") {
			t.Errorf("after a restart of the ResourceManager it is answered %v", err)
		}
		if err := register("first", 5); err != nil {
			t.Errorf("the next one after a restart is answered %v", err)
		}
	})
}

// A NodeManager that was started again is taken at once, however its predecessor ended.
func TestANodeOnItsOwnFolderIsTakenAtOnce(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		n.cut()
		if err := n.twin("folder of node-1", "the next process"); err != nil {
			t.Errorf("after the end of its stream: %v", err)
		}
		z.quietNodeOn("node-2", "folder", "first")
		if err := z.twin("node-2", "folder", "second"); status.Code(err) != codes.AlreadyExists {
			t.Errorf("while the stream of the one before may be alive: %v", err)
		}
		z.pass(4 * time.Second) // as after a power cut, which no stream tells of
		if err := z.twin("node-2", "folder", "second"); err != nil {
			t.Errorf("after some beats were missed: %v", err)
		}
	})
}

func TestAnotherMachineIsTakenOnceTheNodeIsLostOrRemoved(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		n.launchMaster()
		n.cut()
		if err := n.twin("another folder", "another process"); status.Code(err) != codes.AlreadyExists {
			t.Errorf("while it may only be restarting: %v", err)
		}
		z.pass(12 * time.Second)
		if err := n.twin("another folder", "another process"); err != nil {
			t.Errorf("once it is lost: %v", err)
		}
		if held := z.node("node-1").GetContainers(); len(held) != 0 {
			t.Errorf("the new machine holds %v", held)
		}
		if err := n.twin("folder of node-1", "process of node-1"); status.Code(err) != codes.AlreadyExists {
			t.Errorf("the one before, when it is back: %v", err)
		}
	})
}
