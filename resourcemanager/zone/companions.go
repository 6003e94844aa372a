package zone

import (
	"fmt"

	"github.com/mammoth-os/mammoth/internal/id"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
)

// A companion app's container may leave something running on its node, an nginx for example, for the container that follows it there.
// Nodes report what they have of companion apps when they register. A node is told when it may end that, since no container of the app will
// come to it any more.

// companions are what companion apps have left running on nodes, by the names of their roles.
type companions struct {
	*turn
	apps      *apps
	nodes     *nodes
	sessions  *sessions
	damage    *damage
	balancers *endpoints.Balancers
}

// set notes what a node reports of companion apps.
func (cs *companions) set(n *node, names []string) {
	n.companions = map[string]struct{}{}
	for _, name := range names {
		n.companions[name] = struct{}{}
	}
}

// note notes that a container may have left something running on its node, once the node has begun with it.
func (cs *companions) note(c *container) {
	if n := cs.nodes.get(c.node); n != nil && c.state() != lifecycle.ContainerNew && c.app.companion() && !c.record.GetLease().GetMaster() {
		if n.companions == nil {
			cs.set(n, nil)
		}
		n.companions[specs.RoleName(c.app.record.GetName(), c.role())] = struct{}{}
	}
}

// endUnused ends what a node has of companion apps that are gone, once commands can be sent to it. The companion apps that are there end theirs
// when they are settled.
func (cs *companions) endUnused(n *node) {
	for _, role := range id.SortedKeys(n.companions) {
		if a := cs.apps.withName(specs.AppOf(role)); a != nil && a.companion() {
			cs.apps.touch(a)
			continue
		}
		if !cs.damage.standsStill() && !cs.damage.hasUnknown(n) { // it may be of an app whose record is missing
			cs.end(n, role)
		}
	}
}

// settle ends what a companion app has on the nodes that it has left: on all nodes once it has ended, and on those without a container of the
// role once the role has as many containers elsewhere as it is to have. Until then the next container may come back to the node.
func (cs *companions) settle(a *app) {
	name := a.record.GetName()
	missing := map[string]int32{}
	for _, role := range a.record.GetSpec().GetRoles() {
		missing[specs.RoleName(name, role.GetName())] = role.GetInstances()
	}
	type spot struct {
		node id.Node
		role string
	}
	taken, arriving := map[spot]bool{}, map[id.Node]bool{}
	for _, c := range a.containers {
		switch role := specs.RoleName(name, c.role()); {
		case !c.held() || c.record.GetLease().GetMaster():
		case c.state() == lifecycle.ContainerNew:
			arriving[c.node] = true // its role is not reported yet
		default:
			taken[spot{c.node, role}] = true
			if c.state() == lifecycle.ContainerRunning && !c.record.GetStopping() {
				missing[role]--
			}
		}
	}
	ended := a.removed || a.state() == lifecycle.AppStopped
	if !ended && a.ending() {
		return
	}
	for _, n := range cs.nodes.sorted() {
		if !n.connected() || arriving[n.id] {
			continue
		}
		for _, role := range id.SortedKeys(n.companions) {
			if specs.AppOf(role) != name || taken[spot{n.id, role}] || !ended && missing[role] > 0 {
				continue
			}
			cs.end(n, role)
			// The balancer there ends with it: nobody has to wait for its confirmations.
			cs.balancers.Dismiss(fmt.Sprintf("%s.%s", role, n.id))
		}
	}
}

func (cs *companions) end(n *node, role string) {
	delete(n.companions, role)
	cs.sessions.send(n, &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_RemoveStateDir_{
		RemoveStateDir: &trackerv1.NodeCommand_RemoveStateDir{Name: role},
	}})
}
