package store

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	bolterrors "go.etcd.io/bbolt/errors"
	"pgregory.net/rapid"
)

// After a crash the store has every batch that was committed, and none in part: whether or not the file has followed the
// journal, and whatever was left of the record that was being written.
func TestACrashLosesNothingThatWasCommitted(t *testing.T) {
	options := Options{Now: time.Now(), EventRetention: 1000}
	rapid.Check(t, func(r *rapid.T) {
		folder, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			r.Fatal(err)
		}
		path := filepath.Join(folder, "zone.db")
		s, err := OpenSmallBolt(path, options)
		if err != nil {
			r.Fatal(err)
		}
		model, events := map[string]string{}, int64(0)
		var before []byte
		var last Batch
		for range rapid.IntRange(1, 12).Draw(r, "batches") {
			s.drainers.Wait()
			before, last = readFile(r, path), drawBatch(r, model, &events)
			if err := s.Commit(last); err != nil {
				r.Fatal(err)
			}
		}
		s.drainers.Wait()
		file, journal := readFile(r, path), readFile(r, path+".journal")
		if s.journal.holds(len(last.encode())) && rapid.Bool().Draw(r, "the file has not followed") {
			file = before
		}
		tear(r, s.journal, journal)
		crashed := filepath.Join(folder, "crashed.db")
		writeFile(r, crashed, file)
		writeFile(r, crashed+".journal", journal)
		checkStore(r, crashed, options, model, events)
		if err := s.Close(); err != nil {
			r.Fatal(err)
		}
		checkStore(r, path, options, model, events)
	})
}

func drawBatch(r *rapid.T, model map[string]string, events *int64) Batch {
	var batch Batch
	for range rapid.IntRange(1, 4).Draw(r, "puts") {
		put := Put{Kind: "k", Key: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(r, "key")}
		if rapid.IntRange(0, 3).Draw(r, "delete") == 0 {
			delete(model, put.Key)
		} else {
			put.Value = make([]byte, rapid.IntRange(0, 60).Draw(r, "length"))
			for i := range put.Value {
				put.Value[i] = byte(rapid.IntRange(0, 255).Draw(r, "byte"))
			}
			model[put.Key] = string(put.Value)
		}
		batch.Puts = append(batch.Puts, put)
	}
	if rapid.Bool().Draw(r, "event") {
		*events++
		batch.Events = append(batch.Events, Event{Sequence: *events, Value: fmt.Append(nil, *events)})
	}
	return batch
}

