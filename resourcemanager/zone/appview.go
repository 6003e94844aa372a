package zone

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// make makes a view. It shares its spec and its instances with other views of the app, and nothing else.
func (vs *views) make(a *app) *apiv1.App {
	r := a.record
	view := &apiv1.App{
		Name:               r.GetName(),
		Id:                 r.GetId(),
		State:              r.GetState(),
		Queue:              r.GetSpec().GetQueue(),
		User:               r.GetUser(),
		Version:            r.GetVersion(),
		Reason:             r.GetReason(),
		CreatedAt:          r.GetCreatedAt(),
		Generation:         r.GetGeneration(),
		ObservedGeneration: r.GetObservedGeneration(),
		Outcome:            r.GetOutcome(),
		Ends:               vs.packages.ends(a),
	}
	if !a.ending() {
		view.Wanted, view.Schedules = vs.desired.count(a), vs.desired.scheduledCounts(a)
	}
	view.Status = a.presentStatus(view.GetWanted())
	a.view.countsAt = time.Time{}
	instances := vs.instances(a)
	if awaited := vs.lostNodes(a); awaited != "" {
		view.Reason = awaited
	}
	for _, instance := range instances {
		if instance.GetState() == apiv1.Instance_RUNNING {
			view.Running++
		}
	}
	view.Waiting = vs.waiting(a, view, len(instances))
	if attempt := r.GetAttempt(); attempt.GetNumber() > 0 {
		view.Master = &apiv1.Master{
			Attempt: attempt.GetNumber(), State: attempt.GetState(), ContainerId: attempt.GetContainerId(),
			Node: a.nodeOf(attempt.GetContainerId()), RegisteredAt: attempt.GetRegisteredAt(),
		}
	}
	view = proto.CloneOf(view)
	view.Spec, view.Instances = r.GetSpec(), instances // which are replaced, and never changed
	return view
}

// waiting is what the app waits for. What instances wait for is left out as soon as all of them run, which may be before the next
// inspection.
func (vs *views) waiting(a *app, view *apiv1.App, instances int) []*apiv1.Waiting {
	if view.GetState() != apiv1.App_RUNNING || view.GetRunning() != view.GetWanted() || instances != int(view.GetWanted()) ||
		isWorking(view.GetStatus()) {
		return a.waits()
	}
	return slices.DeleteFunc(slices.Clone(a.waits()), func(w *apiv1.Waiting) bool { return w.GetInstances() > 0 })
}

// isHeld reports whether a container of the app is held.
func (a *app) isHeld(container string) bool {
	c := a.container(container)
	return c != nil && c.held()
}

// lostNodes says which lost nodes keep an app from ending; empty if none does.
func (vs *views) lostNodes(a *app) string {
	if !a.ending() || a.state() == lifecycle.AppStopped {
		return ""
	}
	held := map[*node]int{}
	for _, c := range a.containers {
		if n := vs.nodes.get(c.node); n != nil && n.state() == lifecycle.NodeLost && c.held() {
			held[n]++
		}
	}
	var waits []string
	for _, n := range slices.SortedFunc(maps.Keys(held), byName) {
		waits = append(waits, fmt.Sprintf("it waits for %s, which is lost and holds %d of its containers; if it is gone for good, \"mammoth node rm %s\" says so", n.id, held[n], n.id))
	}
	return strings.Join(waits, "; ")
}
