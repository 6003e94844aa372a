package zone

import (
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// removeNode forgets a node on an operator's word that it is gone for good, and gives back what it held. Nobody saw its
// containers gone, but they are fenced: their ids are never used again, so that a node that comes back all the same is told
// to end them when it registers, as a new one.
func (z *Core) removeNode(who peer.User, name string) (*apiv1.Node, error) {
	if err := z.access.MayOperate(who, "remove nodes"); err != nil {
		return nil, err
	}
	n, err := z.node(name)
	if err != nil {
		return nil, err
	}
	if err := z.mayBeGone(n); err != nil {
		return nil, err
	}
	view := z.viewNode(n)
	z.tell(&apiv1.Event{
		Kind: "node", Node: name, From: stateName(n.state()),
		Message: because(fmt.Sprintf("%s is removed", n.id), access.ByWhom(who)+" says that it is gone for good"),
	})
	for _, c := range sortedContainers(n.containers) {
		to, _ := z.tables.containers.Next(c.state(), lifecycle.ContainerNodeGone)
		z.endUnseen(c, to, &corev1.Exit{
			Reason: corev1.Exit_NODE_LOST, Code: -1, Message: access.ByWhom(who) + " removed it",
		})
	}
	z.forgetNode(n)
	return view, nil
}

// mayBeGone refuses to take a node for gone that answers, or that has not had its time to.
func (z *Core) mayBeGone(n *node) error {
	switch timeout := z.config.NodeTimeout; {
	case n.state() == lifecycle.NodeLost:
		return nil
	case n.stream != 0 && n.state() == lifecycle.NodeDrained:
		return fmt.Errorf("%s is drained and still answers; stop its NodeManager, which would register it again, and then remove it: %w",
			n.id, errdefs.ErrFailedPrecondition)
	case n.stream != 0:
		return fmt.Errorf("%s answers; \"mammoth node drain %s\" moves what runs there, and it can be removed once it is empty and its NodeManager is stopped: %w",
			n.id, n.id, errdefs.ErrFailedPrecondition)
	case n.session != "" && n.state() == lifecycle.NodeDrained:
		return nil
	default:
		return fmt.Errorf("%s was heard of less than %s ago and may only be restarting; wait until it is lost, and then remove it: %w",
			n.id, timeout, errdefs.ErrFailedPrecondition)
	}
}

// forgetNode drops a node that holds nothing.
func (z *Core) forgetNode(n *node) {
	z.endSession(n, errRegisterAgain)
	z.hideNode(n)
	delete(z.nodes, n.id)
	z.forget(kindNode, string(n.id))
}
