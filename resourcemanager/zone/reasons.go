package zone

// countOf counts the containers that an app has on a node.
func (ns *nodes) countOf(n *node, a *app) (count int) {
	for _, c := range n.containers {
		if c.app == a {
			count++
		}
	}
	return count
}
