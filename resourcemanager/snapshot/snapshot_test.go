package snapshot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"
)

func object(kind Kind, name, state string) *Object {
	return &Object{Kind: kind, Name: name, Facts: Facts{State: state, App: name}, Message: wrapperspb.String(name)}
}

func gone(kind Kind, name string) *Object { return &Object{Kind: kind, Name: name, Gone: true} }

// A list that is read page by page has every object that is there all the while, and none twice, whatever is removed meanwhile.
func TestPagesAreStableOverChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := NewBoard(0)
		states := []string{"RUNNING", "STOPPED", "ACCEPTED"}
		stays := map[string]bool{}
		for i := range rapid.IntRange(0, 60).Draw(t, "objects") {
			o := object(Apps, fmt.Sprintf("app-%d", i), rapid.SampledFrom(states).Draw(t, "state"))
			o.Rank = int64(rapid.IntRange(0, 20).Draw(t, "rank"))
			stays[o.Name] = true
			b.Publish([]*Object{o})
		}
		q := Query{
			Kind: Apps, Size: rapid.IntRange(1, 10).Draw(t, "size"), Order: rapid.SampledFrom([]string{"", "name", "created", "state"}).Draw(t, "order"),
			Descending: rapid.Bool().Draw(t, "descending"),
		}
		seen := map[string]bool{}
		for {
			page, err := b.Newest().List(q)
			if err != nil || len(page.Objects) > q.Size {
				t.Fatalf("%d objects, %v", len(page.Objects), err)
			}
			for _, o := range page.Objects {
				if seen[o.Name] {
					t.Fatalf("%s is listed twice", o.Name)
				}
				seen[o.Name] = true
			}
			if q.Token = page.Next; q.Token == "" {
				break
			}
			name := fmt.Sprintf("app-%d", rapid.IntRange(0, 80).Draw(t, "changed"))
			if stays[name] {
				delete(stays, name)
				b.Publish([]*Object{gone(Apps, name)})
			}
		}
		for name := range stays {
			if !seen[name] {
				t.Fatalf("%s was there all the while, and is not listed", name)
			}
		}
	})
}

func TestListsAreFilteredAndSummedUp(t *testing.T) {
	b := NewBoard(0)
	for i := range 300 {
		b.Publish([]*Object{object(Apps, fmt.Sprintf("app-%d", i), []string{"RUNNING", "STOPPED"}[i%2])})
	}
	page, err := b.Newest().List(Query{Kind: Apps, Sum: true})
	if err != nil || len(page.Objects) != DefaultPage || page.Total != 300 || fmt.Sprint(page.States) != "map[RUNNING:150 STOPPED:150]" {
		t.Errorf("%d objects of %d, %v, %v", len(page.Objects), page.Total, page.States, err)
	}
	page, err = b.Newest().List(Query{Kind: Apps, Filter: Filter{Prefix: "app-29", State: "STOPPED"}, Sum: true})
	var names []string
	for _, o := range page.Objects {
		names = append(names, o.Name)
	}
	if err != nil || strings.Join(names, " ") != "app-29 app-291 app-293 app-295 app-297 app-299" || page.Total != 6 || page.Next != "" {
		t.Errorf("%v of %d, %v", names, page.Total, err)
	}
	for _, q := range []Query{{Size: -1}, {Size: MostOfAPage + 1}, {Order: "size"}, {Token: "nonsense"}, {Token: "bmFtZQ", Order: "name"}} {
		if _, err := b.Newest().List(q); !errdefs.IsInvalidArgument(err) || strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// The containers of an app and of a node are found like any others, and not once they are gone.
func TestContainersAreFoundByAppAndNode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := NewBoard(0)
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			n := rapid.IntRange(0, 200).Draw(t, "n")
			o := &Object{Kind: Containers, Name: fmt.Sprint("c-", n), Facts: Facts{App: fmt.Sprint("app-", n%7), Node: fmt.Sprint("node-", n%5)}, Message: wrapperspb.String("")}
			if rapid.Bool().Draw(t, "gone") {
				o = gone(Containers, o.Name)
			}
			b.Publish([]*Object{o})
		}
		now := b.Newest()
		if now.containersByApp.Len() != now.Count(Containers) || now.containersByNode.Len() != now.Count(Containers) {
			t.Fatalf("%d and %d of %d containers are found", now.containersByApp.Len(), now.containersByNode.Len(), now.Count(Containers))
		}
		filter := Filter{App: rapid.SampledFrom([]string{"", "app-3"}).Draw(t, "app"), Node: rapid.SampledFrom([]string{"", "node-2"}).Draw(t, "node")}
		var want, got []string
		now.All(Containers, func(o *Object) bool {
			if filter.Matches(o) {
				want = append(want, o.Name)
			}
			return true
		})
		q := Query{Kind: Containers, Filter: filter, Size: 3, Sum: true}
		for {
			page, err := now.List(q)
			if err != nil || page.Total != len(want) {
				t.Fatalf("%d in all, want %d, %v", page.Total, len(want), err)
			}
			for _, o := range page.Objects {
				got = append(got, o.Name)
			}
			if q.Token = page.Next; q.Token == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%v are listed, want %v", got, want)
		}
	})
}

