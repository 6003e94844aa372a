package scheduler

import (
	"iter"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// apps has the apps that ask, and their names.
//
// A name is tracked if an ask has an affinity or anti-affinity to it. Only for tracked names is it known which nodes hold
// containers of the name.
type apps struct {
	fleet *fleet
	// byID are the apps that were added, and those that were removed and still hold containers.
	byID map[id.App]*app
	// arrivals is how many apps were added so far.
	arrivals int64
	// lastSeq is the number of the last container of each app that is gone, in case the app is added again.
	lastSeq map[id.App]int64
	// names are those of apps, and those that asks have affinities to.
	names map[string]*appName
}

func newApps(f *fleet) apps {
	return apps{fleet: f, byID: make(map[id.App]*app), lastSeq: make(map[id.App]int64), names: make(map[string]*appName)}
}

// app is a submitter of asks.
type app struct {
	id id.App
	// order rises with each app that is new.
	order int64
	// name is shared by all apps that have it.
	name     *appName
	user     string
	priority int32
	// removed is set when the app was removed and still holds containers.
	removed bool
	// leaf is the app's queue; nil if the app was never added and only holds containers.
	leaf *queue
	// owner is the usage of the app's user in the leaf.
	owner *user

	// asks are the app's asks by id, nextAsk is the order of the last.
	asks    map[string]*ask
	nextAsk int64
	// buckets are those that have only asks of the app.
	buckets []*bucket

	// containers is the first of the list of the app's containers. groups count them.
	containers *container
	groups     []*group
	// used is what they hold, share what that is of the zone.
	used  resource.Vector
	share float64
	// lastSeq is the number of the last container.
	lastSeq int64
	// credits are the work of preempted containers, for the containers that replace them.
	credits []credit

	// failedReservations is how many of the app's last reservations failed in a row; noReserveBefore is when it may have the next.
	failedReservations int
	noReserveBefore    time.Time
}

// held is the containers that the app holds, the newest first.
func (a *app) held() iter.Seq[*container] {
	return func(yield func(*container) bool) {
		for k := a.containers; k != nil && yield(k); k = k.nextOfApp {
		}
	}
}

// find is the app of an id; nil is none.
func (as *apps) find(name id.App) *app { return as.byID[name] }

// remove drops the record of an app. If the app is added again, the numbers of its containers continue.
func (as *apps) remove(a *app) {
	delete(as.byID, a.id)
	if a.lastSeq > 0 {
		as.lastSeq[a.id] = a.lastSeq
	}
}

// uncount undoes the count of the last app, which was only planned.
func (as *apps) uncount() { as.arrivals-- }

// rank updates the shares of all apps after the capacity of the zone has changed.
func (as *apps) rank(zone *resource.Vector) {
	for _, a := range as.byID {
		a.setShare(zone)
	}
}

// hold counts a container for its app, its group and its name.
func (as *apps) hold(ctr *container, words int) {
	a, slot := ctr.app, ctr.node.slot
	ctr.nextOfApp = a.containers
	if a.containers != nil {
		a.containers.previousOfApp = ctr
	}
	a.containers = ctr
	ctr.group.add(slot, words)
	a.name.held++
	if a.name.tracked {
		a.name.nodes.Set(slot, words)
	}
}

// unhold is the reverse of hold. The node does not hold the container any more.
func (as *apps) unhold(ctr *container) {
	a := ctr.app
	if ctr.previousOfApp != nil {
		ctr.previousOfApp.nextOfApp = ctr.nextOfApp
	} else {
		a.containers = ctr.nextOfApp
	}
	if ctr.nextOfApp != nil {
		ctr.nextOfApp.previousOfApp = ctr.previousOfApp
	}
	ctr.previousOfApp, ctr.nextOfApp = nil, nil
	ctr.group.remove(ctr.node.slot)
	a.name.held--
	if a.name.tracked {
		a.name.vacate(ctr.node)
	}
}

// setShare updates the share of an app in the zone.
func (a *app) setShare(zone *resource.Vector) { a.share = shareOf(&a.used, zone) }

// title is the app's name for people.
func (a *app) title() string {
	if a.name.name != "" {
		return a.name.name
	}
	return a.id.String()
}

// add makes the record of a new app.
func (as *apps) add(name id.App) *app {
	as.arrivals++
	a := &app{id: name, order: as.arrivals, asks: make(map[string]*ask), lastSeq: as.lastSeq[name], name: as.named("")}
	a.name.apps++
	delete(as.lastSeq, name)
	as.byID[name] = a
	return a
}

func (as *apps) sorted() []*app {
	apps := make([]*app, 0, len(as.byID))
	for _, a := range as.byID {
		apps = append(apps, a)
	}
	slices.SortFunc(apps, func(x, y *app) int { return int(x.order - y.order) })
	return apps
}

func (as *apps) sortedNames() []*appName {
	names := make([]*appName, 0, len(as.names))
	for _, m := range as.names {
		names = append(names, m)
	}
	slices.SortFunc(names, func(x, y *appName) int {
		switch {
		case x.name < y.name:
			return -1
		case x.name > y.name:
			return 1
		}
		return 0
	})
	return names
}

func (a *app) sortedAsks() []*ask {
	asks := make([]*ask, 0, len(a.asks))
	for _, k := range a.asks {
		asks = append(asks, k)
	}
	slices.SortFunc(asks, func(x, y *ask) int { return int(x.order - y.order) })
	return asks
}

// named returns a name, and creates it if needed.
func (as *apps) named(name string) *appName {
	m := as.names[name]
	if m == nil {
		m = &appName{name: name}
		as.names[name] = m
	}
	return m
}

// track makes a name tracked.
func (as *apps) track(name string) *appName {
	m := as.named(name)
	if m.tracked {
		return m
	}
	m.tracked = true
	for _, a := range as.sorted() {
		for ctr := a.containers; a.name == m && ctr != nil; ctr = ctr.nextOfApp {
			m.nodes.Set(ctr.node.slot, as.fleet.words())
		}
	}
	return m
}

// leaveName removes a forgotten app from its name. If it was the last of the name, it returns the names to which the name had an
// anti-affinity.
func (as *apps) leaveName(m *appName) []*appName {
	m.apps--
	if m.apps > 0 {
		return nil
	}
	// Asks may still have affinities to a tracked name.
	if !m.tracked {
		delete(as.names, m.name)
		return nil
	}
	var freed []*appName
	for _, other := range as.sortedNames() {
		if i := slices.Index(other.repelledBy, m); i >= 0 {
			other.repelledBy = append(other.repelledBy[:i:i], other.repelledBy[i+1:]...)
			freed = append(freed, other)
		}
	}
	return freed
}

// untracked are the names in an ask's affinities that are not tracked yet.
func (as *apps) untracked(spec *Ask) []*appName {
	var names []*appName
	for _, name := range slices.Concat(spec.Affinity, spec.AntiAffinity) {
		if m := as.named(name); !m.tracked {
			names = append(names, m)
		}
	}
	return names
}
