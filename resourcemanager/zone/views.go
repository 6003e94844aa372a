package zone

import (
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/shares"
)

// appView is what is known of the view of an app. An app of 10,000 instances is shown many times a second while it is deployed, and only
// a few instances differ from one time to the next.
type appView struct {
	// current is the present view; nil if the app has changed since it was made.
	current *apiv1.App
	// shown is the view that was shown last.
	shown *apiv1.App
	pace  pace
	// answered says that somebody is answered with the view at the end of this turn.
	answered bool
	// countsAt is when the first instance that its master reports as starting will count by what its node reports; zero is never.
	countsAt time.Time
	// instances are the views of the instances, by their names.
	instances map[string]instanceView
}

// pace limits how often something is shown that changes often, so that showing it takes at most 2 % of the loop's time.
type pace struct{ next time.Time }

const (
	// partTakes is about how long a part of a view takes to be made and sent, an instance for example; baseParts are how many parts
	// the rest of a view is worth.
	partTakes = 500 * time.Nanosecond
	baseParts = 20
	// paceBurst is how much may be shown at once after a while in which little was.
	paceBurst = 100 * time.Millisecond
)

// mayShow reports whether something may be shown now, and counts it if so.
func (p *pace) mayShow(now time.Time, parts int) bool {
	if now.Before(p.at()) {
		return false
	}
	p.count(now, parts)
	return true
}

// count counts something that is shown in any case.
func (p *pace) count(now time.Time, parts int) {
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(50 * partTakes * time.Duration(baseParts+parts))
}

// at is when something may be shown again.
func (p *pace) at() time.Time { return p.next.Add(-paceBurst) }

// views are apps, nodes, containers, queues and lending contracts as people see them. Nothing in the zone follows from them. The view of
// an app is overdue when the app looks different by now though it has not changed.
type views struct {
	*turn
	config   *config
	apps     *apps
	packages *packages
	desired  *desired
	nodes    *nodes
	waits    *waits
	damage   *damage
	queues   *shares.Queues
	lending  *shares.Lending
	// overdue are the apps whose views are overdue.
	overdue []*app
	late    late
	quotas  shareViews
	// zone is the zone as it was shown last, without what is summed up.
	zone *apiv1.Zone
}

func (vs *views) begin() { vs.overdue, vs.late.wake, vs.late.must = nil, time.Time{}, false }

// changed has the view of an app made anew.
func (vs *views) changed(a *app) { a.view.current = nil }

// due finds out whether the view of an app is overdue.
func (vs *views) due(a *app) {
	if !a.view.countsAt.IsZero() && !vs.now.Before(a.view.countsAt) {
		vs.overdue = append(vs.overdue, a)
	}
}

// answer returns the present view of an app for an answer. The app is shown at the end of the turn however often that has happened: whoever
// is answered will look whether it is so.
func (vs *views) answer(a *app) *apiv1.App {
	vs.mustShow()
	vs.late.apps[a.id], a.view.answered = a, true
	return vs.of(a)
}

// of returns the present view of an app.
func (vs *views) of(a *app) *apiv1.App {
	if a.view.current == nil {
		a.view.current = vs.make(a)
	}
	return a.view.current
}
