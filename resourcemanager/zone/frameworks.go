package zone

import (
	"fmt"

	"github.com/mammoth-os/mammoth/internal/id"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// A framework's container may leave something running on its node, an nginx for example, for the container that takes
// its place there. Nodes say what they have of frameworks when they register; the ResourceManager says when none of a
// framework's containers will come to a node any more.

// frameworks are what frameworks have on nodes.
type frameworks struct {
	*turn
	apps     *apps
	nodes    *nodes
	sessions *sessions
	damage   *damage
}

// set notes what a node has of frameworks.
func (fs *frameworks) set(n *node, names []string) {
	n.frameworks = map[string]struct{}{}
	for _, name := range names {
		n.frameworks[name] = struct{}{}
	}
}

// note notes that a container whose node has begun with it may have left something there.
func (fs *frameworks) note(c *container) {
	if n := fs.nodes.get(c.node); n != nil && c.state() != lifecycle.ContainerNew && c.app.framework() && !c.record.GetLease().GetMaster() {
		if n.frameworks == nil {
			fs.set(n, nil)
		}
		n.frameworks[frameworkName(c.app.record.GetName(), c.role())] = struct{}{}
	}
}

// endUnused looks at everything that a node has of frameworks, once it can be told.
func (fs *frameworks) endUnused(n *node) {
	for _, place := range sortedKeys(n.frameworks) {
		if a := fs.apps.withName(appOfService(place)); a != nil && a.framework() {
			fs.apps.touch(a)
			continue
		}
		if !fs.damage.standsStill() && !fs.damage.hasUnknown(n) { // it may be one's of which the record is missing
			fs.end(n, place)
		}
	}
}

// settle ends what a framework's roles have on the nodes that they have left: everywhere once it has ended, and
// wherever a role has no container once it has as many elsewhere as it is to have. Until then the next one may come back
// to what is there.
func (fs *frameworks) settle(a *app) {
	name := a.record.GetName()
	missing := map[string]int32{}
	for _, role := range a.record.GetSpec().GetRoles() {
		missing[frameworkName(name, role.GetName())] = role.GetInstances()
	}
	type spot struct {
		node  id.Node
		place string
	}
	taken, arriving := map[spot]bool{}, map[id.Node]bool{}
	for _, c := range a.containers {
		switch place := frameworkName(name, c.role()); {
		case !c.held() || c.record.GetLease().GetMaster():
		case c.state() == lifecycle.ContainerNew:
			arriving[c.node] = true // its role is not known yet
		default:
			taken[spot{c.node, place}] = true
			if c.state() == lifecycle.ContainerRunning && !c.record.GetStopping() {
				missing[place]--
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
		for _, place := range sortedKeys(n.frameworks) {
			if appOfService(place) != name || taken[spot{n.id, place}] || !ended && missing[place] > 0 {
				continue
			}
			fs.end(n, place)
			// What its balancer routed with ends: nobody has to wait for it.
			fs.out.Balancers = append(fs.out.Balancers, ExpectedBalancer{Name: fmt.Sprintf("%s.%s", place, n.id)})
		}
	}
}

// frameworkName is what nodes call a role's place, and the first part of its balancer's name.
func frameworkName(app, role string) string {
	if role == "" {
		return app
	}
	return role + "." + app
}

func (fs *frameworks) end(n *node, place string) {
	delete(n.frameworks, place)
	fs.sessions.send(n, &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_EndFramework_{
		EndFramework: &trackerv1.NodeCommand_EndFramework{Place: place},
	}})
}
