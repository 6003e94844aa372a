package scheduler

import (
	"iter"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// apps is the apps that ask, and their names.
//
// A name is tracked when some ask has an affinity or anti-affinity to it: then the nodes are known that hold its containers.
type apps struct {
	fleet *fleet
	// byID are the apps that were added, and those that were removed and still hold containers.
	byID map[id.App]*app
	// arrivals is how many apps were new so far.
	arrivals int64
	// lastSeq is the number of the last container of apps that are gone, should they come back.
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
	// weight is the app's share of a fair leaf, against those of other apps there.
	weight float64
	// removed is set when the app was removed and still holds containers.
	removed bool
	// leaf is where the app asks; nil is that the app was never added, and only has containers.
	leaf *queue
	// owner is what the app's user holds in the leaf.
	owner *user

	// asks are the app's asks by id, nextAsk is the order of the last.
	asks    map[string]*ask
	nextAsk int64
	// buckets are those that have only asks of the app.
	buckets []*bucket

	// containers begins the list of the containers that the app holds, groups are what they are counted by.
	containers *container
	groups     []*group
	// used is what they hold, share what that is of the zone, divided by the weight.
	used  resource.Vector
	share float64
	// lastSeq is the number of the last container.
	lastSeq int64
	// credits are what containers that were preempted had done, for those that take their place.
	credits []credit

	// failedReservations is how many of the app's last reservations came to nothing, reserveAfter is when it may have the
	// next.
	failedReservations int
	reserveAfter       time.Time
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

// remove drops the record of an app. Should it come back, its containers are numbered on from there.
func (as *apps) remove(a *app) {
	delete(as.byID, a.id)
	if a.lastSeq > 0 {
		as.lastSeq[a.id] = a.lastSeq
	}
}

// uncount forgets that the last app was new: it was only planned.
func (as *apps) uncount() { as.arrivals-- }

// rank brings the shares of all apps up to date after the zone changed.
func (as *apps) rank(zone *resource.Vector) {
	for _, a := range as.byID {
		a.setShare(zone)
	}
}

// pending is what the asks below each queue of a tree wait for, in the order of the queues.
func (as *apps) pending(queues *queueSet) []resource.Vector {
	pending := make([]resource.Vector, len(queues.ordered))
	for _, a := range as.byID {
		if a.leaf == nil {
			continue
		}
		for _, k := range a.asks {
			wanted := k.spec.Resources.Scale(int64(k.spec.Pending))
			for q := queues.named(a.leaf.spec.Name); q != nil; q = q.parent {
				pending[q.order] = pending[q.order].Add(wanted)
			}
		}
	}
	return pending
}

// hold counts a container for its app, its group and its name.
func (as *apps) hold(k *container, words int) {
	a, slot := k.app, k.node.slot
	k.nextOfApp = a.containers
	if a.containers != nil {
		a.containers.previousOfApp = k
	}
	a.containers = k
	k.group.add(slot, words)
	a.name.held++
	if a.name.tracked {
		a.name.nodes.Set(slot, words)
	}
}

// unhold is the reverse of hold. The node does not hold the container any more.
func (as *apps) unhold(k *container) {
	a := k.app
	if k.previousOfApp != nil {
		k.previousOfApp.nextOfApp = k.nextOfApp
	} else {
		a.containers = k.nextOfApp
	}
	if k.nextOfApp != nil {
		k.nextOfApp.previousOfApp = k.previousOfApp
	}
	k.previousOfApp, k.nextOfApp = nil, nil
	k.group.remove(k.node.slot)
	a.name.held--
	if a.name.tracked {
		a.name.vacate(k.node)
	}
}

// setShare brings what an app holds of the zone, by its weight, up to date.
func (a *app) setShare(zone *resource.Vector) { a.share = shareOf(&a.used, zone) / a.weight }

// title is what people know the app by.
func (a *app) title() string {
	if a.name.name != "" {
		return a.name.name
	}
	return a.id.String()
}

// add makes the record of a new app.
func (as *apps) add(name id.App) *app {
	as.arrivals++
	a := &app{id: name, order: as.arrivals, asks: make(map[string]*ask), weight: 1, lastSeq: as.lastSeq[name], name: as.named("")}
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

// named finds or makes a name.
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
		for k := a.containers; a.name == m && k != nil; k = k.nextOfApp {
			m.nodes.Set(k.node.slot, as.fleet.words())
		}
	}
	return m
}

// leaveName takes an app that is forgotten off its name, and gives the names that the last app of that name has repelled.
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
