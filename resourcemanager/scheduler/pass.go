package scheduler

import "time"

// A pass is bounded, so that the core's owner can apply inputs in between. After this number of grants or looks it leaves the rest
// to the next pass. Only a gang may exceed the bound.
const (
	grantsPerPass = 100
	// A look is one comparison of a node with a shape, some ten nanoseconds.
	looksPerPass = 20_000
	// looksPerNode is the cost of an offered node in addition, and looksPerMiss that of a search without a result.
	looksPerNode = 4
	looksPerMiss = 200
)

// pass is the state of one call of Schedule, with its decisions.
type pass struct {
	// now is the time of the pass.
	now time.Time
	// decisions is what was decided so far.
	decisions Decisions
	// looks is how many looks the pass has left.
	looks int
	// grantsPerPass and looksPerPass are the bounds on a pass.
	grantsPerPass, looksPerPass int
	// onTrial is set while grants are made that may be undone: no blocked or limited ask is tried again for them.
	onTrial bool
}

// begin starts a pass.
func (p *pass) begin(now time.Time) {
	p.now, p.looks = now, p.looksPerPass
	d := &p.decisions
	*d = Decisions{Grants: d.Grants[:0], Notices: d.Notices[:0], Stops: d.Stops[:0], Cancelled: d.Cancelled[:0]}
}

// nextBy makes sure that Schedule is called again by then.
func (p *pass) nextBy(at time.Time) {
	if p.decisions.Next.IsZero() || at.Before(p.decisions.Next) {
		p.decisions.Next = at
	}
}
