package node

import (
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// ApplyCommand performs a command of the ResourceManager, except RemoveStateDir, which its owner performs.
func (n *Node) ApplyCommand(command *trackerv1.NodeCommand) {
	switch c := command.GetCommand().(type) {
	case *trackerv1.NodeCommand_Launch_:
		n.launch(c.Launch.GetToken(), c.Launch.GetSpec())
	case *trackerv1.NodeCommand_Stop_:
		stop := container.Stop{Reason: stopReason(c.Stop.GetReason()), Message: c.Stop.GetMessage()}
		if c.Stop.GetGrace() != nil {
			grace := c.Stop.GetGrace().AsDuration()
			stop.Grace = &grace
		}
		n.stop(c.Stop.GetContainerId(), stop)
	case *trackerv1.NodeCommand_Forget_:
		for _, containerID := range c.Forget.GetContainerIds() {
			n.forgetContainer(containerID)
		}
	case *trackerv1.NodeCommand_Keys_:
		n.Trust(c.Keys.GetKeys())
	}
}

// ApplyRegistration applies the ResourceManager's answer to a registration.
func (n *Node) ApplyRegistration(response *trackerv1.RegisterResponse) {
	n.Trust(response.GetKeys())
	for _, containerID := range response.GetReap() {
		n.reap(containerID)
	}
}

// launch starts an application master for the ResourceManager. One that cannot be started is reported as ended.
func (n *Node) launch(signed *corev1.ContainerToken, spec *corev1.ContainerSpec) {
	_, err := n.Admit(signed, spec)
	if err == nil {
		return
	}
	key, claims, leaseErr := n.leaseOf(signed)
	if leaseErr != nil {
		n.note(Note{Text: "a launch of the ResourceManager was refused", Error: leaseErr.Error(), Warning: true})
		return
	}
	n.refuse(key, claims.GetLease(), spec, container.Exit{Reason: container.LaunchFailed, Code: -1, Message: wire.Sentence(err)})
}

// stop is the ResourceManager's Stop. A container that never arrived is ended in advance: its lease ends when the
// node reports the end, and a late start finds it ended.
func (n *Node) stop(containerID string, stop container.Stop) {
	key, err := id.ParseContainer(containerID)
	if err != nil {
		n.note(Note{Text: "the ResourceManager sent an invalid container id", Error: containerID, Warning: true})
		return
	}
	if h := n.containers[key]; h != nil {
		if h.Core.State == container.Done {
			n.change(h, true) // the ResourceManager does not have the end
		}
		n.apply(h, container.Fact{Event: container.StopRequested, Stop: stop})
		return
	}
	if stop.Message == "" {
		stop.Message = "it was never started on this node"
	}
	lease := &corev1.Lease{ContainerId: containerID, AppId: key.App.String(), NodeId: n.settings.ID}
	n.refuse(key, lease, &corev1.ContainerSpec{}, container.Exit{Reason: stop.Reason, Code: -1, Message: stop.Message})
}

// forgetContainer records that the ResourceManager has stored the end of a container.
func (n *Node) forgetContainer(containerID string) {
	if key, err := id.ParseContainer(containerID); err == nil {
		n.Fact(key, container.Fact{Event: container.EndAcknowledged})
	}
}

// reap ends a container that has no lease any more.
func (n *Node) reap(containerID string) {
	key, err := id.ParseContainer(containerID)
	if err != nil {
		return
	}
	if h := n.containers[key]; h != nil {
		n.apply(h, container.Fact{Event: container.StopRequested, Stop: container.Stop{
			Reason: container.LeaseEnded, Message: "the ResourceManager holds no lease for it",
		}})
		n.apply(h, container.Fact{Event: container.EndAcknowledged})
	}
}