// Whoever watches an app and its containers is told what he would be told if he looked at the changes of all.
func TestTheChangesOfAnAppAreFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := NewBoard(0)
		b.Publish([]*Object{object(Nodes, "node-1", "READY")})
		selection := Selection{Kinds: []Kind{Apps, Containers}, Filter: Filter{App: "app-3"}}
		all := Selection{Kinds: selection.Kinds}
		w, every := b.Watch(selection, b.Newest().Index), b.Watch(all, b.Newest().Index)
		for range rapid.IntRange(0, 20).Draw(t, "looks") {
			for range rapid.IntRange(0, 30).Draw(t, "steps") {
				n := rapid.IntRange(0, 30).Draw(t, "n")
				app := fmt.Sprint("app-", n%5)
				o := &Object{Kind: Containers, Name: fmt.Sprint("c-", n), Facts: Facts{App: app}, Message: wrapperspb.String("")}
				if rapid.Bool().Draw(t, "of an app") {
					o.Kind, o.Name, o.Rank = Apps, app, int64(rapid.IntRange(0, 3).Draw(t, "rank"))
				}
				if rapid.Bool().Draw(t, "gone") {
					o = gone(o.Kind, o.Name)
				}
				b.Publish([]*Object{o})
			}
			now := b.Newest()
			var want, got []string
			for _, change := range every.read(now).Changes {
				if change.App == "app-3" {
					want = append(want, fmt.Sprint(change.Index, change.Name, change.Left))
				}
			}
			for _, change := range w.read(now).Changes {
				got = append(got, fmt.Sprint(change.Index, change.Name, change.Left))
			}
			if !slices.Equal(got, want) || w.position != now.Index {
				t.Fatalf("the changes %v are told up to %d, want %v up to %d", got, w.position, want, now.Index)
			}
			if now.appsByAge.Len() != now.Count(Apps) {
				t.Fatalf("%d apps of %d are in the order of their age", now.appsByAge.Len(), now.Count(Apps))
			}
		}
	})
}

// A page ends before it is too large to be sent.
func TestAPageIsBoundedInBytes(t *testing.T) {
	b := NewBoard(0)
	for i := range 10 {
		o := object(Apps, fmt.Sprintf("app-%d", i), "RUNNING")
		o.Message = wrapperspb.String(strings.Repeat("x", bytesOfAPage/3))
		b.Publish([]*Object{o})
	}
	page, err := b.Newest().List(Query{Kind: Apps})
	if err != nil || len(page.Objects) != 2 || page.Next == "" {
		t.Errorf("%d objects, %v", len(page.Objects), err)
	}
	batch, err := b.Watch(Selection{Kinds: []Kind{Apps}}, 0).Next(t.Context())
	if err != nil || len(batch.Changes) != 2 || batch.Current {
		t.Errorf("a batch of %d, %v", len(batch.Changes), err)
	}
}

