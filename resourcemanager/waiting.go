package resourcemanager

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
	// lookAgain is how soon an app of which something is missing is looked at, and the least time between two looks.
	lookAgain = 500 * time.Millisecond
	// lookSoon is the least time between two looks at a small app that shows a reason and has changed; a large one, which takes
	// more work, is looked at less often.
	lookSoon = 100 * time.Millisecond
	// comeBackFirst is how long nothing is looked at after a start, if there are apps.
	comeBackFirst = 5 * time.Second
	// lookMost is how much a turn may look at, in units of about fifty instances, asks or nodes.
	lookMost = 400
	// lookRest is how soon the rest is looked at when a turn could not look at all that are due.
	lookRest = 200 * time.Millisecond
	// inCourse is how long what is in the course of things (a download, a start) lasts before it is a reason.
	inCourse = 3 * time.Second
	// tellAgain is the least time between two events about what an app waits for.
	tellAgain = 10 * time.Second
	// mostReasons is how many reasons an app shows.
	mostReasons = 8
)

// lookout says why apps wait. An app that has changed is looked at once, and again and again while something of it is missing.
type lookout struct {
	// due are the apps to be looked at, the next first.
	due []*app
	// from is when looking begins: nodes and masters first have to come back to a ResourceManager that was started anew.
	from time.Time
}

// wait is what is known of an app that something is missing of.
type wait struct {
	// looking says that the app is in the lookout's list, and at when it is looked at.
	looking bool
	at      time.Time
	// lookedAt is when it was looked at last.
	lookedAt time.Time
	// since is when each reason was first seen, by its kind.
	since map[string]time.Time
	// shown is what people see.
	shown []*apiv1.Waiting
	// byRole is what instances of a role wait for that have no container.
	byRole map[string]string
	// toldAt is when an event was last told.
	toldAt time.Time
}

// recover takes what people were told before the ResourceManager was started. A reason keeps its time, and is not told again.
func (w *wait) recover(told []*apiv1.Waiting) {
	w.shown, w.since = told, make(map[string]time.Time, len(told))
	for _, waiting := range told {
		w.since[waitingKind(waiting)] = waiting.GetSince().AsTime()
	}
}

// lookAfter has an app looked at soon, because something of it may be missing.
func (z *zone) lookAfter(a *app) {
	if a.wait.looking || a.removed {
		return
	}
	a.wait.looking, a.wait.at = true, z.now.Add(lookAgain)
	z.lookout.due = append(z.lookout.due, a)
	z.at(a.wait.at)
}

// lookAtWaiting looks at apps that are due, within what one turn may do.
func (z *zone) lookAtWaiting() {
	work := 0
	for _, a := range z.touchedApps() {
		z.lookAfter(a)
		if z.now.Before(z.lookout.from) {
			continue
		}
		// What people see is not to be wrong for longer than they notice.
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
			z.at(z.now.Add(lookRest))
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

// lookWork is about what it costs to look at an app.
func (z *zone) lookWork(a *app) int {
	return 1 + (len(a.instances)+len(a.asks)+len(a.containers)+len(z.nodes))/50
}

// look finds out what an app waits for, and says whether there is anything.
func (z *zone) look(a *app) bool {
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
		if a.stream != nil {
			z.say(a).Waits = &masterv1.Waits{Waiting: shown}
		}
		z.touch(a)
	}
	z.tellWaiting(a)
	return len(reasons.all) > 0
}

// tellWaiting tells of reasons that are of another kind than those told last, but not too often.
func (z *zone) tellWaiting(a *app) {
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
		z.tell(&apiv1.Event{
			Kind: "app", App: a.record.GetName(), Queue: a.record.GetSpec().GetQueue(), From: a.state().String(), To: state,
			Message: a.record.GetName() + ": " + waitingSentence(w.shown),
		})
	}
	a.record.Waiting = w.shown
	z.save(kindApp, a.id.String(), a.record)
}

// sameWaiting compares what people see.
func sameWaiting(x, y *apiv1.Waiting) bool {
	return x.GetRole() == y.GetRole() && x.GetText() == y.GetText() && x.GetHelp() == y.GetHelp() && x.GetInstances() == y.GetInstances() &&
		x.GetUntil().AsTime().Equal(y.GetUntil().AsTime()) && x.GetSince().AsTime().Equal(y.GetSince().AsTime())
}

// waitingSentence is several reasons in a row.
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

// waitingKind is a reason without its figures, and without what is being done about it: those change all the time and make no
// other reason.
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

// cause is why some instances of a role, or an app as a whole, are not as people want them.
type cause struct {
	role string
	// one and many are the verb, "waits for capacity" and "wait for capacity"; empty for a sentence about the app.
	one, many string
	detail    string
	help      string
	until     time.Time
	// inCourse causes belong to the course of things, and are a reason only once they last.
	inCourse bool
	// lasts is how long such a cause lasts by itself, and is told of elsewhere meanwhile.
	lasts time.Duration
}

// reason is a cause with those that it keeps waiting.
type reason struct {
	cause
	// first is the first of them by name, count how many they are; zero for the app as a whole.
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

// reasons are gathered in the order in which they were first given.
type reasons struct {
	all    []*reason
	byRole map[string]string
}

// about adds a reason for the app as a whole.
func (r *reasons) about(c cause) { r.all = append(r.all, &reason{cause: c}) }

// of adds count instances, or containers of an ask, of that name.
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

// sort brings them into an order that does not depend on how they were found: what is about the app first.
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
