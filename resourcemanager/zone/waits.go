package zone

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/waiting"
)

const (
	// inspectAgain is the time until an app that has changed, or of which something is missing, is inspected again.
	inspectAgain = 500 * time.Millisecond
	// inspectSoon is the least time between two inspections of a small app that shows a reason and has changed. For a large app it is
	// longer, in proportion to its cost.
	inspectSoon = 100 * time.Millisecond
	// inspectAfterStart is the time after a start in which no app is inspected, so that nodes and masters can connect first.
	inspectAfterStart = 5 * time.Second
	// mostCost is the most that the inspections of one turn may cost.
	mostCost = 400
	// inspectRest is the time until the next turn, if a turn could not inspect all apps that are due.
	inspectRest = 200 * time.Millisecond
	// routineTime is how long a routine step, as a download or a start, may take before it is shown as a reason.
	routineTime = 3 * time.Second
	// eventAgain is the least time between two events about what an app waits for.
	eventAgain = 10 * time.Second
)

// waits keep what apps wait for. An app is inspected after a change, and then again and again while something of it is missing: the
// explainer is asked for the reasons, which become part of its view and, if they are of another kind than before, an event.
type waits struct {
	*turn
	apps      *apps
	explainer *explainer
	masters   *masters
	nodes     *nodes
	// due are the apps to inspect, ordered by wait.at.
	due []*app
	// from is when inspections begin, and rest when they go on that one turn could not carry out.
	from, rest time.Time
}

// waits are the reasons that an app shows.
func (a *app) waits() []*apiv1.Waiting { return a.wait.current }

// waitOf is why the instances of a role that have no container wait; empty if that is not known.
func (a *app) waitOf(role string) string { return a.wait.byRole[role] }

// start has inspections begin inspectAfterStart from now, unless there is no app.
func (ws *waits) start() {
	if ws.apps.count() > 0 {
		ws.from = ws.now.Add(inspectAfterStart)
	}
}

// enqueue has an app inspected soon, because something of it may be missing.
func (ws *waits) enqueue(a *app) {
	if a.wait.queued || a.removed {
		return
	}
	a.wait.queued, a.wait.at = true, ws.now.Add(inspectAgain)
	ws.due = append(ws.due, a)
}

// inspectDue inspects the apps that are due, as far as their cost allows.
func (ws *waits) inspectDue() {
	ws.inspectSome()
	if len(ws.due) > 0 {
		ws.nextBy(latest(ws.due[0].wait.at, ws.from, ws.rest))
	}
}

func latest(instants ...time.Time) time.Time { return slices.MaxFunc(instants, time.Time.Compare) }

func (ws *waits) inspectSome() {
	work := 0
	for _, a := range ws.apps.touchedInOrder() {
		ws.enqueue(a)
		if ws.now.Before(ws.from) {
			continue
		}
		// A reason that is no longer true is to disappear soon.
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
			ws.rest = ws.now.Add(inspectRest)
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

// cost is about how much work an inspection is: 1, and 1 more for each fifty instances, asks, containers and nodes.
func (ws *waits) cost(a *app) int {
	return 1 + (len(a.instances)+a.askCount()+len(a.containers)+ws.nodes.count())/50
}

// inspect finds the reasons why an app waits, shows them, and reports whether there are any.
func (ws *waits) inspect(a *app) bool {
	w := &a.wait
	w.inspectedAt = ws.now
	reasons := ws.explainer.reasons(a)
	since := make(map[string]time.Time, len(reasons.All))
	var shown []*apiv1.Waiting
	for _, r := range reasons.All {
		reason := r.Waiting()
		kind := waiting.Kind(reason)
		begun, known := w.since[kind]
		if !known {
			begun = ws.now
		}
		since[kind] = begun
		if r.Routine && ws.now.Sub(begun) < routineTime+r.Lasts || len(shown) == waiting.Most {
			continue
		}
		reason.Since = timestamppb.New(begun)
		shown = append(shown, reason)
	}
	w.since, w.byRole = since, reasons.ByRole
	if !slices.EqualFunc(shown, w.current, waiting.Same) {
		w.current = shown
		if a.connected() {
			ws.masters.response(a).Waits = &masterv1.Waits{Waiting: shown}
		}
		ws.apps.touch(a)
	}
	ws.emitEvent(a)
	return len(reasons.All) > 0
}

// emitEvent emits an event if the reasons are of another kind than those of the last event, at most once in eventAgain.
func (ws *waits) emitEvent(a *app) {
	w, last := &a.wait, a.record.GetWaiting()
	if slices.EqualFunc(w.current, last, func(x, y *apiv1.Waiting) bool { return waiting.Kind(x) == waiting.Kind(y) }) {
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
		ws.Emit(&apiv1.Event{
			Kind: "app", App: a.record.GetName(), Queue: a.record.GetSpec().GetQueue(), From: a.state().String(), To: state,
			Message: a.record.GetName() + ": " + waiting.Sentence(w.current),
		})
	}
	a.record.Waiting = w.current
	ws.Save(kindApp, a.id.String(), a.record)
}

// appWait is what one app waits for.
type appWait struct {
	// queued: the app is among those that are due. It is inspected from at on.
	queued bool
	at     time.Time
	// inspectedAt is when it was inspected last.
	inspectedAt time.Time
	// since is when each reason was first seen, by its kind.
	since map[string]time.Time
	// current are the reasons that the app shows.
	current []*apiv1.Waiting
	// byRole is, for each role, why its instances without a container wait.
	byRole map[string]string
	// eventAt is when the last event about reasons was emitted.
	eventAt time.Time
}

// recover takes over the reasons of the last event before the ResourceManager was restarted. They keep their times, and make no new event.
func (w *appWait) recover(last []*apiv1.Waiting) {
	w.current, w.since = last, make(map[string]time.Time, len(last))
	for _, reason := range last {
		w.since[waiting.Kind(reason)] = reason.GetSince().AsTime()
	}
}

// ofNode are the reasons why a node that is drained still has containers.
func (ws *waits) ofNode(n *node) []*apiv1.Waiting {
	if n.state() != lifecycle.NodeDraining {
		return nil
	}
	var waits []*apiv1.Waiting
	for _, a := range ws.nodes.appsOn(n) {
		for _, w := range a.waits() {
			if len(waits) == waiting.Most {
				return waits
			}
			waits = append(waits, &apiv1.Waiting{
				Role: w.GetRole(), Text: a.record.GetName() + ": " + w.GetText(), Help: w.GetHelp(), Since: w.GetSince(), Until: w.GetUntil(), Instances: w.GetInstances(),
			})
		}
	}
	return waits
}
