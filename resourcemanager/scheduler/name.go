package scheduler

import "github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"

// appName has all apps of one name. Affinities and anti-affinities refer to names.
type appName struct {
	name string
	// apps is how many apps have the name, held how many containers they hold.
	apps, held int
	// tracked is set if nodes has the nodes with those containers.
	tracked bool
	nodes   grid.Bitmap
	// repelledBy are the names of which an ask has had an anti-affinity to this one, as long as there are apps of that name. It holds in both
	// directions.
	repelledBy []*appName
}

// vacate removes a node from a name's nodes unless it holds another container of the name.
func (m *appName) vacate(n *node) {
	for ctr := n.containers; ctr != nil; ctr = ctr.nextOfNode {
		if ctr.app.name == m {
			return
		}
	}
	m.nodes.Clear(n.slot)
}
