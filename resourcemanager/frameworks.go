package resourcemanager

import (
	"fmt"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// A framework's container may leave something running on its node, an nginx for example, for the container that takes
// its place there. Nodes say what they have of frameworks when they register; the ResourceManager says when none of a
// framework's containers will come to a node any more.

func (a *app) framework() bool { return a.record.GetSpec().GetKind() == apiv1.AppSpec_FRAMEWORK }

// takePlaces notes what a node has of frameworks.
func (n *node) takePlaces(names []string) {
	n.places = map[string]struct{}{}
	for _, name := range names {
		n.places[appOfService(name)] = struct{}{}
	}
}

// checkPlaces looks at everything that a node has of frameworks, once it can be told.
func (z *zone) checkPlaces(n *node) {
	for _, name := range sortedKeys(n.places) {
		if a := z.names[name]; a != nil && a.framework() {
			z.touch(a)
			continue
		}
		z.endPlace(n, name)
	}
}

// settlePlaces ends a framework on the nodes that it has left: everywhere once it has ended, and wherever it has no
// container once it has as many elsewhere as it is to have. Until then the next one may come back to what is there.
func (z *zone) settlePlaces(a *app) {
	here, running := map[id.Node]bool{}, int32(0)
	for _, c := range a.containers {
		if c.held() && !c.record.GetLease().GetMaster() {
			here[c.node] = true
			if c.state() == lifecycle.ContainerRunning && !c.record.GetStopping() {
				running++
			}
		}
	}
	ended := a.removed || a.state() == lifecycle.AppStopped
	if !ended && (a.ending() || running < wantedInstances(a.record.GetSpec())) {
		return
	}
	for _, n := range z.sortedNodes() {
		if _, there := n.places[a.record.GetName()]; !there || here[n.id] || n.stream == nil {
			continue
		}
		z.endPlace(n, a.record.GetName())
		for _, role := range a.record.GetSpec().GetRoles() {
			balancer := fmt.Sprintf("%s.%s", placeOf(a.record.GetName(), role.GetName()), n.id)
			// What it routed with ends: nobody has to wait for it.
			z.after(func() { z.registry.ExpectBalancer(balancer, 0) })
		}
	}
}

// placeOf is what nodes call a role's place, and the first part of its balancer's name.
func placeOf(app, role string) string {
	if role == "" {
		return app
	}
	return role + "." + app
}

func (z *zone) endPlace(n *node, app string) {
	delete(n.places, app)
	z.command(n, &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_EndFramework_{
		EndFramework: &trackerv1.NodeCommand_EndFramework{AppName: app},
	}})
}
