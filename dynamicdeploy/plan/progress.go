package plan

// progress is how far the instances are, as the rollout is evaluated by it.
type progress struct {
	// updated is how many are as desired and count, unproven how many are healthy and do not count yet, outdated how many are to be
	// replaced.
	updated, unproven, outdated int
	// blameless is true while the version is not to blame that there is no progress.
	blameless bool
	// pauseReason is why the rollout waits for a person, missing a sentence about what is missing; each may be empty.
	pauseReason, missing string
}

// measure counts the instances of a role.
func measure(at *view, all *slots) (has progress) {
	for s := range all.each() {
		switch phase := at.phase(s); {
		case at.outdated(s):
			has.outdated++
		case s.leaving || s.notRouted:
		case phase == healthy:
			has.updated++
		case phase == proving:
			has.unproven++
		}
	}
	return has
}

// waitsForDrain reports whether the next of count instances of a version waits for capacity that an outdated one holds until it is
// drained and stopped.
func waitsForDrain(at *view, all *slots, version int32, count int) bool {
	ending, fresh := false, 0
	for s := range all.each() {
		phase := at.phase(s)
		ending = ending || s.leaving && at.outdated(s) && (phase == draining || phase == drained || phase == stopping)
		if s.version == version && !s.leaving {
			fresh++
		}
	}
	return ending && fresh < count
}

// waitsForNode reports whether one of the slots waits because of a node that is unhealthy, lost or disconnected, or failed the
// instance.
func waitsForNode(at *view, known *nodes, of []*slot) bool {
	for _, s := range of {
		switch {
		case s.container == nil:
			if s.nodeAtFault {
				return true
			}
		case !at.serves(s) && known.troubled(s.container.node):
			return true
		}
	}
	return false
}

// share is the percentage of the requests that the instances of a version receive, by the weights of its instances and of others.
func share(at *view, all *slots, version int32, fresh, old int) int {
	var given, total int
	for s := range all.each() {
		switch {
		case !s.inService() || !at.serves(s):
		case s.version == version:
			given, total = given+fresh, total+fresh
		default:
			total += old
		}
	}
	if total == 0 {
		return 0
	}
	return (100*given + total/2) / total
}
