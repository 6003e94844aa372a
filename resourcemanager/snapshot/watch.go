package snapshot

import (
	"context"
	"slices"
	"time"
)

// Selection is what a watcher wants to be sent.
type Selection struct {
	// Kinds are those of the objects; empty is none. Names are theirs; empty is all.
	Kinds  []Kind
	Names  []string
	Filter Filter
}

func (s *Selection) matches(o *Object) (shown, known bool) {
	if !slices.Contains(s.Kinds, o.Kind) || len(s.Names) > 0 && !slices.Contains(s.Names, o.Name) || !s.Filter.lasting(o) {
		return false, false
	}
	return !o.Gone && s.Filter.Matches(o), true
}

// unchanged reports that none of the objects that are selected by their names has changed since an index. If it finds out only by looking
// at all changes, it says no.
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

// fewNames is how many names are looked up rather than looked for among all changes.
const fewNames = 8

// Change is an object that has changed. Left says that it is gone, or that the selection has it no longer.
type Change struct {
	*Object
	Left bool
}

// Batch is what a watcher is sent at once.
type Batch struct {
	Changes []Change
	// Index is the watcher's position after the changes.
	Index int64
	// Current says that the watcher has now seen all that there is; otherwise more follows.
	Current bool
	// Restarted says that the watcher begins with what there is: what it has of earlier is to be dropped.
	Restarted bool
}

const (
	// mostOfABatch is how many changes a batch has, and mostLookedAt how many objects are looked at for one.
	mostOfABatch = 256
	mostLookedAt = 10_000
	// pause is the least time between two looks of one watcher while there are changes: what changes twice meanwhile is sent once.
	pause = 20 * time.Millisecond
)

// Watcher is somebody's position in the changes of a zone. It keeps nothing else, so that one who reads slowly costs nothing, and skips
// states. One goroutine uses it.
type Watcher struct {
	board     *Board
	selection Selection
	position  int64
	// all is the newest change that there was when the watcher began: of what was removed before, it has nothing.
	all       int64
	restarted bool
	current   bool
	looked    time.Time
}

// Watch begins after an index that a watcher was sent earlier, or with all that there is. That is also so if removals since that index
// are forgotten, or if it is of another life of the zone; the first batch says so.
func (b *Board) Watch(selection Selection, after int64) *Watcher {
	w := &Watcher{board: b, selection: selection, position: after, all: after}
	if s := b.Newest(); after < s.oldest || after > s.Index {
		w.restart(s)
	}
	return w
}

func (w *Watcher) restart(s *Snapshot) {
	w.position, w.all, w.restarted, w.current = 0, s.Index, true, false
}

// Next waits for changes and returns them in their order, each object in its newest state. It fails with what the board was ended with,
// or with ctx's cause.
func (w *Watcher) Next(ctx context.Context) (Batch, error) {
	for {
		if ctx.Err() != nil {
			return Batch{}, context.Cause(ctx)
		}
		s := w.board.Newest()
		if batch := w.look(s); len(batch.Changes) > 0 || batch.Restarted || batch.Current {
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

// look takes what has changed since the watcher's position.
func (w *Watcher) look(s *Snapshot) Batch {
	w.looked = time.Now()
	if w.position < s.oldest && w.all < s.oldest {
		w.restart(s)
	}
	batch := Batch{Restarted: w.restarted}
	w.restarted = false
	if w.current && w.selection.unchanged(s, w.position) {
		w.position = s.Index
		return Batch{Index: w.position}
	}
	looked, bytes := 0, 0
	for o := range s.changed.after(&Object{Index: w.position}) {
		if looked++; looked > mostLookedAt || len(batch.Changes) == mostOfABatch {
			batch.Index = w.position
			return batch
		}
		shown, known := w.selection.matches(o)
		if left := !shown && known && o.Index > w.all; shown || left {
			if bytes += o.Bytes(); bytes > bytesOfAPage && len(batch.Changes) > 0 {
				batch.Index = w.position
				return batch
			}
			batch.Changes = append(batch.Changes, Change{Object: o, Left: left})
		}
		w.position = o.Index
	}
	w.position = max(w.position, s.Index)
	batch.Index = w.position
	batch.Current = len(batch.Changes) > 0 || !w.current
	w.current = true
	return batch
}

// wait waits until there is a newer snapshot, and at least the pause since the last look.
func (w *Watcher) wait(ctx context.Context, s *Snapshot) error {
	select {
	case <-s.next:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	left := pause - time.Since(w.looked)
	if left <= 0 {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
