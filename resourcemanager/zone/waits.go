package zone

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

const (
	// lookAgain is the time until an app that has changed, or of which something is missing, is looked at again.
	inspectAgain = 500 * time.Millisecond
	// lookSoon is the least time between two looks at a small app that shows a reason and has changed. For a large app it is
	// longer, in proportion to lookWork.
	inspectSoon = 100 * time.Millisecond
	// comeBackFirst is the time after a start in which no app is looked at, so that nodes and masters can connect first.
	inspectAfterStart = 5 * time.Second
	// lookMost is the most work of one turn, in the units of lookWork.
	mostCost = 400
	// lookRest is the time until the next turn, if a turn could not look at all apps that are due.
	inspectRest = 200 * time.Millisecond
	// inCourse is how long a step of every deployment, as a download or a start, may take before it is shown as a reason.
	routineTime = 3 * time.Second
	// tellAgain is the least time between two events about what an app waits for.
	eventAgain = 10 * time.Second
	// mostReasons is the most reasons that an app shows.
	mostReasons = 8
)

// waits find out why apps wait. An app is inspected after a change, and then again and again while something of it is missing.
type waits struct {
	*turn
	apps      *apps
	explainer *explainer
	masters   *masters
	nodes     *nodes
	// due are the apps to inspect, ordered by wait.at.
	due []*app
	// from is when inspections begin; see inspectAfterStart.
	from time.Time
}

// waits are the reasons in the status of an app.
func (a *app) waits() []*apiv1.Waiting { return a.wait.current }

// waitOf is why the instances of a role that have no container wait; empty if that is not known.
func (a *app) waitOf(role string) string { return a.wait.byRole[role] }

// start has inspections begin so late after a start that nodes and masters can connect first.
func (ws *waits) start() {
	if ws.apps.count() > 0 {
		ws.from = ws.now.Add(inspectAfterStart)
	}
}

// enqueue puts an app into lookout.due, because something of it may be missing.
func (ws *waits) enqueue(a *app) {
	if a.wait.queued || a.removed {
		return
	}
	a.wait.queued, a.wait.at = true, ws.now.Add(inspectAgain)
	ws.due = append(ws.due, a)
	ws.wakeBy(a.wait.at)
}

// inspectDue looks at apps that are due, within what one turn may do.
func (ws *waits) inspectDue() {
	work := 0
	for _, a := range ws.apps.touchedInOrder() {
		ws.enqueue(a)
		if ws.now.Before(ws.from) {
			continue
		}
		// A reason that no longer holds is to leave the status soon.
		if w := &a.wait; len(w.current) > 0 && ws.now.Sub(w.inspectedAt) >= inspectSoon*time.Duration(ws.cost(a)) && work < mostCost && !a.removed {
			work += ws.cost(a)
			ws.inspect(a)
		}
	}
	if ws.now.Before(ws.from) {
		return
	}
	for len(ws.due) > 0 && !ws.due[0].wait.at.After(ws.now) {
		if work >= mostCost {
			ws.wakeBy(ws.now.Add(inspectRest))
			return
		}
		a := ws.due[0]
		ws.due[0] = nil
		ws.due = ws.due[1:]
		a.wait.queued = false
		if a.removed {
			continue
		}
		work += ws.cost(a)
		if ws.inspect(a) {
			a.wait.queued, a.wait.at = true, ws.now.Add(inspectAgain)
			ws.due = append(ws.due, a)
		}
	}
}

// cost is about how much work it is to look at an app: 1, and 1 more for each fifty instances, asks, containers and nodes.
func (ws *waits) cost(a *app) int {
	return 1 + (len(a.instances)+a.askCount()+len(a.containers)+ws.nodes.count())/50
}

// inspect finds the reasons why an app waits, puts them into its status, and reports whether there are any.
func (ws *waits) inspect(a *app) bool {
	w := &a.wait
	w.inspectedAt = ws.now
	reasons := ws.explainer.reasons(a)
	since := make(map[string]time.Time, len(reasons.all))
	var shown []*apiv1.Waiting
	for _, r := range reasons.all {
		waiting := r.waiting()
		kind := waitingKind(waiting)
		begun, known := w.since[kind]
		if !known {
			begun = ws.now
		}
		since[kind] = begun
		if r.routine && ws.now.Sub(begun) < routineTime+r.lasts || len(shown) == mostReasons {
			continue
		}
		waiting.Since = timestamppb.New(begun)
		shown = append(shown, waiting)
	}
	w.since, w.byRole = since, reasons.byRole
	if !slices.EqualFunc(shown, w.current, sameWaiting) {
		w.current = shown
		if a.connected() {
			ws.masters.response(a).Waits = &masterv1.Waits{Waiting: shown}
		}
		ws.apps.touch(a)
	}
	ws.emitEvent(a)
	return len(reasons.all) > 0
}

// event publishes an event if the reasons are of another kind than those of the last event, at most once in tellAgain.
func (ws *waits) emitEvent(a *app) {
	w, told := &a.wait, a.record.GetWaiting()
	if slices.EqualFunc(w.current, told, func(x, y *apiv1.Waiting) bool { return waitingKind(x) == waitingKind(y) }) {
		return
	}
	if len(w.current) > 0 {
		if !w.eventAt.IsZero() && ws.now.Sub(w.eventAt) < eventAgain {
			return
		}
		w.eventAt = ws.now
		state := a.state().String()
		if !a.ending() && a.state() != lifecycle.AppDegraded {
			state = "WAITING"
		}
		ws.emit(&apiv1.Event{
			Kind: "app", App: a.record.GetName(), Queue: a.record.GetSpec().GetQueue(), From: a.state().String(), To: state,
			Message: a.record.GetName() + ": " + waitingSentence(w.current),
		})
	}
	a.record.Waiting = w.current
	ws.save(kindApp, a.id.String(), a.record)
}

// appWait is what the lookout knows of one app.
type appWait struct {
	// looking: the app is in lookout.due. It is looked at from at on.
	queued bool
	at     time.Time
	// lookedAt is when it was looked at last.
	inspectedAt time.Time
	// since is when each reason was first seen, by its kind.
	since map[string]time.Time
	// shown are the reasons in the app's status.
	current []*apiv1.Waiting
	// byRole is, for each role, why its instances without a container wait.
	byRole map[string]string
	// toldAt is when the last event about reasons was published.
	eventAt time.Time
}

// recover takes the reasons of the last event before the ResourceManager was restarted. They keep their times, and make no new event.
func (w *appWait) recover(told []*apiv1.Waiting) {
	w.current, w.since = told, make(map[string]time.Time, len(told))
	for _, waiting := range told {
		w.since[waitingKind(waiting)] = waiting.GetSince().AsTime()
	}
}

// ofNode gives the reasons why a node that is drained still has containers.
func (ws *waits) ofNode(n *node) []*apiv1.Waiting {
	if n.state() != lifecycle.NodeDraining {
		return nil
	}
	var waits []*apiv1.Waiting
	for _, a := range ws.nodes.appsOn(n) {
		if len(waits) == mostReasons {
			break
		}
		for _, w := range a.waits() {
			waits = append(waits, &apiv1.Waiting{
				Role: w.GetRole(), Text: a.record.GetName() + ": " + w.GetText(), Help: w.GetHelp(), Since: w.GetSince(), Until: w.GetUntil(), Instances: w.GetInstances(),
			})
		}
	}
	return waits
}
