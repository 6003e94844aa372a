package zone

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

const (
	// lookAgain is the time until an app that has changed, or of which something is missing, is looked at again.
	lookAgain = 500 * time.Millisecond
	// lookSoon is the least time between two looks at a small app that shows a reason and has changed. For a large app it is
	// longer, in proportion to lookWork.
	lookSoon = 100 * time.Millisecond
	// comeBackFirst is the time after a start in which no app is looked at, so that nodes and masters can connect first.
	comeBackFirst = 5 * time.Second
	// lookMost is the most work of one turn, in the units of lookWork.
	lookMost = 400
	// lookRest is the time until the next turn, if a turn could not look at all apps that are due.
	lookRest = 200 * time.Millisecond
	// inCourse is how long a step of every deployment, as a download or a start, may take before it is shown as a reason.
	inCourse = 3 * time.Second
	// tellAgain is the least time between two events about what an app waits for.
	tellAgain = 10 * time.Second
	// mostReasons is the most reasons that an app shows.
	mostReasons = 8
)

// lookout finds out why apps wait. It looks at an app after a change, and then again and again while something of it is missing.
type lookout struct {
	// due are the apps to look at, ordered by wait.at.
	due []*app
	// from is when looking begins; see comeBackFirst.
	from time.Time
}

// wait is what the lookout knows of one app.
type wait struct {
	// looking: the app is in lookout.due. It is looked at from at on.
	looking bool
	at      time.Time
	// lookedAt is when it was looked at last.
	lookedAt time.Time
	// since is when each reason was first seen, by its kind.
	since map[string]time.Time
	// shown are the reasons in the app's status.
	shown []*apiv1.Waiting
	// byRole is, for each role, why its instances without a container wait.
	byRole map[string]string
	// toldAt is when the last event about reasons was published.
	toldAt time.Time
}

// recover takes the reasons of the last event before the ResourceManager was restarted. They keep their times, and make no new event.
func (w *wait) recover(told []*apiv1.Waiting) {
	w.shown, w.since = told, make(map[string]time.Time, len(told))
	for _, waiting := range told {
		w.since[waitingKind(waiting)] = waiting.GetSince().AsTime()
	}
}

// lookAfter puts an app into lookout.due, because something of it may be missing.
func (z *Core) lookAfter(a *app) {
	if a.wait.looking || a.removed {
		return
	}
	a.wait.looking, a.wait.at = true, z.now.Add(lookAgain)
	z.lookout.due = append(z.lookout.due, a)
	z.wakeBy(a.wait.at)
}

// lookAtWaiting looks at apps that are due, within what one turn may do.
func (z *Core) lookAtWaiting() {
	work := 0
	for _, a := range z.apps.touchedInOrder() {
		z.lookAfter(a)
		if z.now.Before(z.lookout.from) {
			continue
		}
		// A reason that no longer holds is to leave the status soon.
		if w := &a.wait; len(w.shown) > 0 && z.now.Sub(w.lookedAt) >= lookSoon*time.Duration(z.lookWork(a)) && work < lookMost && !a.removed {
			work += z.lookWork(a)
			z.look(a)
		}
	}
	if z.now.Before(z.lookout.from) {
		return
	}
	for len(z.lookout.due) > 0 && !z.lookout.due[0].wait.at.After(z.now) {
		if work >= lookMost {
			z.wakeBy(z.now.Add(lookRest))
			return
		}
		a := z.lookout.due[0]
		z.lookout.due[0] = nil
		z.lookout.due = z.lookout.due[1:]
		a.wait.looking = false
		if a.removed {
			continue
		}
		work += z.lookWork(a)
		if z.look(a) {
			a.wait.looking, a.wait.at = true, z.now.Add(lookAgain)
			z.lookout.due = append(z.lookout.due, a)
		}
	}
}

// lookWork is about how much work it is to look at an app: 1, and 1 more for each fifty instances, asks, containers and nodes.
func (z *Core) lookWork(a *app) int {
	return 1 + (len(a.instances)+len(a.asks.byID)+len(a.containers)+z.nodes.count())/50
}

// look finds the reasons why an app waits, puts them into its status, and reports whether there are any.
func (z *Core) look(a *app) bool {
	w := &a.wait
	w.lookedAt = z.now
	reasons := z.reasons(a)
	since := make(map[string]time.Time, len(reasons.all))
	var shown []*apiv1.Waiting
	for _, r := range reasons.all {
		waiting := r.waiting()
		kind := waitingKind(waiting)
		begun, known := w.since[kind]
		if !known {
			begun = z.now
		}
		since[kind] = begun
		if r.inCourse && z.now.Sub(begun) < inCourse+r.lasts || len(shown) == mostReasons {
			continue
		}
		waiting.Since = timestamppb.New(begun)
		shown = append(shown, waiting)
	}
	w.since, w.byRole = since, reasons.byRole
	if !slices.EqualFunc(shown, w.shown, sameWaiting) {
		w.shown = shown
		if a.connected() {
			z.masters.response(a).Waits = &masterv1.Waits{Waiting: shown}
		}
		z.apps.touch(a)
	}
	z.tellWaiting(a)
	return len(reasons.all) > 0
}

