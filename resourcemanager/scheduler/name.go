package scheduler

import "github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"

// appName is all apps of one name: what affinity and anti-affinity are about.
type appName struct {
	name string
	// apps is how many apps have the name, held how many containers they hold.
	apps, held int
	// tracked is set when nodes, which hold those containers, are known.
	tracked bool
	nodes   grid.Bitmap
	// repelledBy are the names whose asks have an anti-affinity to this one; it holds in both directions.
	repelledBy []*appName
}

// vacate takes a node off a name's nodes unless another container of that name is still there.
func (m *appName) vacate(n *node) {
	for k := n.containers; k != nil; k = k.nextOfNode {
		if k.app.name == m {
			return
		}
	}
	m.nodes.Clear(n.slot)
}
