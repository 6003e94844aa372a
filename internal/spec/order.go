package spec

import (
	"slices"
	"strings"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// StartOrder sorts the roles topologically by `after`, and otherwise keeps their order. The roles of a cycle, which no checked spec
// has, come last.
func StartOrder(roles []*apiv1.RoleSpec) []*apiv1.RoleSpec {
	ordered, _ := startOrder(roles)
	return ordered
}

// startOrder also returns how many roles are neither in a cycle nor after one.
func startOrder(roles []*apiv1.RoleSpec) (ordered []*apiv1.RoleSpec, placed int) {
	open := slices.Clone(roles)
	waits := func(role *apiv1.RoleSpec) bool {
		return slices.ContainsFunc(open, func(other *apiv1.RoleSpec) bool { return slices.Contains(role.GetAfter(), other.GetName()) })
	}
	for {
		next := slices.IndexFunc(open, func(role *apiv1.RoleSpec) bool { return !waits(role) })
		if next < 0 {
			return append(ordered, open...), len(ordered)
		}
		ordered = append(ordered, open[next])
		open = slices.Delete(open, next, next+1)
	}
}

// checkOrder checks `after`.
func (c *checker) checkOrder(roles []*apiv1.RoleSpec) {
	defer func() { c.role = "" }()
	known := map[string]bool{}
	for _, role := range roles {
		known[role.GetName()] = true
	}
	whole := true
	for _, role := range roles {
		c.role = role.GetName()
		c.atMost("after", len(role.GetAfter()))
		for _, name := range role.GetAfter() {
			switch {
			case name == role.GetName() && name != "":
				c.fail("after", "role %s cannot start after itself", quoted(name))
			case name == "" || !known[name]:
				c.fail("after", "the app has no role %s; after names other roles of it", quoted(name))
			default:
				continue
			}
			whole = false
		}
	}
	ordered, placed := startOrder(roles)
	if !whole || placed == len(ordered) {
		return
	}
	cycle := cycleIn(ordered[placed:])
	c.role = cycle[0]
	c.fail("after", "these roles wait for each other: %s; take one of them out of after", strings.Join(append(cycle, cycle[0]), " after "))
}

// cycleIn returns a cycle: each role starts after the next one, and the last after the first. Each of the given roles must start
// after another of them.
func cycleIn(roles []*apiv1.RoleSpec) []string {
	after := map[string]string{}
	for _, role := range roles {
		for _, other := range roles {
			if slices.Contains(role.GetAfter(), other.GetName()) {
				after[role.GetName()] = other.GetName()
			}
		}
	}
	var path []string
	for name := roles[0].GetName(); ; name = after[name] {
		if at := slices.Index(path, name); at >= 0 {
			return path[at:]
		}
		path = append(path, name)
	}
}
