package plan

// goal is what a slot is to reach.
type goal uint8

const (
	// serve: the slot is to have a healthy container.
	serve goal = iota
	// hold: the slot is to have one after its back-off.
	hold
	// leave: the slot is to be emptied and forgotten.
	leave
	goals
)

// phase is the present situation of a slot.
type phase uint8

const (
	// empty: it has no container and no open ask.
	empty phase = iota
	// asked: it waits for a container.
	asked
	// granted: it has a container, and no start has been sent.
	granted
	// unreported: its container was adopted, and its node has not reported it yet.
	unreported
	// starting: the container is not healthy yet.
	starting
	// proving: the container is healthy and routed to, but does not count yet.
	proving
	// healthy: the container counts.
	healthy
	// failing: the container is unhealthy, took too long to become healthy, or its start was not answered.
	failing
	// withdrawing: its withdrawal was requested and is not confirmed.
	withdrawing
	// draining: nothing routes to it; requests in flight end.
	draining
	// drained: it can be stopped.
	drained
	// stopping: it was released and has not been seen gone.
	stopping
	// lost: its node is lost, and no replacement was asked for.
	lost
	// replacing: its node is lost, and a replacement was asked for.
	replacing
	// returned: its node is back, and the replacement is still asked for.
	returned
	phases
)

// step is the next thing to do with a slot.
type step uint8

const (
	// undecided is the zero value; a test fails if the table has one.
	undecided step = iota
	wait
	ask
	withdrawAsk
	start
	withdraw
	release
	forget
)

// nextSteps is the behaviour of a slot. To end a container is withdraw, wait, wait, release, wait: a container that was
// started is released in the phase drained only.
var nextSteps = [goals][phases]step{
	serve: {
		empty:       ask,
		asked:       wait,
		granted:     start,
		unreported:  wait,
		starting:    wait,
		proving:     wait,
		healthy:     wait,
		failing:     withdraw,
		withdrawing: wait,
		draining:    wait,
		drained:     release,
		stopping:    wait,
		lost:        ask,
		replacing:   wait,
		returned:    withdrawAsk,
	},
	hold: {
		empty:       wait,
		asked:       withdrawAsk,
		granted:     release,
		unreported:  wait,
		starting:    wait,
		proving:     wait,
		healthy:     wait,
		failing:     withdraw,
		withdrawing: wait,
		draining:    wait,
		drained:     release,
		stopping:    wait,
		lost:        wait,
		replacing:   withdrawAsk,
		returned:    withdrawAsk,
	},
	leave: {
		empty:       forget,
		asked:       withdrawAsk,
		granted:     release,
		unreported:  withdraw,
		starting:    withdraw,
		proving:     withdraw,
		healthy:     withdraw,
		failing:     withdraw,
		withdrawing: wait,
		draining:    wait,
		drained:     release,
		stopping:    wait,
		lost:        withdraw,
		replacing:   withdrawAsk,
		returned:    withdrawAsk,
	},
}
