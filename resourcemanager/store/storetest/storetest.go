// Package storetest is the conformance suite of stores.
package storetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// Opener opens the same store repeatedly.
type Opener interface {
	Open(options store.Options) (store.Store, error)
}

// retention is the event retention of every store of the suite.
const retention = 5

var start = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// Run runs the suite. newOpener returns an Opener of a new, empty store.
func Run(t *testing.T, newOpener func(t *testing.T) Opener) {
	t.Run("the zone's start is fixed at the first opening and the epoch rises with each", func(t *testing.T) {
		p := newOpener(t)
		for epoch := int64(1); epoch <= 3; epoch++ {
			s := open(t, p, start.Add(time.Duration(epoch-1)*time.Hour))
			identity := s.Identity()
			if !identity.ClusterStart.Equal(start.Truncate(time.Millisecond)) || identity.Epoch != epoch {
				t.Errorf("opening %d: start %v, epoch %d", epoch, identity.ClusterStart, identity.Epoch)
			}
			closeStore(t, s)
		}
	})
	t.Run("a new store is empty", func(t *testing.T) {
		s := open(t, newOpener(t), start)
		defer closeStore(t, s)
		if got := records(t, s, "app"); len(got) != 0 {
			t.Errorf("records: %v", got)
		}
		if got := s.LastEvent(); got != 0 {
			t.Errorf("last event: %d", got)
		}
		if got := events(t, s, 0); got != nil {
			t.Errorf("events: %v", got)
		}
	})
	t.Run("what was committed is there after the store was closed and opened", func(t *testing.T) {
		p := newOpener(t)
		s := open(t, p, start)
		commit(t, s, store.Batch{
			Puts:   []store.Put{{Kind: "app", Key: "b", Value: []byte("2")}, {Kind: "app", Key: "a", Value: []byte("1")}, {Kind: "node", Key: "a", Value: []byte("n")}},
			Events: []store.Event{{Sequence: 1, Value: []byte("one")}},
		})
		closeStore(t, s)
		s = open(t, p, start)
		defer closeStore(t, s)
		if got := records(t, s, "app"); !slices.Equal(got, []string{"a=1", "b=2"}) {
			t.Errorf("records in the order of their keys: %v", got)
		}
		if got := records(t, s, "node"); !slices.Equal(got, []string{"a=n"}) {
			t.Errorf("records of another kind: %v", got)
		}
		if got := events(t, s, 0); !slices.Equal(got, []string{"1=one"}) || s.LastEvent() != 1 {
			t.Errorf("events: %v, last %d", got, s.LastEvent())
		}
	})
	t.Run("the last put of a batch for a key counts and a put without a value deletes", func(t *testing.T) {
		s := open(t, newOpener(t), start)
		defer closeStore(t, s)
		commit(t, s, store.Batch{Puts: []store.Put{
			{Kind: "app", Key: "a", Value: []byte("1")}, {Kind: "app", Key: "a", Value: []byte("2")}, {Kind: "app", Key: "b", Value: []byte("3")},
		}})
		commit(t, s, store.Batch{Puts: []store.Put{{Kind: "app", Key: "b"}, {Kind: "app", Key: "never"}}})
		if got := records(t, s, "app"); !slices.Equal(got, []string{"a=2"}) {
			t.Errorf("records: %v", got)
		}
	})
	t.Run("of two openings only the later one takes anything", func(t *testing.T) {
		p := newOpener(t)
		earlier := open(t, p, start)
		commit(t, earlier, store.Batch{Puts: []store.Put{{Kind: "app", Key: "a", Value: []byte("1")}}})
		later, err := p.Open(store.Options{Now: start, EventRetention: retention})
		if err != nil {
			if !errdefs.IsUnavailable(err) {
				t.Fatalf("a second opening: %v", err)
			}
			closeStore(t, earlier) // it can only be opened once that has ended
			return
		}
		defer closeStore(t, later)
		if err := earlier.Commit(t.Context(), store.Batch{Puts: []store.Put{{Kind: "app", Key: "b", Value: []byte("2")}}}); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("the earlier opening: %v", err)
		}
		commit(t, later, store.Batch{Puts: []store.Put{{Kind: "app", Key: "c", Value: []byte("3")}}})
		if got := records(t, later, "app"); !slices.Equal(got, []string{"a=1", "c=3"}) {
			t.Errorf("records: %v", got)
		}
		closeStore(t, earlier)
	})
	t.Run("only the newest events are kept, and their numbers are never used again", func(t *testing.T) {
		p := newOpener(t)
		s := open(t, p, start)
		for sequence := int64(1); sequence <= 12; sequence++ {
			commit(t, s, store.Batch{Events: []store.Event{{Sequence: sequence, Value: fmt.Append(nil, sequence)}}})
		}
		if got := events(t, s, 0); !slices.Equal(got, []string{"8=8", "9=9", "10=10", "11=11", "12=12"}) {
			t.Errorf("all events: %v", got)
		}
		if got := events(t, s, 10); !slices.Equal(got, []string{"11=11", "12=12"}) {
			t.Errorf("events after 10: %v", got)
		}
		closeStore(t, s)
		s = open(t, p, start)
		defer closeStore(t, s)
		if got := s.LastEvent(); got != 12 {
			t.Errorf("last event after opening again: %d", got)
		}
	})
	t.Run("a batch with more events than are kept leaves the newest", func(t *testing.T) {
		s := open(t, newOpener(t), start)
		defer closeStore(t, s)
		var batch store.Batch
		for sequence := int64(1); sequence <= 20; sequence++ {
			batch.Events = append(batch.Events, store.Event{Sequence: sequence, Value: []byte("x")})
		}
		commit(t, s, batch)
		if got := events(t, s, 0); len(got) != retention || got[0] != "16=x" {
			t.Errorf("events: %v", got)
		}
	})
	t.Run("reading ends when the reader has enough or fails", func(t *testing.T) {
		s := open(t, newOpener(t), start)
		defer closeStore(t, s)
		commit(t, s, store.Batch{
			Puts:   []store.Put{{Kind: "app", Key: "a", Value: []byte("1")}, {Kind: "app", Key: "b", Value: []byte("2")}},
			Events: []store.Event{{Sequence: 1, Value: []byte("x")}, {Sequence: 2, Value: []byte("y")}},
		})
		enough := errors.New("enough")
		calls := 0
		err := s.Load("app", func(string, []byte) error { calls++; return enough })
		if !errors.Is(err, enough) || calls != 1 {
			t.Errorf("load: %v after %d calls", err, calls)
		}
		calls = 0
		if err := s.Events(0, func(int64, []byte) bool { calls++; return false }); err != nil || calls != 1 {
			t.Errorf("events: %v after %d calls", err, calls)
		}
	})
	t.Run("what is read is the reader's to change", func(t *testing.T) {
		s := open(t, newOpener(t), start)
		defer closeStore(t, s)
		value := []byte("1")
		commit(t, s, store.Batch{Puts: []store.Put{{Kind: "app", Key: "a", Value: value}}})
		value[0] = 'x'
		if err := s.Load("app", func(_ string, value []byte) error { value[0] = 'y'; return nil }); err != nil {
			t.Fatal(err)
		}
		if got := records(t, s, "app"); !slices.Equal(got, []string{"a=1"}) {
			t.Errorf("records: %v", got)
		}
	})
	t.Run("any sequence of batches leaves what a map would hold", func(t *testing.T) {
		rapid.Check(t, func(r *rapid.T) {
			p := newOpener(t)
			s, err := p.Open(store.Options{Now: start, EventRetention: retention})
			if err != nil {
				r.Fatal(err)
			}
			model := map[string]string{}
			for range rapid.IntRange(1, 8).Draw(r, "batches") {
				var batch store.Batch
				for range rapid.IntRange(0, 6).Draw(r, "puts") {
					put := store.Put{Kind: "k", Key: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "key")}
					if rapid.Bool().Draw(r, "delete") {
						delete(model, put.Key)
					} else {
						put.Value = []byte(rapid.SampledFrom([]string{"1", "2"}).Draw(r, "value"))
						model[put.Key] = string(put.Value)
					}
					batch.Puts = append(batch.Puts, put)
				}
				if err := s.Commit(t.Context(), batch); err != nil {
					r.Fatal(err)
				}
				if rapid.IntRange(0, 3).Draw(r, "again") == 0 {
					if err := s.Close(); err != nil {
						r.Fatal(err)
					}
					if s, err = p.Open(store.Options{Now: start, EventRetention: retention}); err != nil {
						r.Fatal(err)
					}
				}
			}
			got := map[string]string{}
			if err := s.Load("k", func(key string, value []byte) error { got[key] = string(value); return nil }); err != nil {
				r.Fatal(err)
			}
			if !maps.Equal(got, model) {
				r.Fatalf("the store holds %v, want %v", got, model)
			}
			if err := s.Close(); err != nil {
				r.Fatal(err)
			}
		})
	})
}

func open(t *testing.T, p Opener, now time.Time) store.Store {
	t.Helper()
	s, err := p.Open(store.Options{Now: now, EventRetention: retention})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return s
}

func closeStore(t *testing.T, s store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func commit(t *testing.T, s store.Store, batch store.Batch) {
	t.Helper()
	if err := s.Commit(t.Context(), batch); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

func records(t *testing.T, s store.Store, kind store.Kind) []string {
	t.Helper()
	var all []string
	err := s.Load(kind, func(key string, value []byte) error {
		all = append(all, key+"="+string(value))
		return nil
	})
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return all
}

func events(t *testing.T, s store.Store, after int64) []string {
	t.Helper()
	var all []string
	err := s.Events(after, func(sequence int64, value []byte) bool {
		all = append(all, fmt.Sprintf("%d=%s", sequence, value))
		return true
	})
	if err != nil {
		t.Fatalf("events: %v", err)
	}
	return all
}
