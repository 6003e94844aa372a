// Package snapshot shows a zone as its last commit left it. The ResourceManager's loop publishes what each commit has changed; whoever
// lists, looks up or watches reads the newest snapshot and never meets the loop.
//
// A snapshot is never changed. It shares all but what has changed with the one before it, so that a new one costs O(log n) for each
// object that has changed, and it is made beside the loop. Every change of an object has an index of its own, which rises. The objects
// are found by kind and name, and in the order of their last changes: a watcher is a position in that order, and keeps nothing else.
//
// A Board owns the newest snapshot. One goroutine publishes and never waits for another; any may read.
package snapshot

import (
	"cmp"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/google/btree"
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

// Facts are what objects are selected and ordered by. What an object does not have is empty. Only State, Queue and Rank may change while an
// object exists.
type Facts struct {
	State, Queue, App, Node, User string
	// Rank is what a list in the order "created" is ordered by: of an app its number, of a node when it registered last, of a container
	// when it began, of a queue its place in the tree.
	Rank int64
}

// Snapshot is a zone after a commit.
type Snapshot struct {
	// Index is that of the newest change.
	Index int64
	// oldest is the index from which on no removal is forgotten: a watcher before it begins again.
	oldest int64
	// taken is how many of the published objects it has taken in.
	taken   int64
	byName  [kinds]table
	changed table
	// appsByAge has the apps in the order of their ranks.
	appsByAge table
	// containersByApp and containersByNode find the few containers of an app or a node among the many of a zone, changedByApp the few
	// changes of an app and its containers.
	containersByApp, containersByNode, changedByApp table
	states                                          [kinds]map[string]int
	// next is closed when there is a newer snapshot. ended is set in the last one, and says why no more will come.
	next  chan struct{}
	ended error
}

// table is a sorted set of objects. A clone shares its memory, and copies what it changes.
type table = *btree.BTreeG[*Object]

// degree is the degree of the B-trees: 31 to 63 objects are together in memory.
const degree = 32

func newTable(compare func(a, b *Object) int) table {
	return btree.NewG(degree, func(a, b *Object) bool { return compare(a, b) < 0 })
}

// mostRemovals is how many of the newest removals are remembered, for those who watch.
const mostRemovals = 10_000

// Board is where the newest snapshot is. One goroutine publishes and never waits for another; any may read.
type Board struct {
	newest atomic.Pointer[Snapshot]
	// published is how many objects were published.
	published atomic.Int64

	// queue guards what is published and not taken in.
	queue   sync.Mutex
	waiting []*Object
	// taking says that a goroutine is on its way to take in what waits.
	taking bool

	// making is held while a snapshot is made.
	making sync.Mutex
	// removals are the removed objects that are remembered, the oldest first, also if there is an object of that name again.
	removals []*Object

	// over is closed when nothing more will be published.
	over chan struct{}
}

// NewBoard makes a board without objects. Its indices rise from first on; they must be above those of every earlier board of the zone.
func NewBoard(first int64) *Board {
	b := &Board{over: make(chan struct{})}
	s := &Snapshot{
		Index: first, oldest: first, changed: newTable(byIndex), next: make(chan struct{}),
		appsByAge: newTable(byAge), containersByApp: newTable(byApp), containersByNode: newTable(byNode), changedByApp: newTable(byAppAndIndex),
	}
	for kind := range s.byName {
		s.byName[kind] = newTable(byName)
		s.states[kind] = map[string]int{}
	}
	b.newest.Store(s)
	return b
}

func byName(a, b *Object) int  { return id.CompareNames(a.Name, b.Name) }
func byIndex(a, b *Object) int { return cmp.Compare(a.Index, b.Index) }
func byAge(a, b *Object) int   { return cmp.Or(cmp.Compare(a.Rank, b.Rank), byName(a, b)) }
func byApp(a, b *Object) int   { return cmp.Or(cmp.Compare(a.App, b.App), byName(a, b)) }
func byNode(a, b *Object) int  { return cmp.Or(cmp.Compare(a.Node, b.Node), byName(a, b)) }

func byAppAndIndex(a, b *Object) int { return cmp.Or(cmp.Compare(a.App, b.App), byIndex(a, b)) }

// Newest is the zone after the last commit: all that was published before the call is in it.
func (b *Board) Newest() *Snapshot {
	if s := b.newest.Load(); s.taken == b.published.Load() {
		return s
	}
	b.making.Lock()
	defer b.making.Unlock()
	return b.takeIn()
}

// Publish shows objects that have changed, in the order of their changes, and owns them from then on. An object that is gone needs no
// message: that of its last state is kept. It does nothing about one that was never there.
func (b *Board) Publish(objects []*Object) {
	if len(objects) == 0 {
		return
	}
	b.queue.Lock()
	defer b.queue.Unlock()
	b.waiting = append(b.waiting, objects...)
	b.published.Add(int64(len(objects)))
	if !b.taking {
		b.taking = true
		go b.takeInLater()
	}
}

// takeInLater makes a snapshot for the watchers if no reader has made it before. A reader need not wait until this goroutine runs: it makes
// the snapshot itself.
func (b *Board) takeInLater() {
	b.making.Lock()
	defer b.making.Unlock()
	b.takeIn()
}

// takeIn makes a snapshot of what was published, and returns the newest one. The caller holds making.
func (b *Board) takeIn() *Snapshot {
	b.queue.Lock()
	objects := b.waiting
	b.waiting, b.taking = nil, false
	b.queue.Unlock()
	last := b.newest.Load()
	if len(objects) == 0 {
		return last
	}
	s := last.clone()
	s.taken += int64(len(objects))
	for _, object := range objects {
		s.change(object)
		if object.Gone && object.Index != 0 {
			b.removals = append(b.removals, object)
		}
	}
	for len(b.removals) > mostRemovals {
		forgotten := b.removals[0]
		b.removals = b.removals[1:]
		s.forgetChange(forgotten)
		s.oldest = forgotten.Index
	}
	b.newest.Store(s)
	close(last.next)
	return s
}

// clone is a snapshot that may be changed until it is shown.
func (s *Snapshot) clone() *Snapshot {
	c := *s
	c.next = make(chan struct{})
	c.changed, c.changedByApp, c.appsByAge = s.changed.Clone(), s.changedByApp.Clone(), s.appsByAge.Clone()
	c.containersByApp, c.containersByNode = s.containersByApp.Clone(), s.containersByNode.Clone()
	for kind := range s.byName {
		c.byName[kind], c.states[kind] = s.byName[kind].Clone(), maps.Clone(s.states[kind])
	}
	return &c
}

// change takes in an object that has changed, or is gone.
func (s *Snapshot) change(object *Object) {
	table, states := s.byName[object.Kind], s.states[object.Kind]
	before, was := table.Get(object)
	if object.Gone && !was {
		return
	}
	s.Index++
	object.Index = s.Index
	if was {
		s.forgetChange(before)
		if states[before.State]--; states[before.State] == 0 {
			delete(states, before.State)
		}
	}
	if object.Gone && object.Message == nil {
		object.Message, object.With, object.Facts = before.Message, before.With, before.Facts
	}
	s.changed.ReplaceOrInsert(object)
	if object.App != "" {
		s.changedByApp.ReplaceOrInsert(object)
	}
	switch object.Kind {
	case Apps:
		s.changeApp(before, object)
	case Containers:
		s.changeContainer(before, object)
	}
	if object.Gone {
		table.Delete(object)
		return
	}
	table.ReplaceOrInsert(object)
	states[object.State]++
}

// forgetChange forgets the last change of an object.
func (s *Snapshot) forgetChange(object *Object) {
	s.changed.Delete(object)
	if object.App != "" {
		s.changedByApp.Delete(object)
	}
}

// changeApp keeps the order of the apps by their age. before is nil for a new one.
func (s *Snapshot) changeApp(before, object *Object) {
	if before != nil && (object.Gone || before.Rank != object.Rank) {
		s.appsByAge.Delete(before)
	}
	if !object.Gone {
		s.appsByAge.ReplaceOrInsert(object)
	}
}

// changeContainer keeps the containers of each app and node. before is nil for a new one.
func (s *Snapshot) changeContainer(before, object *Object) {
	if before != nil && object.Gone {
		s.containersByApp.Delete(before)
		s.containersByNode.Delete(before)
	}
	if !object.Gone {
		s.containersByApp.ReplaceOrInsert(object)
		s.containersByNode.ReplaceOrInsert(object)
	}
}

// among calls each for the objects of a kind that a filter may select and whose names follow that of the object after, in the order of
// the names, until it returns false. after is nil to begin with the first.
func (s *Snapshot) among(kind Kind, filter *Filter, after *Object, each func(*Object) bool) {
	from, objects, belongs := Object{}, s.byName[kind], func(*Object) bool { return true }
	switch {
	case kind == Containers && filter.App != "":
		from.App, objects, belongs = filter.App, s.containersByApp, func(o *Object) bool { return o.App == filter.App }
	case kind == Containers && filter.Node != "":
		from.Node, objects, belongs = filter.Node, s.containersByNode, func(o *Object) bool { return o.Node == filter.Node }
	}
	if after != nil {
		from.Name = after.Name
	}
	objects.AscendGreaterOrEqual(&from, func(o *Object) bool {
		if !belongs(o) {
			return false
		}
		return after != nil && o.Name == after.Name || each(o)
	})
}

// End lets watchers read what there is and then ends them with err. Nothing is published after it.
func (b *Board) End(err error) {
	b.making.Lock()
	defer b.making.Unlock()
	last := b.takeIn()
	s := *last
	s.next, s.ended = make(chan struct{}), err
	b.newest.Store(&s)
	close(last.next)
	close(b.over)
}

// Find is the object with a name; nil if there is none.
func (s *Snapshot) Find(kind Kind, name string) *Object {
	object, _ := s.byName[kind].Get(&Object{Name: name})
	return object
}

// Count is how many objects of a kind there are.
func (s *Snapshot) Count(kind Kind) int { return s.byName[kind].Len() }

// All calls each for every object of a kind, in the order of the names, until it returns false.
func (s *Snapshot) All(kind Kind, each func(*Object) bool) { s.byName[kind].Ascend(each) }
