package snapshot

import (
	"cmp"
	"container/heap"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

const (
	// DefaultPage is how many objects a page has unless something else is asked for, MostOfAPage how many it may have.
	DefaultPage = 100
	MostOfAPage = 1000
	// bytesOfAPage is how many bytes the objects of a page have together, unless one alone has more.
	bytesOfAPage = 4 << 20
)

// Filter selects objects. What is empty selects all.
type Filter struct {
	// Prefix is what names begin with.
	Prefix                        string
	State, Queue, App, Node, User string
	// More selects by what Facts do not have; nil selects all.
	More func(*Object) bool
}

func (f *Filter) empty() bool {
	return f.Prefix == "" && f.State == "" && f.Queue == "" && f.App == "" && f.Node == "" && f.User == "" && f.More == nil
}

// Matches reports whether a filter selects an object.
func (f *Filter) Matches(o *Object) bool {
	return f.lasting(o) && (f.State == "" || f.State == o.State) && (f.Queue == "" || f.Queue == o.Queue) && (f.More == nil || f.More(o))
}

// lasting reports whether a filter may select an object, by that which never changes while the object exists.
func (f *Filter) lasting(o *Object) bool {
	return strings.HasPrefix(o.Name, f.Prefix) && (f.App == "" || f.App == o.App) && (f.Node == "" || f.Node == o.Node) &&
		(f.User == "" || f.User == o.User) && (f.Queue == "" || o.Queue != "")
}

// Query asks for a page of a list.
type Query struct {
	Kind   Kind
	Filter Filter
	// Order is "name", "created" or "state"; empty is "name". Objects of one state are in the order of their names. Descending turns it
	// around.
	Order      string
	Descending bool
	// Size is how many objects the page may have; zero is DefaultPage. Token is the Next of the page before; empty is the first page.
	Size  int
	Token string
	// Sum asks for the counts of all that is selected.
	Sum bool
}

// Page is a part of a list.
type Page struct {
	Objects []*Object
	// Next is the token of the next page; empty if this is the last one.
	Next string
	// Total is how many objects the list has on all pages, States how many of them are in each state; only if asked for.
	Total  int
	States map[string]int
}

// List returns a page. A list that is read page by page has every object that is there from the first page to the last one, and none
// twice. Only an object whose state changes meanwhile may be missing, or be there twice, in a list in the order of the states. It fails
// with errdefs.ErrInvalidArgument.
func (s *Snapshot) List(q Query) (Page, error) {
	size, err := q.size()
	if err != nil {
		return Page{}, err
	}
	order, err := q.order()
	if err != nil {
		return Page{}, err
	}
	after, err := q.after()
	if err != nil {
		return Page{}, err
	}
	page := Page{}
	switch {
	case q.Order == "created" && q.Kind == Apps:
		page.Objects = s.inAge(q, after, size+1)
	case (q.Order == "" || q.Order == "name") && !q.Descending:
		page.Objects = s.inOrder(q, after, size+1)
	default:
		page.Objects = s.least(q, after, size+1, order)
	}
	if fit := min(size, fitting(page.Objects)); len(page.Objects) > fit {
		page.Objects = page.Objects[:fit]
		page.Next = q.tokenAfter(page.Objects[fit-1])
	}
	if q.Sum {
		page.Total, page.States = s.sum(q.Kind, &q.Filter)
	}
	return page, nil
}

// fitting is how many of the objects fit into one answer; at least one does.
func fitting(objects []*Object) int {
	sum := 0
	for i, o := range objects {
		if sum += o.Bytes(); sum > bytesOfAPage && i > 0 {
			return i
		}
	}
	return len(objects)
}

func (q *Query) size() (int, error) {
	switch {
	case q.Size < 0 || q.Size > MostOfAPage:
		return 0, fmt.Errorf("a page cannot have %d entries; ask for 1 to %d, or leave the size out for %d: %w", q.Size, MostOfAPage, DefaultPage, errdefs.ErrInvalidArgument)
	case q.Size == 0:
		return DefaultPage, nil
	}
	return q.Size, nil
}

// order compares two objects as the query wants them. No two are equal.
func (q *Query) order() (func(a, b *Object) int, error) {
	var order func(a, b *Object) int
	switch q.Order {
	case "", "name":
		order = byName
	case "created":
		order = byAge
	case "state":
		order = func(a, b *Object) int { return cmp.Or(cmp.Compare(a.State, b.State), byName(a, b)) }
	default:
		return nil, fmt.Errorf("a list cannot be ordered by %q; take name, created or state: %w", q.Order, errdefs.ErrInvalidArgument)
	}
	if q.Descending {
		return func(a, b *Object) int { return order(b, a) }, nil
	}
	return order, nil
}

// inOrder are the first n objects that follow the object after, of a list in the order of the names.
func (s *Snapshot) inOrder(q Query, after *Object, n int) []*Object {
	var found []*Object
	s.among(q.Kind, &q.Filter, after, func(o *Object) bool {
		if q.Filter.Matches(o) {
			found = append(found, o)
		}
		return len(found) < n
	})
	return found
}

// inAge are the first n apps that follow the app after, of a list in the order of their age.
func (s *Snapshot) inAge(q Query, after *Object, n int) []*Object {
	var found []*Object
	take := func(o *Object) bool {
		if (after == nil || byAge(o, after) != 0) && q.Filter.Matches(o) {
			found = append(found, o)
		}
		return len(found) < n
	}
	switch {
	case after == nil && q.Descending:
		s.appsByAge.Descend(take)
	case after == nil:
		s.appsByAge.Ascend(take)
	case q.Descending:
		s.appsByAge.DescendLessOrEqual(after, take)
	default:
		s.appsByAge.AscendGreaterOrEqual(after, take)
	}
	return found
}

// least are the first n objects that follow the object after, of a list in any order. It compares all objects, and keeps n of them.
func (s *Snapshot) least(q Query, after *Object, n int, order func(a, b *Object) int) []*Object {
	kept := &greatestFirst{order: order}
	s.among(q.Kind, &q.Filter, nil, func(o *Object) bool {
		switch {
		case after != nil && order(o, after) <= 0 || !q.Filter.Matches(o):
		case kept.Len() < n:
			heap.Push(kept, o)
		case order(o, kept.objects[0]) < 0:
			kept.objects[0] = o
			heap.Fix(kept, 0)
		}
		return true
	})
	slices.SortFunc(kept.objects, order)
	return kept.objects
}

// greatestFirst is a heap whose first object is the last one in the order.
type greatestFirst struct {
	objects []*Object
	order   func(a, b *Object) int
}

func (h *greatestFirst) Len() int           { return len(h.objects) }
func (h *greatestFirst) Less(i, j int) bool { return h.order(h.objects[i], h.objects[j]) > 0 }
func (h *greatestFirst) Swap(i, j int)      { h.objects[i], h.objects[j] = h.objects[j], h.objects[i] }
func (h *greatestFirst) Push(o any)         { h.objects = append(h.objects, o.(*Object)) }
func (h *greatestFirst) Pop() any {
	last := h.objects[len(h.objects)-1]
	h.objects = h.objects[:len(h.objects)-1]
	return last
}

// sum counts what a filter selects. The counts of a whole kind are kept.
func (s *Snapshot) sum(kind Kind, filter *Filter) (total int, states map[string]int) {
	if filter.empty() {
		return s.Count(kind), s.states[kind]
	}
	states = map[string]int{}
	s.among(kind, filter, nil, func(o *Object) bool {
		if filter.Matches(o) {
			total++
			states[o.State]++
		}
		return true
	})
	return total, states
}

// tokenAfter is the token of the page that begins after an object. It holds what the order compares and not a position, so that it stays
// right when other objects come and go.
func (q *Query) tokenAfter(o *Object) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s %d %s %s", cmp.Or(q.Order, "name"), o.Rank, o.State, o.Name))
}

// after is the object that a token was made of, with what the order compares; nil for the first page.
func (q *Query) after() (*Object, error) {
	if q.Token == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(q.Token)
	parts := strings.SplitN(string(raw), " ", 4)
	if err != nil || len(parts) != 4 || parts[0] != cmp.Or(q.Order, "name") {
		return nil, errToken
	}
	rank, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return nil, errToken
	}
	return &Object{Name: parts[3], Facts: Facts{Rank: rank, State: parts[2]}}, nil
}

var errToken = fmt.Errorf("this is no page token of this list; begin again without one: %w", errdefs.ErrInvalidArgument)
