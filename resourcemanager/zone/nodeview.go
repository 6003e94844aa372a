package zone

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// view is a node as people see it. It shares with the node's record what is replaced there, and never changed.
func (ns *nodes) view(n *node) *apiv1.Node {
	r := n.record
	view := &apiv1.Node{
		Name:         string(n.id),
		State:        r.GetState(),
		Reason:       r.GetReason(),
		Address:      r.GetAddress(),
		Capacity:     r.GetCapacity(),
		Used:         ns.units.Resources(ns.scheduler.Used(n.id)),
		Attributes:   r.GetAttributes(),
		LastReportAt: timestamppb.New(n.lastHeard()),
		RegisteredAt: r.GetRegisteredAt(),
		Version:      r.GetVersion(),
	}
	for _, c := range sortedContainers(n.containers) {
		view.Containers = append(view.Containers, &apiv1.NodeContainer{
			Id:        c.record.GetLease().GetContainerId(),
			App:       c.app.record.GetName(),
			Instance:  c.instance(),
			State:     c.state().String(),
			Resources: c.record.GetLease().GetResources(),
		})
	}
	view.Unknown = ns.damage.viewUnknown(n)
	return view
}