// mirror is what a watcher knows.
type mirror map[string]int64

func (m mirror) take(batch Batch) {
	if batch.Restarted {
		clear(m)
	}
	for _, change := range batch.Changes {
		if delete(m, change.Name); !change.Left {
			m[change.Name] = change.Index
		}
	}
}

// Whoever watches knows in the end what is there, however rarely he reads, and also after he has come back with an index.
func TestAWatcherKnowsWhatThereIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := NewBoard(7)
		selection := Selection{Kinds: []Kind{Apps, Nodes}, Filter: Filter{State: rapid.SampledFrom([]string{"", "RUNNING"}).Draw(t, "filter")}}
		most := rapid.SampledFrom([]int{30, 3 * mostOfABatch}).Draw(t, "most")
		for i := range most {
			b.Publish([]*Object{object(Apps, fmt.Sprintf("app-%d", i), "RUNNING")})
		}
		w, knows, index := b.Watch(selection, 0), mirror{}, int64(0)
		take := func() {
			batch := w.read(b.Newest())
			knows.take(batch)
			index = batch.Index
		}
		read := func() {
			for w.position < b.Newest().Index || w.rest != nil {
				take()
			}
		}
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			name := fmt.Sprintf("app-%d", rapid.IntRange(0, most).Draw(t, "name"))
			kind := rapid.SampledFrom([]Kind{Apps, Containers}).Draw(t, "kind")
			switch rapid.IntRange(0, 7).Draw(t, "what") {
			case 0:
				b.Publish([]*Object{gone(kind, name)})
			case 3:
				take()
			case 1:
				read()
			case 2:
				w = b.Watch(selection, index)
			default:
				b.Publish([]*Object{object(kind, name, rapid.SampledFrom([]string{"RUNNING", "STOPPED"}).Draw(t, "state"))})
			}
		}
		read()
		want := mirror{}
		b.Newest().All(Apps, func(o *Object) bool {
			if selection.Filter.Matches(o) {
				want[o.Name] = o.Index
			}
			return true
		})
		if !maps.Equal(knows, want) {
			t.Fatalf("the watcher knows %v, want %v", knows, want)
		}
	})
}

// A slow watcher is sent the newest state once, whatever was in between, and nothing is kept for it.
func TestASlowWatcherSkipsStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBoard(0)
		b.Publish([]*Object{object(Apps, "web", "ACCEPTED")})
		w := b.Watch(Selection{Kinds: []Kind{Apps}}, 0)
		if batch, err := w.Next(t.Context()); err != nil || len(batch.Changes) != 1 || !batch.Current {
			t.Fatalf("%+v, %v", batch, err)
		}
		for i := range 100 {
			b.Publish([]*Object{object(Apps, "web", fmt.Sprint(i))})
		}
		if batch, err := w.Next(t.Context()); err != nil || len(batch.Changes) != 1 || batch.Changes[0].State != "99" || batch.Index != 101 {
			t.Errorf("%+v, %v", batch, err)
		}
		// A watcher of one app is sent nothing when another changes.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		other := b.Watch(Selection{Kinds: []Kind{Apps}, Names: []string{"web"}}, b.Newest().Index)
		if batch, err := other.Next(ctx); err != nil || !batch.Current || len(batch.Changes) != 0 {
			t.Errorf("%+v, %v", batch, err)
		}
		b.Publish([]*Object{object(Apps, "other", "RUNNING")})
		if batch, err := other.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("of another app it was told %+v, %v", batch, err)
		}
		// A watcher that pauses between two reads learns of the end at once.
		b.Publish([]*Object{object(Apps, "web", "RUNNING")})
		if _, err := other.Next(t.Context()); err != nil {
			t.Error(err)
		}
		before := time.Now()
		b.Publish([]*Object{object(Apps, "web", "STOPPED")})
		ended := make(chan error)
		go func() {
			_, _ = other.Next(t.Context())
			_, err := other.Next(t.Context())
			ended <- err
		}()
		synctest.Wait()
		b.End(errdefs.ErrUnavailable)
		if err := <-ended; !errdefs.IsUnavailable(err) || time.Since(before) > 0 {
			t.Errorf("at the end, after %s: %v", time.Since(before), err)
		}
	})
}