// tear puts the beginning of one more record where the next one goes.
func tear(r *rapid.T, j *journal, raw []byte) {
	next := *j
	file, err := os.CreateTemp("", "")
	if err != nil {
		r.Fatal(err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	next.file, next.base, next.place = file, 0, 0
	content := Batch{Puts: []Put{{Kind: "k", Key: "torn", Value: []byte("never committed")}}}.encode()
	if j.full(len(content)) {
		return
	}
	if err := next.add(content); err != nil {
		r.Fatal(err)
	}
	torn := readFile(r, file.Name())
	at := raw[j.base+j.place:]
	at[len(torn)-1] = ^torn[len(torn)-1] // what was there before is not by chance what is missing
	copy(at, torn[:rapid.IntRange(0, len(torn)-1).Draw(r, "torn after")])
}

func checkStore(r *rapid.T, path string, options Options, model map[string]string, events int64) {
	s, err := OpenSmallBolt(path, options)
	if err != nil {
		r.Fatal(err)
	}
	got := map[string]string{}
	if err := s.Load("k", func(key string, value []byte) error { got[key] = string(value); return nil }); err != nil {
		r.Fatal(err)
	}
	if !maps.Equal(got, model) {
		r.Fatalf("the store holds %q, want %q", got, model)
	}
	count := int64(0)
	if err := s.Events(0, func(sequence int64, value []byte) bool {
		count++
		return sequence == count && string(value) == fmt.Sprint(count)
	}); err != nil || count != events || s.LastEvent() != events {
		r.Fatalf("%d events, the last one %d, want %d: %v", count, s.LastEvent(), events, err)
	}
	if err := s.Close(); err != nil {
		r.Fatal(err)
	}
}

func readFile(r *rapid.T, path string) []byte {
	raw, err := os.ReadFile(path)
	if err != nil {
		r.Fatal(err)
	}
	return raw
}

func writeFile(r *rapid.T, path string, raw []byte) {
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		r.Fatal(err)
	}
}

// A journal that begins later than the file ends has lost something, which must not go unnoticed.
func TestARecordThatIsMissingIsNotPassedOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zone.db")
	options := Options{Now: time.Now(), EventRetention: 10}
	s, err := OpenSmallBolt(path, options)
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		if err := s.Commit(Batch{Puts: []Put{{Kind: "k", Key: fmt.Sprint(i), Value: []byte("v")}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, old, 0o600); err != nil { // an old copy of the file with a new journal
		t.Fatal(err)
	}
	if s, err := OpenSmallBolt(path, options); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("opened %v with %v", s, err)
	}
}

// When the file cannot follow the journal, a commit says so before what is only in the journal is written over.
func TestAFileThatCannotFollowFailsTheNextCommits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zone.db")
	options := Options{Now: time.Now(), EventRetention: 10}
	s, err := OpenSmallBolt(path, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	committed := 0
	for {
		err := s.Commit(Batch{Puts: []Put{{Kind: "k", Key: fmt.Sprintf("%02d", committed), Value: []byte("v")}}})
		if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			break
		}
		if committed++; err != nil || committed > 40 {
			t.Fatalf("after %d commits: %v", committed, err)
		}
	}
	if err := s.Close(); !errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		t.Errorf("closed with %v", err)
	}
	if s, err = OpenSmallBolt(path, options); err != nil {
		t.Fatal(err)
	}
	kept := 0
	if err := s.Load("k", func(string, []byte) error { kept++; return nil }); err != nil || kept != committed {
		t.Errorf("%d of %d batches are there: %v", kept, committed, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(Batch{Puts: []Put{{Kind: "k", Key: "a", Value: []byte("v")}, {Kind: "k", Key: "b"}}, Events: []Event{{1, []byte("e")}}}.encode()[headSize:])
	f.Fuzz(func(t *testing.T, raw []byte) {
		batch, err := decodeBatch(raw)
		if err != nil {
			return
		}
		again, err := decodeBatch(batch.encode()[headSize:])
		if err != nil || len(again.Puts) != len(batch.Puts) || len(again.Events) != len(batch.Events) {
			t.Errorf("%+v was read back as %+v, %v", batch, again, err)
		}
	})
}

// filled opens a store, commits some batches, which are in the journal and not in the file, and gives where the journal's
// records begin and the file as it was before.
func filled(t *testing.T, path string, batches int) (begins []int64, before []byte) {
	t.Helper()
	s, err := openBolt(path, Options{Now: time.Now(), EventRetention: 10}, tuning{half: 4096, noSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if before, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	for i := range batches {
		begins = append(begins, s.journal.place)
		if err := s.Commit(Batch{Puts: []Put{{Kind: "k", Key: fmt.Sprintf("%02d", i), Value: []byte("value")}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.release(); err != nil { // as a crash does
		t.Fatal(err)
	}
	return begins, before
}

// The end of the journal may be torn, which is no loss; its middle may not.
func TestADamagedRecordIsNotTakenForTheEnd(t *testing.T) {
	const batches = 5
	for damaged := range batches {
		for _, within := range []int64{1, 5, headSize + 1} { // its checksum, its number, its content
			path := filepath.Join(t.TempDir(), "zone.db")
			begins, _ := filled(t, path, batches)
			raw, err := os.ReadFile(path + ".journal")
			if err != nil {
				t.Fatal(err)
			}
			raw[begins[damaged]+within] ^= 0x10
			if err := os.WriteFile(path+".journal", raw, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := OpenSmallBolt(path, Options{Now: time.Now(), EventRetention: 10})
			if damaged < batches-1 {
				if !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), fmt.Sprintf("record %d is damaged", damaged+1)) {
					t.Errorf("with record %d damaged at byte %d: %v", damaged+1, within, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("with the last record damaged: %v", err)
			}
			kept := 0
			if err := s.Load("k", func(string, []byte) error { kept++; return nil }); err != nil || kept != batches-1 {
				t.Errorf("%d of %d batches are there: %v", kept, batches-1, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A zone that begins anew must not take over what an old journal holds: its containers would be numbered like earlier ones.
func TestAJournalWithoutItsFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zone.db")
	filled(t, path, 3)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if s, err := OpenSmallBolt(path, Options{Now: time.Now(), EventRetention: 10}); !errdefs.IsDataLoss(err) {
			t.Fatalf("opened %v with %v", s, err)
		}
	}
	if err := os.Remove(path + ".journal"); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSmallBolt(path, Options{Now: time.Now(), EventRetention: 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAJournalThatWasCutShortIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zone.db")
	filled(t, path, 3)
	if err := os.Truncate(path+".journal", 0); err != nil {
		t.Fatal(err)
	}
	if s, err := OpenSmallBolt(path, Options{Now: time.Now(), EventRetention: 10}); !errdefs.IsDataLoss(err) {
		t.Fatalf("opened %v with %v", s, err)
	}
}

// A store that is older than journals, one whose journal was left out of a copy, and one whose journal is of another size
// go on.
func TestStoresWithAnotherJournalOrNoneGoOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zone.db")
	options := Options{Now: time.Now(), EventRetention: 10}
	for round, half := range []int64{160, 4096, 160, 0, 512} {
		if half == 0 {
			if err := os.Remove(path + ".journal"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		s, err := openBolt(path, options, tuning{half: half, noSync: true})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			if err := s.Commit(Batch{Puts: []Put{{Kind: "k", Key: fmt.Sprint(round, i), Value: []byte("value")}}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s, err := OpenSmallBolt(path, options)
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	if err := s.Load("k", func(string, []byte) error { kept++; return nil }); err != nil || kept != 4*20 {
		t.Errorf("%d of %d records are there: %v", kept, 4*20, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
