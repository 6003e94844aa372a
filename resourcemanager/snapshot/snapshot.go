// Package snapshot shows a zone as its last commit left it. The ResourceManager's loop publishes what each commit has changed; whoever
// lists, looks up or watches reads the newest snapshot and never meets the loop.
//
// A snapshot is never changed. It shares all but what has changed with the one before it, so that publishing costs O(log n) for each
// object that has changed. Every change of an object has an index of its own, which rises. The objects are found by kind and name, and
// in the order of their last changes: a watcher is a position in that order, and keeps nothing else.
package snapshot

import (
	"cmp"
	"iter"
	"maps"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Kind is what an object is.
type Kind int

const (
	Apps Kind = iota
	Nodes
	Containers
	Queues
	Contracts
	Zone
	kinds
)

// Object is an object since its last change. It must not be changed.
type Object struct {
	Kind Kind
	// Name is the object's in its kind: for a container its id.
	Name string
	// Index is that of the last change.
	Index int64
	// Gone says that the object is removed. It keeps the message of its last state.
	Gone bool
	Facts
	// Message is the object as it is shown. With is what its publisher keeps beside it.
	Message proto.Message
	With    any
	bytes   atomic.Int64
}

// Bytes is the size of the message when it is sent.
func (o *Object) Bytes() int {
	if known := o.bytes.Load(); known > 0 {
		return int(known - 1)
	}
	size := proto.Size(o.Message)
	o.bytes.Store(int64(size) + 1)
	return size
}

// Facts are what objects are selected and ordered by. What an object does not have is empty.
type Facts struct {
	State, Queue, App, Node, User string
	// Rank is the place of the object by its age: of an app its number, of a node and a container when it began, of a queue its place
	// in the tree.
	Rank int64
}

// Snapshot is a zone after a commit.
type Snapshot struct {
	// Index is that of the newest change.
	Index int64
	// oldest is the index from which on no removal is forgotten: a watcher before it begins again.
	oldest  int64
	byName  [kinds]tree[*Object]
	changed tree[*Object]
	// containersByApp and containersByNode find the few containers of an app or a node among the many of a zone.
	containersByApp, containersByNode tree[*Object]
	states                            [kinds]map[string]int
	// next is closed when there is a newer snapshot, or none will come. ended is why none will come.
	next  chan struct{}
	ended error
}

// mostRemovals is how many of the newest removals are remembered, for those who watch.
const mostRemovals = 10_000

// Board is where the newest snapshot is. One goroutine publishes; any may read.
type Board struct {
	newest atomic.Pointer[Snapshot]
	// removals are the removed objects that are remembered, the oldest first; of those that are there again by now too. The publisher
	// alone uses it.
	removals []*Object
}

// NewBoard makes a board without objects. Its indices rise from first on; they must be above those of every earlier board of the zone.
func NewBoard(first int64) *Board {
	b := &Board{}
	s := &Snapshot{
		Index: first, oldest: first, changed: tree[*Object]{compare: byIndex}, next: make(chan struct{}),
		containersByApp: tree[*Object]{compare: byApp}, containersByNode: tree[*Object]{compare: byNode},
	}
	for kind := range s.byName {
		s.byName[kind].compare = byName
		s.states[kind] = map[string]int{}
	}
	b.newest.Store(s)
	return b
}

func byName(a, b *Object) int  { return id.CompareNames(a.Name, b.Name) }
func byIndex(a, b *Object) int { return cmp.Compare(a.Index, b.Index) }
func byApp(a, b *Object) int   { return cmp.Or(cmp.Compare(a.App, b.App), byName(a, b)) }
func byNode(a, b *Object) int  { return cmp.Or(cmp.Compare(a.Node, b.Node), byName(a, b)) }

// Newest is the zone after the last commit.
func (b *Board) Newest() *Snapshot { return b.newest.Load() }

// Publish shows objects that have changed, in the order of their changes, and owns them from then on. An object that is gone needs no
// message: that of its last state is kept. It does nothing about one that was never there.
func (b *Board) Publish(objects []*Object) {
	if len(objects) == 0 {
		return
	}
	last := b.newest.Load()
	s := *last
	s.next = make(chan struct{})
	owned := [kinds]bool{}
	for _, object := range objects {
		if !owned[object.Kind] {
			owned[object.Kind], s.states[object.Kind] = true, maps.Clone(s.states[object.Kind])
		}
		s.change(object)
		if object.Gone && object.Index != 0 {
			b.removals = append(b.removals, object)
		}
	}
	for len(b.removals) > mostRemovals {
		forgotten := b.removals[0]
		b.removals = b.removals[1:]
		s.changed = s.changed.without(forgotten)
		s.oldest = forgotten.Index
	}
	b.newest.Store(&s)
	close(last.next)
}

// change takes in an object that has changed, or is gone.
func (s *Snapshot) change(object *Object) {
	table, states := &s.byName[object.Kind], s.states[object.Kind]
	before, was := table.find(object)
	if object.Gone && !was {
		return
	}
	s.Index++
	object.Index = s.Index
	if was {
		s.changed = s.changed.without(before)
		if states[before.State]--; states[before.State] == 0 {
			delete(states, before.State)
		}
	}
	s.changed = s.changed.with(object)
	if object.Kind == Containers {
		s.changeContainer(before, object)
	}
	if !object.Gone {
		*table = table.with(object)
		states[object.State]++
		return
	}
	*table = table.without(object)
	if object.Message == nil {
		object.Message, object.With, object.Facts = before.Message, before.With, before.Facts
	}
}

// changeContainer keeps the containers of each app and node. before is nil for a new one.
func (s *Snapshot) changeContainer(before, object *Object) {
	if before != nil && (object.Gone || before.App != object.App || before.Node != object.Node) {
		s.containersByApp, s.containersByNode = s.containersByApp.without(before), s.containersByNode.without(before)
	}
	if !object.Gone {
		s.containersByApp, s.containersByNode = s.containersByApp.with(object), s.containersByNode.with(object)
	}
}

// among are the objects of a kind that a filter may select, in the order of the names.
func (s *Snapshot) among(kind Kind, filter *Filter) iter.Seq[*Object] {
	switch {
	case kind == Containers && filter.App != "":
		return s.containersByApp.beginningWith(&Object{Facts: Facts{App: filter.App}}, func(o *Object) bool { return o.App == filter.App })
	case kind == Containers && filter.Node != "":
		return s.containersByNode.beginningWith(&Object{Facts: Facts{Node: filter.Node}}, func(o *Object) bool { return o.Node == filter.Node })
	}
	return s.byName[kind].all()
}

// End lets watchers read what there is and then ends them with err. Nothing is published after it.
func (b *Board) End(err error) {
	last := b.newest.Load()
	s := *last
	s.next, s.ended = make(chan struct{}), err
	b.newest.Store(&s)
	close(last.next)
}

// Find is the object with a name; nil if there is none.
func (s *Snapshot) Find(kind Kind, name string) *Object {
	object, _ := s.byName[kind].find(&Object{Name: name})
	return object
}

// Count is how many objects of a kind there are.
func (s *Snapshot) Count(kind Kind) int { return s.byName[kind].size }

// All calls each for every object of a kind, in the order of the names, until it returns false.
func (s *Snapshot) All(kind Kind, each func(*Object) bool) { s.byName[kind].all()(each) }
