package node

import (
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Listed is a container as an engine lists it.
type Listed struct {
	// ID, AppName, Attempt and Labels are those with which it was started.
	ID      id.Container
	AppName string
	Attempt int32
	Labels  map[string]string
	// Running is true while its process runs, which Process describes.
	Running bool
	// NeverRan is true if it was created and not started yet.
	NeverRan bool
	Process  container.Process
	// Ending is set if it ran and does not run any more.
	Ending container.Ending
}

// Reconcile compares a listing, which was requested at asOf, with the records, in both directions. It returns how many containers
// it has adopted: the ResourceManager does not know them yet.
func (n *Node) Reconcile(kind corev1.ContainerSpec_Runtime, asOf time.Time, list []Listed) (adopted int) {
	has := make(map[id.Container]Listed, len(list))
	for _, c := range list {
		has[c.ID] = c
	}
	for _, h := range n.All() {
		if h.Spec.GetRuntime() != kind {
			continue
		}
		c, there := has[h.Core.ID]
		ended := h.Core.State == container.Done
		switch {
		case ended && !there:
		case ended && !c.Running:
			n.apply(h, container.Fact{Event: container.LeftBehind, AsOf: asOf})
		case !there || c.NeverRan:
			n.apply(h, container.Fact{Event: container.Missing, AsOf: asOf})
		case c.Running:
			n.apply(h, container.Fact{Event: container.Found, Process: c.Process, AsOf: asOf})
		default:
			n.apply(h, container.Fact{Event: container.Ended, Ending: c.Ending, AsOf: asOf})
		}
	}
	for _, c := range list {
		if n.containers[c.ID] == nil {
			n.adopt(kind, c)
			adopted++
		}
	}
	return adopted
}

// adopt takes over a container of this node without a record, so that the ResourceManager learns of it and decides whether it
// stays.
func (n *Node) adopt(kind corev1.ContainerSpec_Runtime, c Listed) {
	lease := &corev1.Lease{
		ContainerId: c.ID.String(), AppId: c.ID.App.String(), AppName: c.AppName, Attempt: c.Attempt,
		NodeId: n.settings.ID,
	}
	h := n.addContainer(c.ID, lease, &corev1.ContainerSpec{Runtime: kind, Labels: c.Labels})
	h.found = true
	n.note(Note{Entry: h, Text: "found a container without a record", Warning: true})
	n.perform(h, n.settings.Machine.Adopt(n.now, h.Core, c.Process))
	if !c.Running {
		n.apply(h, container.Fact{Event: container.Ended, Ending: c.Ending})
	}
}
