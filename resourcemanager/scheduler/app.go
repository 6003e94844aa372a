package scheduler

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// apps is those that ask, and the names that they have.
type apps struct {
	fleet *fleet
	// byID are the apps that were added, and those that are gone and still hold containers.
	byID map[id.App]*app
	// arrivals counts the apps that have come.
	arrivals int64
	// lastSeq is where container numbers of forgotten apps go on, should they come back.
	lastSeq map[id.App]int64
	// names are the names of apps, and those that asks keep near to or apart from.
	names map[string]*appName
}

func newApps(f *fleet) apps {
	return apps{fleet: f, byID: make(map[id.App]*app), lastSeq: make(map[id.App]int64), names: make(map[string]*appName)}
}

// app is a submitter of asks.
type app struct {
	id       id.App
	name     *appName
	user     string
	priority int32
	order    int64
	// removed apps are kept while they hold containers.
	removed bool
	// leaf is nil for containers whose app was never added.
	leaf    *queue
	owner   *user
	asks    map[string]*ask
	nextAsk int64
	groups  []*group
	// buckets are the app's own, in a fair leaf.
	buckets    []*bucket
	containers *container
	used       resource.Vector
	// share is what it holds of the zone, by its weight.
	share, weight float64
	lastSeq       int64
	// vain counts the app's reservations that came to nothing, since the last that did not; there is none before
	// reserveAfter.
	failedReservations int
	reserveAfter       time.Time
	// credits are what containers that were stopped for others' guarantees had done, for those that follow them.
	credits []credit
}

// find is an app that was added, or is gone and still holds containers; nil is none.
func (as *apps) find(name id.App) *app { return as.byID[name] }

// remove drops the record of an app. Should it come back, its containers are numbered on from there.
func (as *apps) remove(a *app) {
	delete(as.byID, a.id)
	if a.lastSeq > 0 {
		as.lastSeq[a.id] = a.lastSeq
	}
}

// uncount forgets that the last app came: it was only planned.
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

// setShare brings what an app holds of the zone, by its weight, up to date.
func (a *app) setShare(zone *resource.Vector) { a.share = shareOf(&a.used, zone) / a.weight }

func (a *app) title() string {
	if a.name.name != "" {
		return a.name.name
	}
	return a.id.String()
}

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

func (as *apps) named(name string) *appName {
	m := as.names[name]
	if m == nil {
		m = &appName{name: name}
		as.names[name] = m
	}
	return m
}

// track makes a name's nodes known.
func (as *apps) track(name string) *appName {
	m := as.named(name)
	if m.tracked {
		return m
	}
	m.tracked = true
	for _, a := range as.sorted() {
		for k := a.containers; a.name == m && k != nil; k = k.nextOfApp {
			m.nodes.set(k.node.slot, as.fleet.words())
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
	// Others may still name it, or be named by it; only a name that means nothing to anybody is dropped.
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

// untracked are the names in an ask's affinities of which nobody keeps the nodes yet.
func (as *apps) untracked(spec *Ask) []*appName {
	var names []*appName
	for _, name := range slices.Concat(spec.Affinity, spec.AntiAffinity) {
		if m := as.named(name); !m.tracked {
			names = append(names, m)
		}
	}
	return names
}
