package snapshot

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Selection is what a watcher wants to be sent.
type Selection struct {
	// Kinds are the kinds of the objects; empty is none. Names are the names of the objects; empty is all.
	Kinds  []Kind
	Names  []string
	Filter Filter
}

// matches reports whether the watcher is shown an object as it is now, and whether the watcher may know it: it may have been shown it before.
func (s *Selection) matches(o *Object) (shown, known bool) {
	if !slices.Contains(s.Kinds, o.Kind) || len(s.Names) > 0 && !slices.Contains(s.Names, o.Name) || !s.Filter.lasting(o) {
		return false, false
	}
	return !o.Gone && s.Filter.Matches(o), true
}

// among calls each for the objects of a kind that may be selected and whose names follow that of the object after, in the
// order of the names, until it returns false.
func (s *Selection) among(now *Snapshot, kind Kind, after *Object, each func(*Object) bool) {
	if len(s.Names) == 0 {
		now.among(kind, &s.Filter, after, each)
		return
	}
	for _, name := range slices.SortedFunc(slices.Values(s.Names), id.CompareNames) {
		if o := now.Find(kind, name); o != nil && (after == nil || byName(o, after) > 0) && !each(o) {
			return
		}
	}
}

// unchanged reports that none of the objects that are selected by their names has changed since an index. It is false if only a walk
// through all changes would tell.
func (s *Selection) unchanged(now *Snapshot, since int64) bool {
	if len(s.Names) == 0 || len(s.Names) > fewNames {
		return false
	}
	for _, kind := range s.Kinds {
		for _, name := range s.Names {
			if o := now.Find(kind, name); o == nil || o.Index > since {
				return false
			}
		}
	}
	return true
}

// fewNames is how many names are looked up one by one rather than found among all changes.
const fewNames = 8

// Change is an object that has changed. Left says that the selection does not have it: the object is gone, does not match any more, or has
// never matched, so that the watcher need not know it.
type Change struct {
	*Object
	Left bool
}

// Batch is what a watcher is sent at once.
type Batch struct {
	Changes []Change
	// Index is the watcher's position after the changes; zero as long as the watcher was not sent all that there was at its beginning.
	Index int64
	// Current says that the watcher has now seen all that there is; otherwise more follows.
	Current bool
	// Restarted says that this begins with what there is: the watcher drops what it was sent before.
	Restarted bool
}

const (
	// mostOfABatch is how many changes a batch has, and mostCompared how many changed objects are compared with the selection for one.
	mostOfABatch = 256
	mostCompared = 10_000
	// pause is about the least time between two reads of one watcher: what changes twice meanwhile is sent once.
	pause = 20 * time.Millisecond
)

// Watcher is somebody's position in the changes of a zone. It keeps nothing else, so that one who reads slowly costs nothing, and skips
// states. One goroutine uses it.
type Watcher struct {
	board     *Board
	selection Selection
	// position is the index up to which the watcher was sent all changes, except those of the objects in rest.
	position int64
	// rest is the part of the objects that the watcher begins with which is still to be sent; nil is nothing.
	rest               *rest
	restarted, current bool
	readAt             time.Time
}

// rest is all objects of some kinds; of the first kind, those that follow the object after.
type rest struct {
	kinds []Kind
	after *Object
}

// Watch begins after an index that a watcher was sent earlier. It begins with all that there is if after is zero, if removals since that
// index are forgotten, or if the index is of another board; the first batch says so.
func (b *Board) Watch(selection Selection, after int64) *Watcher {
	w := &Watcher{board: b, selection: selection, position: after}
	if s := b.Newest(); after < s.oldest || after > s.Index {
		w.restart(s)
	}
	return w
}

func (w *Watcher) restart(s *Snapshot) {
	w.position, w.rest, w.restarted, w.current = s.Index, &rest{kinds: w.selection.Kinds}, true, false
}

// Next waits for changes and returns them in their order, each object in its newest state. It fails with what the board was ended with,
// or with ctx's cause.
func (w *Watcher) Next(ctx context.Context) (Batch, error) {
	for {
		if ctx.Err() != nil {
			return Batch{}, context.Cause(ctx)
		}
		s := w.board.Newest()
		if batch := w.read(s); len(batch.Changes) > 0 || batch.Restarted || batch.Current {
			return batch, nil
		}
		if w.position < s.Index {
			continue
		}
		if s.ended != nil {
			return Batch{}, s.ended
		}
		if err := w.wait(ctx, s); err != nil {
			return Batch{}, err
		}
	}
}

// read takes what a snapshot has and the watcher was not sent.
func (w *Watcher) read(s *Snapshot) Batch {
	w.readAt = time.Now()
	if w.position < s.oldest {
		w.restart(s)
	}
	batch := &filling{Batch: Batch{Restarted: w.restarted}}
	w.restarted = false
	if w.rest != nil && !w.readRest(s, batch) {
		return batch.Batch // there is no index yet after which another watcher could begin
	}
	if w.current && w.selection.unchanged(s, w.position) {
		w.position = s.Index
	}
	all := w.readChanges(s, batch)
	batch.Index = w.position
	batch.Current = all && (len(batch.Changes) > 0 || !w.current)
	w.current = w.current || all
	return batch.Batch
}

// readRest takes what the watcher begins with, and reports whether that was all.
func (w *Watcher) readRest(s *Snapshot, batch *filling) bool {
	for len(w.rest.kinds) > 0 {
		full := false
		w.selection.among(s, w.rest.kinds[0], w.rest.after, func(o *Object) bool {
			if shown, _ := w.selection.matches(o); shown {
				if full = !batch.add(Change{Object: o}); full {
					return false
				}
			}
			w.rest.after = o
			return true
		})
		if full {
			return false
		}
		w.rest = &rest{kinds: w.rest.kinds[1:]}
	}
	w.rest = nil
	return true
}

// readChanges takes what has changed since the watcher's position, and reports whether that was all.
func (w *Watcher) readChanges(s *Snapshot, batch *filling) bool {
	compared, all := 0, true
	changes, from := s.changed, &Object{Index: w.position + 1}
	app := w.selection.Filter.App
	if app != "" {
		changes, from.App = s.changedByApp, app
	}
	changes.AscendGreaterOrEqual(from, func(o *Object) bool {
		if app != "" && o.App != app {
			return false
		}
		shown, known := w.selection.matches(o)
		if compared++; compared > mostCompared || known && !batch.add(Change{Object: o, Left: !shown}) {
			all = false
			return false
		}
		w.position = o.Index
		return true
	})
	if all {
		w.position = max(w.position, s.Index)
	}
	return all
}

// filling is a batch that is being filled.
type filling struct {
	Batch
	bytes int
}

// add adds a change, unless the batch is full.
func (f *filling) add(change Change) bool {
	f.bytes += change.Bytes()
	if len(f.Changes) == mostOfABatch || f.bytes > bytesOfAPage && len(f.Changes) > 0 {
		return false
	}
	f.Changes = append(f.Changes, change)
	return true
}

// wait waits until there is a newer snapshot, and for the pause since the last read. The pause is a little shorter or longer each time, so
// that many watchers do not all read at the same instant and keep others from the processor.
func (w *Watcher) wait(ctx context.Context, s *Snapshot) error {
	if left := pause/2 + rand.N(pause) - time.Since(w.readAt); left > 0 {
		timer := time.NewTimer(left)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-w.board.over:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	select {
	case <-s.next:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