// What a filter can never select is not sent. What it may have selected before and does not select now is sent as left.
func TestAFilterPassesOver(t *testing.T) {
	b := NewBoard(0)
	w := b.Watch(Selection{Kinds: []Kind{Apps, Nodes}, Filter: Filter{Queue: "batch"}}, 0)
	in := func(name, queue string) *Object {
		o := object(Apps, name, "RUNNING")
		o.Queue = queue
		return o
	}
	b.Publish([]*Object{object(Nodes, "node-1", "READY"), in("web", "batch"), in("shop", "apps")})
	b.Publish([]*Object{object(Nodes, "node-1", "LOST"), in("web", "apps")})
	var seen []string
	for batch := w.read(b.Newest()); len(batch.Changes) > 0; batch = w.read(b.Newest()) {
		for _, change := range batch.Changes {
			seen = append(seen, fmt.Sprint(change.Name, " ", change.Left))
		}
	}
	if got := strings.Join(seen, ", "); got != "shop true, web true" {
		t.Errorf("it is sent %s", got)
	}
}

// Removals are remembered for a while. Whoever comes back later is told to begin again.
func TestAnIndexThatIsTooOldStartsOver(t *testing.T) {
	b := NewBoard(1000)
	b.Publish([]*Object{object(Apps, "web", "RUNNING"), object(Apps, "other", "RUNNING")})
	index := b.Newest().Index
	slow := b.Watch(Selection{Kinds: []Kind{Apps}}, index)
	for i := range mostRemovals + 1 {
		name := fmt.Sprintf("job-%d", i)
		b.Publish([]*Object{object(Containers, name, "RUNNING"), gone(Containers, name)})
	}
	if n, m := b.Newest().changed.Len(), b.Newest().changedByApp.Len(); n != mostRemovals+2 || m != n {
		t.Errorf("%d objects are remembered, %d by their apps", n, m)
	}
	for what, w := range map[string]*Watcher{
		"a reader who fell behind": slow, "an index that is too old": b.Watch(Selection{Kinds: []Kind{Apps}}, index),
		"an index of another zone": b.Watch(Selection{Kinds: []Kind{Apps}}, 1<<50), "no index": b.Watch(Selection{Kinds: []Kind{Apps}}, 0),
	} {
		if batch, err := w.Next(t.Context()); err != nil || !batch.Restarted || len(batch.Changes) != 2 {
			t.Errorf("%s: restarted %v with %d changes, %v", what, batch.Restarted, len(batch.Changes), err)
		}
	}
}

// BenchmarkPublish changes one of 100,000 objects; its name says how many changes a snapshot has.
func BenchmarkPublish(b *testing.B) {
	for _, together := range []int{1, 60} {
		b.Run(fmt.Sprint(together), func(b *testing.B) {
			board := NewBoard(0)
			for i := range 100_000 {
				board.Publish([]*Object{object(Containers, fmt.Sprintf("container-%d", i), "RUNNING")})
			}
			names := make([]string, 1000)
			for i := range names {
				names[i] = fmt.Sprintf("container-%d", i*97)
			}
			var changed []*Object
			for i := 0; b.Loop(); i++ {
				if changed = append(changed, object(Containers, names[i%1000], "RUNNING")); len(changed) == together {
					board.Publish(changed)
					board.Newest()
					changed = nil
				}
			}
		})
	}
}

// BenchmarkList reads a page of 100,000 objects in an order that is not kept.
func BenchmarkList(b *testing.B) {
	board := NewBoard(0)
	for i := range 100_000 {
		board.Publish([]*Object{object(Containers, fmt.Sprintf("container-%d", i), "RUNNING")})
	}
	for b.Loop() {
		_, _ = board.Newest().List(Query{Kind: Containers, Order: "created", Sum: true, Filter: Filter{State: "RUNNING"}})
	}
}
