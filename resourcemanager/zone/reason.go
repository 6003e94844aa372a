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
)

// cause is why some instances of a role, or an app as a whole, differ from the spec.
type cause struct {
	role string
	// one and many are the verb, "waits for capacity" and "wait for capacity"; empty for a sentence about the app.
	one, many string
	detail    string
	help      string
	until     time.Time
	// routine: it is a step of every deployment, and becomes a reason only when it lasts longer than routineTime.
	routine bool
	// lasts is how long such a step is known to take; it is added to routineTime.
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

// sort puts the reasons of the app as a whole first, then those of instances, routine steps last. The order does not
// depend on the order in which they were found.
func (r *reasons) sort() {
	slices.SortStableFunc(r.all, func(x, y *reason) int {
		switch {
		case (x.count == 0) != (y.count == 0):
			return int(min(x.count, 1) - min(y.count, 1))
		case x.routine != y.routine:
			if x.routine {
				return 1
			}
			return -1
		case x.role != y.role:
			return strings.Compare(x.role, y.role)
		}
		return cmp.Or(id.CompareNames(x.first, y.first), strings.Compare(x.detail, y.detail))
	})
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
