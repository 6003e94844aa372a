package zone

import (
	"fmt"

	"github.com/mammoth-os/mammoth/internal/id"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
)

// A framework's container may leave something running on its node, an nginx for example, for the container that follows it there.
// Nodes report what they have of frameworks when they register. They are sent when they may end it, since no container of the
// framework will come to them any more.

// frameworks are what frameworks have left running on nodes, by the names of their roles.
type frameworks struct {
	*turn
	apps      *apps
	nodes     *nodes
	sessions  *sessions
	damage    *damage
	balancers *endpoints.Balancers
}

// set notes what a node reports of frameworks.
func (fs *frameworks) set(n *node, names []string) {
	n.frameworks = map[string]struct{}{}
	for _, name := range names {
		n.frameworks[name] = struct{}{}
	}
}

// note notes that a container may have left something running on its node, once the node has begun with it.
func (fs *frameworks) note(c *container) {
	if n := fs.nodes.get(c.node); n != nil && c.state() != lifecycle.ContainerNew && c.app.framework() && !c.record.GetLease().GetMaster() {
		if n.frameworks == nil {
			fs.set(n, nil)
		}
		n.frameworks[specs.RoleName(c.app.record.GetName(), c.role())] = struct{}{}
	}
}

// endUnused goes through what a node has of frameworks once commands can be sent to it.
func (fs *frameworks) endUnused(n *node) {
	for _, framework := range sortedKeys(n.frameworks) {
		if a := fs.apps.withName(specs.AppOf(framework)); a != nil && a.framework() {
			fs.apps.touch(a)
			continue
		}
		if !fs.damage.standsStill() && !fs.damage.hasUnknown(n) { // it may be of an app whose record is missing
			fs.end(n, framework)
		}
	}
}

// settle ends what a framework has on the nodes that it has left: on all nodes once it has ended, and on those without a container of the
// role once the role has as many containers elsewhere as it is to have. Until then the next container may come back to the node.
func (fs *frameworks) settle(a *app) {
	name := a.record.GetName()
	missing := map[string]int32{}
	for _, role := range a.record.GetSpec().GetRoles() {
		missing[specs.RoleName(name, role.GetName())] = role.GetInstances()
	}
	type spot struct {
		node      id.Node
		framework string
	}
	taken, arriving := map[spot]bool{}, map[id.Node]bool{}
	for _, c := range a.containers {
		switch framework := specs.RoleName(name, c.role()); {
		case !c.held() || c.record.GetLease().GetMaster():
		case c.state() == lifecycle.ContainerNew:
			arriving[c.node] = true // its role is not reported yet
		default:
			taken[spot{c.node, framework}] = true
			if c.state() == lifecycle.ContainerRunning && !c.record.GetStopping() {
				missing[framework]--
			}
		}
	}
	ended := a.removed || a.state() == lifecycle.AppStopped
	if !ended && a.ending() {
		return
	}
	for _, n := range fs.nodes.sorted() {
		if !n.connected() || arriving[n.id] {
			continue
		}
		for _, framework := range sortedKeys(n.frameworks) {
			if specs.AppOf(framework) != name || taken[spot{n.id, framework}] || !ended && missing[framework] > 0 {
				continue
			}
			fs.end(n, framework)
			// The balancer there ends with it: nobody has to wait for its confirmations.
			fs.balancers.Dismiss(fmt.Sprintf("%s.%s", framework, n.id))
		}
	}
}

func (fs *frameworks) end(n *node, framework string) {
	delete(n.frameworks, framework)
	fs.sessions.send(n, &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_RemoveStateDir_{
		RemoveStateDir: &trackerv1.NodeCommand_RemoveStateDir{Name: framework},
	}})
}
