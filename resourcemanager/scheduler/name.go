package scheduler

// named is all that the zone has of apps with one name: what affinity and anti-affinity are about.
type named struct {
	name string
	apps int
	held int
	// nodes is kept only when some ask names it.
	tracked bool
	nodes   bitmap
	// repelledBy are those whose asks declared anti-affinity to this one; it holds in both directions.
	repelledBy []*named
}

func (c *Core) nameOf(name string) *named {
	m := c.names[name]
	if m == nil {
		m = &named{name: name}
		c.names[name] = m
	}
	return m
}

// tracked makes a name's nodes known.
func (c *Core) trackName(name string) *named {
	m := c.nameOf(name)
	if m.tracked {
		return m
	}
	m.tracked = true
	for _, a := range c.sortedApps() {
		for k := a.containers; a.named == m && k != nil; k = k.nextOfApp {
			m.nodes.set(k.node.slot, c.fleet.grid.words)
		}
	}
	return m
}

// repel notes that apps named by are never to share a node with apps named name, and gives the asks of the
// latter their new shapes.
func (c *Core) repel(name string, by *named) {
	m := c.trackName(name)
	for _, known := range m.repelledBy {
		if known == by {
			return
		}
	}
	c.trackName(by.name)
	m.repelledBy = append(m.repelledBy, by)
	if m != by {
		c.reshape(m)
	}
}

func (c *Core) reshape(m *named) {
	for _, a := range c.sortedApps() {
		if a.named != m {
			continue
		}
		for _, k := range a.sortedAsks() {
			c.leave(k)
			c.enter(k)
		}
	}
}

// leaveName takes an app that is forgotten off its name.
func (c *Core) leaveName(m *named) {
	m.apps--
	if m.apps > 0 {
		return
	}
	if m.tracked {
		for _, other := range c.sortedNames() {
			for i, by := range other.repelledBy {
				if by == m {
					other.repelledBy = append(other.repelledBy[:i:i], other.repelledBy[i+1:]...)
					c.reshape(other)
					break
				}
			}
		}
	}
	// Others may still name it, or be named by it; only a name that means nothing to anybody is dropped.
	if !m.tracked {
		delete(c.names, m.name)
	}
}
