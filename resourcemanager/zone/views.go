package zone

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// appView caches the view of an app. An app of 10,000 instances is sent to any number of readers, many times a second while it is
// deployed, and only a few instances differ from one time to the next.
type appView struct {
	// current is the present view; nil if the app has changed since it was made.
	current *apiv1.App
	// notifyAt is when watchers may be sent the next change; unsent: they have not been sent the last one.
	notifyAt time.Time
	unsent   bool
	// countsAt is when the first instance that its master reports as starting will count by what its node reports; zero is never.
	countsAt time.Time
	// watchers are the streams on which the view is sent.
	watchers map[StreamID]struct{}
	// instances are the views of the instances, by their names.
	instances map[string]instanceView
}

func newAppView() appView { return appView{watchers: map[StreamID]struct{}{}} }

// instancesAMillisecond is about how many instances a millisecond suffices for when a view is made. The time between two changes that
// watchers are sent is at least fifty times the time that a view takes, so that views cost at most 2 % of the loop's time.
const instancesAMillisecond = 2000

// views are the apps as people see them, and those who watch them. Nothing in the zone follows from them. A view is overdue when the app
// looks different by now though it has not changed.
type views struct {
	*turn
	apps     *apps
	packages *packages
	desired  *desired
	nodes    *nodes
	// byStream are the apps by the streams of those who watch them.
	byStream map[StreamID]*app
	// overdue are the apps whose views are overdue, and those whose watchers have not been sent the last change.
	overdue []*app
}

func (vs *views) begin() { vs.overdue = nil }

// changed has the view of an app made anew.
func (vs *views) changed(a *app) { a.view.current = nil }

// due finds out whether the view of an app is overdue.
func (vs *views) due(a *app) {
	if counts := !a.view.countsAt.IsZero() && !vs.now.Before(a.view.countsAt); counts || a.view.unsent {
		vs.overdue = append(vs.overdue, a)
	}
}

// deliver sends watchers the apps that look different since the turn began.
func (vs *views) deliver() {
	for _, a := range vs.apps.touchedInOrder() {
		vs.changed(a) // a view that was made during the turn may show half of it
		vs.notifyWatchers(a)
	}
	for _, a := range vs.overdue {
		if !vs.apps.isTouched(a) {
			vs.changed(a)
			vs.notifyWatchers(a)
		}
	}
}

// of returns the present view of an app.
func (vs *views) of(a *app) *apiv1.App {
	if a.view.current == nil {
		a.view.current = vs.make(a)
	}
	return a.view.current
}

// errGone ends the watch of an app that was removed.
var errGone = fmt.Errorf("the app is removed: %w", errdefs.ErrNotFound)

// watch has the view of an app sent on a stream whenever it changes, and returns the present one.
func (vs *views) watch(name string, stream StreamID) (*apiv1.App, error) {
	a, err := vs.apps.named(name)
	if err != nil {
		return nil, err
	}
	a.view.watchers[stream] = struct{}{}
	vs.byStream[stream] = a
	return vs.of(a), nil
}

func (vs *views) unwatch(stream StreamID) {
	if a := vs.byStream[stream]; a != nil {
		delete(a.view.watchers, stream)
		delete(vs.byStream, stream)
	}
}

// notifyWatchers sends a changed app to its watchers, and ends their streams once it is removed.
func (vs *views) notifyWatchers(a *app) {
	if len(a.view.watchers) == 0 {
		a.view.unsent = false
		return
	}
	if a.view.unsent = vs.now.Before(a.view.notifyAt) && !a.removed; a.view.unsent {
		vs.wakeBy(a.view.notifyAt)
		return
	}
	a.view.notifyAt = vs.now.Add(50 * time.Millisecond * time.Duration(len(a.instances)) / instancesAMillisecond)
	view := vs.of(a)
	for _, watcher := range slices.Sorted(maps.Keys(a.view.watchers)) {
		vs.out.Views = append(vs.out.Views, ViewSend{watcher, view})
		if a.removed {
			vs.out.Ends = append(vs.out.Ends, StreamEnd{watcher, errGone})
		}
	}
}
