// Package waiting puts into sentences why an app waits. A cause is why some instances, or the app as a whole, are not as people want
// them; a reason is a cause with the instances that wait because of it; of two reasons of one kind only the figures differ.
package waiting

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/sentence"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Most is how many reasons an app, or a node that is drained, shows at most.
const Most = 8

// Cause is why some instances of a role, or an app as a whole, differ from the spec.
type Cause struct {
	// Role is the role of the instances; empty in an app of one role, and for the app as a whole.
	Role string
	// One and Many are the verb, "waits for capacity" and "wait for capacity"; empty for a sentence about the app.
	One, Many string
	// Detail says why, Help what would help; either may be empty.
	Detail, Help string
	// Until is when it will be over; zero if that is not known.
	Until time.Time
	// Routine: it is a step of every deployment, and is shown only when it lasts for a while.
	Routine bool
	// Lasts is how long such a step is known to take; it is shown only after that.
	Lasts time.Duration
}

// Reason is a cause with the instances that wait because of it.
type Reason struct {
	Cause
	// First is the name of the first instance, Count their number. Count is zero for the app as a whole.
	First string
	Count int32
}

// Waiting is the reason as the app shows it.
func (r *Reason) Waiting() *apiv1.Waiting {
	var parts []string
	switch {
	case r.Count == 1:
		parts = append(parts, r.First+" "+r.One)
	case r.Count > 1:
		parts = append(parts, fmt.Sprintf("%s and %d more %s", r.First, r.Count-1, r.Many))
	}
	if r.Detail != "" {
		parts = append(parts, r.Detail)
	}
	waiting := &apiv1.Waiting{Role: r.Role, Text: strings.Join(parts, ": "), Help: r.Help, Instances: r.Count}
	if !r.Until.IsZero() {
		waiting.Until = timestamppb.New(r.Until)
	}
	return waiting
}

// Reasons collects the reasons of one app, in the order in which they are found.
type Reasons struct {
	// All are the reasons; Sort puts them in order.
	All []*Reason
	// ByRole is, for each role, why its instances without a container wait.
	ByRole map[string]string
}

// About adds a reason for the app as a whole.
func (r *Reasons) About(c Cause) { r.All = append(r.All, &Reason{Cause: c}) }

// Of adds a cause for count instances, or containers of an ask; name is the name of the first. Of more causes than four times Most, the
// last ones are dropped.
func (r *Reasons) Of(name string, count int32, c Cause) {
	for _, known := range r.All {
		if known.Count > 0 && known.Role == c.Role && known.One == c.One && known.Detail == c.Detail && known.Help == c.Help {
			known.Count += count
			if id.CompareNames(name, known.First) < 0 {
				known.First = name
			}
			if !c.Until.IsZero() && (known.Until.IsZero() || c.Until.Before(known.Until)) {
				known.Until = c.Until
			}
			return
		}
	}
	if len(r.All) < 4*Most {
		r.All = append(r.All, &Reason{Cause: c, First: name, Count: count})
	}
}

// Sort puts the reasons of the app as a whole before those of instances, and of each the routine steps last. The order does not depend on
// the order in which the reasons were found.
func (r *Reasons) Sort() {
	slices.SortStableFunc(r.All, func(x, y *Reason) int {
		switch {
		case (x.Count == 0) != (y.Count == 0):
			return int(min(x.Count, 1) - min(y.Count, 1))
		case x.Routine != y.Routine:
			if x.Routine {
				return 1
			}
			return -1
		case x.Role != y.Role:
			return strings.Compare(x.Role, y.Role)
		}
		return cmp.Or(id.CompareNames(x.First, y.First), strings.Compare(x.Detail, y.Detail))
	})
}

// Same reports whether two reasons are equal in every field.
func Same(x, y *apiv1.Waiting) bool {
	return x.GetRole() == y.GetRole() && x.GetText() == y.GetText() && x.GetHelp() == y.GetHelp() && x.GetInstances() == y.GetInstances() &&
		x.GetUntil().AsTime().Equal(y.GetUntil().AsTime()) && x.GetSince().AsTime().Equal(y.GetSince().AsTime())
}

// Sentence joins several reasons into one sentence.
func Sentence(all []*apiv1.Waiting) string {
	var texts []string
	for _, waiting := range all {
		texts = append(texts, sentence.Because(waiting.GetText(), "", waiting.GetHelp()))
	}
	return strings.Join(texts, "; ")
}

// Kind is the text of a reason without its figures and without the part about room that is being made. Those parts change all
// the time, and do not make it another reason.
func Kind(w *apiv1.Waiting) string {
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