// tellWaiting publishes an event if the reasons are of another kind than those of the last event, at most once in tellAgain.
func (z *Core) tellWaiting(a *app) {
	w, told := &a.wait, a.record.GetWaiting()
	if slices.EqualFunc(w.shown, told, func(x, y *apiv1.Waiting) bool { return waitingKind(x) == waitingKind(y) }) {
		return
	}
	if len(w.shown) > 0 {
		if !w.toldAt.IsZero() && z.now.Sub(w.toldAt) < tellAgain {
			return
		}
		w.toldAt = z.now
		state := a.state().String()
		if !a.ending() && a.state() != lifecycle.AppDegraded {
			state = "WAITING"
		}
		z.emit(&apiv1.Event{
			Kind: "app", App: a.record.GetName(), Queue: a.record.GetSpec().GetQueue(), From: a.state().String(), To: state,
			Message: a.record.GetName() + ": " + waitingSentence(w.shown),
		})
	}
	a.record.Waiting = w.shown
	z.save(kindApp, a.id.String(), a.record)
}

// sameWaiting reports whether two reasons are equal in every field.
func sameWaiting(x, y *apiv1.Waiting) bool {
	return x.GetRole() == y.GetRole() && x.GetText() == y.GetText() && x.GetHelp() == y.GetHelp() && x.GetInstances() == y.GetInstances() &&
		x.GetUntil().AsTime().Equal(y.GetUntil().AsTime()) && x.GetSince().AsTime().Equal(y.GetSince().AsTime())
}

// waitingSentence joins several reasons into one sentence.
func waitingSentence(all []*apiv1.Waiting) string {
	var texts []string
	for _, waiting := range all {
		text := waiting.GetText()
		if waiting.GetHelp() != "" {
			text += "; " + waiting.GetHelp()
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

// waitingKind is the text of a reason without its figures and without the part about room that is being made. Those parts change all
// the time, and do not make it another reason.
func waitingKind(w *apiv1.Waiting) string {
	text, _, _ := strings.Cut(w.GetText(), "; room ")
	return w.GetRole() + "/" + withoutFigures(text)
}

func withoutFigures(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) || r == '.' {
			return -1
		}
		return r
	}, text)
}

// cause is why some instances of a role, or an app as a whole, differ from the spec.
type cause struct {
	role string
	// one and many are the verb, "waits for capacity" and "wait for capacity"; empty for a sentence about the app.
	one, many string
	detail    string
	help      string
	until     time.Time
	// inCourse: it is a step of every deployment, and becomes a reason only when it lasts longer than the constant inCourse.
	inCourse bool
	// lasts is how long such a step is known to take; it is added to the constant inCourse.
	lasts time.Duration
}

// reason is a cause with the instances that wait because of it.
type reason struct {
	cause
	// first is the name of the first instance, count their number; count is zero for the app as a whole.
	first string
	count int32
}

func (r *reason) waiting() *apiv1.Waiting {
	text := r.detail
	switch {
	case r.count == 1:
		text = because(r.first+" "+r.one, r.detail)
	case r.count > 1:
		text = because(fmt.Sprintf("%s and %d more %s", r.first, r.count-1, r.many), r.detail)
	}
	waiting := &apiv1.Waiting{Role: r.role, Text: text, Help: r.help, Instances: r.count}
	if !r.until.IsZero() {
		waiting.Until = timestamppb.New(r.until)
	}
	return waiting
}

// reasons collects the reasons of one app, in the order in which they are found.
type reasons struct {
	all    []*reason
	byRole map[string]string
}

// about adds a reason for the app as a whole.
func (r *reasons) about(c cause) { r.all = append(r.all, &reason{cause: c}) }

// of adds a cause for count instances, or containers of an ask; name is the name of the first.
func (r *reasons) of(name string, count int32, c cause) {
	for _, known := range r.all {
		if known.count > 0 && known.role == c.role && known.one == c.one && known.detail == c.detail && known.help == c.help {
			known.count += count
			if id.CompareNames(name, known.first) < 0 {
				known.first = name
			}
			if !c.until.IsZero() && (known.until.IsZero() || c.until.Before(known.until)) {
				known.until = c.until
			}
			return
		}
	}
	if len(r.all) < 4*mostReasons {
		r.all = append(r.all, &reason{cause: c, first: name, count: count})
	}
}

// sort puts the reasons of the app as a whole first, then those of instances, steps of every deployment last. The order does not
// depend on the order in which they were found.
func (r *reasons) sort() {
	slices.SortStableFunc(r.all, func(x, y *reason) int {
		switch {
		case (x.count == 0) != (y.count == 0):
			return int(min(x.count, 1) - min(y.count, 1))
		case x.inCourse != y.inCourse:
			if x.inCourse {
				return 1
			}
			return -1
		case x.role != y.role:
			return strings.Compare(x.role, y.role)
		}
		return cmp.Or(id.CompareNames(x.first, y.first), strings.Compare(x.detail, y.detail))
	})
}
