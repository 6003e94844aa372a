package zone

import (
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// due declares silent nodes lost, forgets those that have been lost for long, and goes on with drains.
func (ns *nodes) due() {
	var due []*node
	for _, n := range ns.byID {
		deadline := n.lastHeard().Add(ns.config.NodeTimeout)
		if n.state() == lifecycle.NodeLost || n.state() == lifecycle.NodeDraining || ns.now.After(deadline) {
			due = append(due, n)
			continue
		}
		ns.WakeBy(deadline.Add(time.Millisecond))
	}
	slices.SortFunc(due, func(a, b *node) int { return id.CompareNames(string(a.id), string(b.id)) })
	for _, n := range due {
		silent := ns.now.Sub(n.lastHeard())
		switch {
		case n.state() == lifecycle.NodeLost:
			if len(n.containers) == 0 && silent > forgetNodeAfter {
				ns.drop(n)
				ns.Emit(&apiv1.Event{Kind: "node", Node: string(n.id), From: "LOST", Message: fmt.Sprintf("%s is forgotten: it was lost for an hour and holds nothing", n.id)})
			}
		case silent > ns.config.NodeTimeout:
			ns.sessions.end(n, errRegisterAgain)
			ns.move(n, lifecycle.NodeExpires, fmt.Sprintf("it was silent for %s", ns.config.NodeTimeout))
		case n.state() == lifecycle.NodeDraining:
			ns.drainStep(n)
		}
	}
}

// forgetNodeAfter is how long a lost node that holds nothing is remembered.
const forgetNodeAfter = time.Hour

// drainStep stops the masters on a draining node once nothing else is left there, and notes that the node is empty.
func (ns *nodes) drainStep(n *node) {
	if len(n.containers) == 0 {
		ns.move(n, lifecycle.NodeEmpty, "")
		return
	}
	for _, c := range n.containers {
		if !c.record.GetLease().GetMaster() {
			return
		}
	}
	for _, c := range sortedContainers(n.containers) {
		ns.leases.stop(c, corev1.Exit_STOPPED, fmt.Sprintf("%s is being drained", n.id))
	}
}

func (ns *nodes) drain(who peer.User, name, reason string) (*apiv1.Node, error) {
	if err := ns.access.MayOperate(who, "drain nodes"); err != nil {
		return nil, err
	}
	n, err := ns.named(name)
	if err != nil {
		return nil, err
	}
	n.record.Drain, n.record.DrainReason = true, reason
	ns.Save(kindNode, name, n.record)
	ns.move(n, lifecycle.NodeDrain, reason)
	return ns.view(n), nil
}

func (ns *nodes) undrain(who peer.User, name string) (*apiv1.Node, error) {
	if err := ns.access.MayOperate(who, "drain nodes"); err != nil {
		return nil, err
	}
	n, err := ns.named(name)
	if err != nil {
		return nil, err
	}
	n.record.Drain, n.record.DrainReason = false, ""
	ns.Save(kindNode, name, n.record)
	ns.move(n, lifecycle.NodeUndrain, "")
	ns.judgeHealth(n)
	return ns.view(n), nil
}

// remove forgets a node because an operator says that it is gone for good, and frees what it held. Nobody has seen its containers gone,
// but they are fenced: their ids are never used again, so that a node that comes back all the same registers as a new one and is sent to
// end them.
func (ns *nodes) remove(who peer.User, name string) (*apiv1.Node, error) {
	if err := ns.access.MayOperate(who, "remove nodes"); err != nil {
		return nil, err
	}
	n, err := ns.named(name)
	if err != nil {
		return nil, err
	}
	if err := ns.mayBeGone(n); err != nil {
		return nil, err
	}
	view := ns.view(n)
	ns.Emit(&apiv1.Event{
		Kind: "node", Node: name, From: stateName(n.state()),
		Message: because(fmt.Sprintf("%s is removed", n.id), access.ByWhom(who)+" says that it is gone for good"),
	})
	for _, c := range sortedContainers(n.containers) {
		ns.leases.endUnseen(c, lifecycle.ContainerNodeGone, &corev1.Exit{
			Reason: corev1.Exit_NODE_LOST, Code: -1, Message: access.ByWhom(who) + " removed it",
		})
	}
	ns.drop(n)
	return view, nil
}

// mayBeGone refuses to remove a node that answers, or that may still be restarting.
func (ns *nodes) mayBeGone(n *node) error {
	switch timeout := ns.config.NodeTimeout; {
	case n.state() == lifecycle.NodeLost:
		return nil
	case n.connected() && n.state() == lifecycle.NodeDrained:
		return fmt.Errorf("%s is drained and still answers; stop its NodeManager, which would register it again, and then remove it: %w",
			n.id, errdefs.ErrFailedPrecondition)
	case n.connected():
		return fmt.Errorf("%s answers; \"mammoth node drain %s\" moves what runs there, and it can be removed once it is empty and its NodeManager is stopped: %w",
			n.id, n.id, errdefs.ErrFailedPrecondition)
	case n.registered() && n.state() == lifecycle.NodeDrained:
		return nil
	default:
		return fmt.Errorf("%s was heard of less than %s ago and may only be restarting; wait until it is lost, and then remove it: %w",
			n.id, timeout, errdefs.ErrFailedPrecondition)
	}
}

// drop forgets a node that holds nothing.
func (ns *nodes) drop(n *node) {
	ns.sessions.end(n, errRegisterAgain)
	ns.removeFromScheduler(n)
	delete(ns.byID, n.id)
	ns.Forget(kindNode, string(n.id))
}
