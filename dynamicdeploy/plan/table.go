package plan

// goal is what is wanted of a slot.
type goal uint8

const (
	// serve: it is to have a healthy container.
	serve goal = iota
	// hold: it is to have one, but later.
	hold
	// leave: it is to go, in order.
	leave
	goals
)

// phase is how a slot is seen.
type phase uint8

const (
	// empty: no container, none asked for.
	empty phase = iota
	// asked: waiting for a container.
	asked
	// granted: a container that nobody can have started.
	granted
	// unseen: its container was taken over, and its node has not spoken yet.
	unseen
	// starting: on the way to healthy.
	starting
	// proving: healthy, and routed to, but not yet for so long that it counts.
	proving
	// healthy: for so long that it counts.
	healthy
	// failing: it runs, but its probes fail, or it took too long; or nobody knows whether it runs.
	failing
	// withdrawing: it is to be taken out of the registry.
	withdrawing
	// draining: out of the registry; requests in flight end.
	draining
	// drained: nothing keeps it from being stopped.
	drained
	// stopping: given back; to be seen gone.
	stopping
	// lost: its node does not answer.
	lost
	// replacing: its node does not answer, another container is asked for.
	replacing
	// returned: its node answers again, another container is still asked for.
	returned
	phases
)

// step is the one thing that is done next with a slot.
type step uint8

const (
	// undecided marks a hole in the table.
	undecided step = iota
	wait
	ask
	unask
	start
	takeOut
	release
	closeSlot
)

// steps is the whole behaviour of a slot. Taking a container away is takeOut, wait, wait, release, wait: no entry
// releases a container that was started from any other phase than drained.
var steps = [goals][phases]step{
	serve: {
		empty:       ask,
		asked:       wait,
		granted:     start,
		unseen:      wait,
		starting:    wait,
		proving:     wait,
		healthy:     wait,
		failing:     takeOut,
		withdrawing: wait,
		draining:    wait,
		drained:     release,
		stopping:    wait,
		lost:        ask,
		replacing:   wait,
		returned:    unask,
	},
	hold: {
		empty:       wait,
		asked:       unask,
		granted:     release,
		unseen:      wait,
		starting:    wait,
		proving:     wait,
		healthy:     wait,
		failing:     takeOut,
		withdrawing: wait,
		draining:    wait,
		drained:     release,
		stopping:    wait,
		lost:        wait,
		replacing:   unask,
		returned:    unask,
	},
	leave: {
		empty:       closeSlot,
		asked:       unask,
		granted:     release,
		unseen:      takeOut,
		starting:    takeOut,
		proving:     takeOut,
		healthy:     takeOut,
		failing:     takeOut,
		withdrawing: wait,
		draining:    wait,
		drained:     release,
		stopping:    wait,
		lost:        takeOut,
		replacing:   unask,
		returned:    unask,
	},
}
