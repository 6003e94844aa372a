package records_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/records"
)

// small is a store whose journal turns after a few commits, and is too small for some.
var small = records.Options{Now: time.UnixMilli(1_700_000_000_123), Segment: 1400, NoSync: true}

type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func open(t fataler, dir string, options records.Options) *records.Store {
	t.Helper()
	s, err := records.Open(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func shut(t fataler, s *records.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func commit(t fataler, s *records.Store, changes ...records.Change) {
	t.Helper()
	if err := s.Commit(changes); err != nil {
		t.Fatal(err)
	}
}

func all(t fataler, s *records.Store) map[string]string {
	t.Helper()
	got, before := map[string]string{}, ""
	err := s.Scan("", "", func(key string, value []byte) error {
		if key <= before {
			return fmt.Errorf("%q came after %q", key, before)
		}
		got[key], before = string(value), key
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// folder is a temporary one, in memory where there is a file system for that: these tests are about what is in files, and make
// thousands.
func folder(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "records")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// crashed copies a store's files as they are, like after a kill of the process.
func crashed(t fataler, dir, to string) string {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// After a crash the store has every commit, none in part, whatever of the one that was being written is on the disk.
func TestACrashLosesNothingThatWasCommitted(t *testing.T) {
	parent := folder(t)
	rapid.Check(t, func(r *rapid.T) {
		dirs, err := os.MkdirTemp(parent, "")
		if err != nil {
			r.Fatal(err)
		}
		dir := filepath.Join(dirs, "store")
		model, next := map[string]string{}, map[string]string{}
		crashes := 0
		crash := func(torn int, s *records.Store) {
			crashes++
			copied := crashed(r, dir, filepath.Join(dirs, fmt.Sprint("crash", crashes)))
			if s != nil {
				records.Tear(r, copied, s, torn)
			}
			again := open(r, copied, small)
			if got := all(r, again); !maps.Equal(got, model) && !maps.Equal(got, next) {
				r.Fatalf("after a crash it holds %q, want %q or %q", got, model, next)
			}
			shut(r, again)
		}
		watching := false
		options := small
		options.Failing = func(string) error {
			if watching {
				crash(0, nil)
			}
			return nil
		}
		s := records.Inline(open(r, dir, options))
		for range rapid.IntRange(1, 30).Draw(r, "commits") {
			var changes []records.Change
			for range rapid.IntRange(1, 4).Draw(r, "changes") {
				change := records.Change{Key: rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(r, "key")}
				if rapid.IntRange(0, 3).Draw(r, "delete") == 0 {
					delete(next, change.Key)
				} else {
					change.Value = rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(r, "value")
					if rapid.IntRange(0, 20).Draw(r, "large") == 0 {
						change.Value = make([]byte, 2000)
					}
					next[change.Key] = string(change.Value)
				}
				changes = append(changes, change)
			}
			watching = rapid.IntRange(0, 3).Draw(r, "crash on the way") == 0
			commit(r, s, changes...)
			watching = false
			model = maps.Clone(next)
			if rapid.IntRange(0, 3).Draw(r, "crash") == 0 {
				crash(rapid.IntRange(0, 200).Draw(r, "torn after"), s)
			}
		}
		shut(r, s)
		s = open(r, dir, small)
		if got := all(r, s); !maps.Equal(got, model) {
			r.Fatalf("it holds %q, want %q", got, model)
		}
		shut(r, s)
	})
}

// sample makes a store that has runs, and commits in both segments of its journal, as a process that is killed leaves it, and gives
// what was committed to it.
func sample(t *testing.T) (dir string, want map[string]string) {
	t.Helper()
	dirs := folder(t)
	dir = filepath.Join(dirs, "live")
	options := small
	full := false
	options.Failing = func(step string) error {
		if full && step == "run" {
			return unix.ENOSPC // so that the journal keeps what it has
		}
		return nil
	}
	s := records.Inline(open(t, dir, options))
	want = map[string]string{}
	for i := range 70 {
		full = i >= 66
		key := fmt.Sprintf("key-%02d", i%25)
		want[key] = fmt.Sprintf("value %d", i)
		changes := []records.Change{{Key: key, Value: []byte(want[key])}}
		if i%7 == 6 {
			key = fmt.Sprintf("key-%02d", (i-3)%25)
			delete(want, key)
			changes = append(changes, records.Change{Key: key})
		}
		commit(t, s, changes...)
	}
	killed := crashed(t, dir, filepath.Join(dirs, "killed"))
	full = false
	shut(t, s)
	return killed, want
}

// everyByte is 1 for a run by hand that tries each.
var everyByte = flag.Int("every-byte", 7, "which bytes are flipped, each alone")

// damages returns every damage that is tried, by name.
func damages(t *testing.T, dir string) map[string]func(dir string) error {
	t.Helper()
	all := map[string]func(string) error{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	change := func(name, what string, do func(raw []byte) []byte) {
		all[name+": "+what] = func(dir string) error {
			raw, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			return write(filepath.Join(dir, name), do(raw))
		}
	}
	for _, entry := range entries {
		name := entry.Name()
		if name == "lock" || name == "spare" {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name+": gone"] = func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
		for at := 0; at < len(raw); at += *everyByte {
			change(name, fmt.Sprintf("byte %d flipped", at), func(raw []byte) []byte { raw[at] ^= 1 << (at % 8); return raw })
		}
		for at := 0; at < len(raw); at += 128 {
			for _, length := range []int{128, 512, 4096} {
				change(name, fmt.Sprintf("%d bytes zeroed at %d", length, at), func(raw []byte) []byte {
					clear(raw[at:min(len(raw), at+length)])
					return raw
				})
			}
			change(name, fmt.Sprintf("cut to %d bytes", at), func(raw []byte) []byte { return raw[:at] })
		}
		change(name, "longer by a byte", func(raw []byte) []byte { return append(raw, 0) })
	}
	return all
}

// write gives a file a content without emptying it, which file systems wait for the disk over.
func write(name string, raw []byte) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(raw, 0)
	return errors.Join(err, file.Truncate(int64(len(raw))), file.Close())
}

// Whatever byte, sector or file of a store is damaged or gone: either it is refused in one sentence that says what to do, or nothing
// is missing. A repair says that something is lost whenever something is.
func TestDamageIsNeverTakenForAnEnd(t *testing.T) {
	dir, want := sample(t)
	tried, refused, lossy := 0, 0, 0
	for what, damage := range damages(t, dir) {
		tried++
		name, _, _ := strings.Cut(what, ":")
		before, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := damage(dir); err != nil {
			t.Fatal(what, err)
		}
		report, err := records.Check(dir, records.ID{}, nil)
		if err != nil {
			t.Fatal(what, err)
		}
		if report.Damaged() {
			refused++
		}
		if report.Lossy() {
			lossy++
		}
		if !report.Damaged() || refused%16 == 0 {
			copied := crashed(t, dir, filepath.Join(folder(t), "store"))
			checkDamaged(t, copied, what, report, want)
		}
		if err := write(filepath.Join(dir, name), before); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d damages: %d refused, %d of them with a loss", tried, refused, lossy)
	if refused < tried*2/3 || lossy < tried/10 || lossy > refused*9/10 {
		t.Errorf("of %d damages %d were refused, %d of them with a loss", tried, refused, lossy)
	}
}

func checkDamaged(t *testing.T, dir, what string, report *records.Report, want map[string]string) {
	s, err := records.Open(dir, small)
	if err == nil {
		if got := all(t, s); report.Damaged() || !maps.Equal(got, want) {
			t.Errorf("%s: it holds %q, want %q, and was checked as %+v", what, got, want, report)
		}
		shut(t, s)
		return
	}
	var damaged *records.DamagedError
	if !errors.As(err, &damaged) || !errdefs.IsDataLoss(err) || strings.Count(err.Error(), "\n") > 0 || !strings.Contains(err.Error(), "mammoth store check") {
		t.Errorf("%s: %v", what, err)
	}
	kept, err := records.Repair(dir, records.Repairing{NoSync: true, Notes: []records.Change{{Key: "note", Value: []byte("lost")}}})
	if err != nil {
		t.Errorf("%s: repair: %v", what, err)
		return
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("%s: what was there is not kept: %v", what, err)
	}
	if s, err = records.Open(dir, small); err != nil {
		t.Errorf("%s: after the repair: %v", what, err)
		return
	}
	got := all(t, s)
	if got["note"] != "lost" {
		t.Errorf("%s: the note is missing", what)
	}
	delete(got, "note")
	if !report.Lossy() && !maps.Equal(got, want) {
		t.Errorf("%s: nothing is said to be lost, but it holds %q, want %q", what, got, want)
	}
	if identity := s.Identity(); identity.Epoch < 2 || !identity.Start.Equal(small.Now) {
		t.Errorf("%s: it is %+v", what, identity)
	}
	shut(t, s)
}

// Two files that are damaged together are noticed as well: a run that is gone with the journal that came after it, the mark with the
// newest frame.
func TestFilesThatAreGoneTogetherAreMissed(t *testing.T) {
	dir, _ := sample(t)
	names, err := filepath.Glob(filepath.Join(dir, "[jm0]*")) // the journal, the mark, runs
	if err != nil {
		t.Fatal(err)
	}
	for subset := 1; subset < 1<<len(names); subset++ {
		if gone := bits.OnesCount(uint(subset)); gone > 2 && gone < len(names)-1 {
			continue
		}
		copied := crashed(t, dir, filepath.Join(folder(t), "store"))
		gone := 0
		for i, name := range names {
			if subset>>i&1 == 0 {
				continue
			}
			gone++
			if err := os.Remove(filepath.Join(copied, filepath.Base(name))); err != nil {
				t.Fatal(err)
			}
		}
		options := small
		if gone == len(names) { // only who knows that there was a store can miss it
			options.Known = records.Surveyed(t, dir)
		}
		if _, err := records.Open(copied, options); !errdefs.IsDataLoss(err) {
			t.Errorf("%d files gone (%b): %v", gone, subset, err)
		}
	}
}

// An older copy of a run, a segment or the mark does not pass for the present one.
func TestAnOlderFileIsNoticed(t *testing.T) {
	dirs := folder(t)
	dir := filepath.Join(dirs, "store")
	s := records.Inline(open(t, dir, small))
	fill := func(n int) {
		for i := range n {
			commit(t, s, records.Change{Key: fmt.Sprint(i), Value: fmt.Append(nil, n, i)})
		}
	}
	fill(12)
	older := crashed(t, dir, filepath.Join(dirs, "older"))
	fill(40)
	for _, name := range []string{"journal-0", "journal-1"} {
		mixed := crashed(t, dir, filepath.Join(dirs, "mixed-"+name))
		raw, err := os.ReadFile(filepath.Join(older, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(mixed, name), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		again, err := records.Open(mixed, small)
		if err == nil {
			if got, want := all(t, again), all(t, s); !maps.Equal(got, want) {
				t.Errorf("with an older %s it holds %q, want %q", name, got, want)
			}
			shut(t, again)
		} else if !errdefs.IsDataLoss(err) {
			t.Errorf("with an older %s: %v", name, err)
		}
	}
	want := all(t, s)
	shut(t, s)
	if s = open(t, dir, small); !maps.Equal(all(t, s), want) {
		t.Error("closing lost something")
	}
	shut(t, s)
}

func TestTheStartIsKeptAndTheEpochRises(t *testing.T) {
	dir := filepath.Join(folder(t), "store")
	var first records.Identity
	for epoch := int64(1); epoch <= 4; epoch++ {
		options := small
		options.Now = small.Now.Add(time.Duration(epoch) * time.Hour)
		options.Known = first.ID
		s := open(t, dir, options)
		got := s.Identity()
		if epoch == 1 {
			first = got
		}
		if got.ID != first.ID || !got.Start.Equal(first.Start) || got.Epoch != epoch || got.LastCommit.IsZero() != (epoch == 1) {
			t.Errorf("opening %d: %+v", epoch, got)
		}
		if epoch%2 == 0 {
			commit(t, s, records.Change{Key: "a", Value: []byte("b")})
		}
		shut(t, s)
	}
	options := small
	options.Known = records.ID{1}
	if _, err := records.Open(dir, options); !errdefs.IsDataLoss(err) {
		t.Errorf("another store was opened: %v", err)
	}
}

func TestAStoreThatIsOpenIsRefusedInASentence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(folder(t), "store")
		s := open(t, dir, small)
		if _, err := records.Open(dir, small); !errdefs.IsUnavailable(err) {
			t.Errorf("the second opening: %v", err)
		}
		if _, err := records.Check(dir, records.ID{}, nil); !errdefs.IsUnavailable(err) {
			t.Errorf("a check: %v", err)
		}
		shut(t, s)
		if report, err := records.Check(dir, records.ID{}, nil); err != nil || report.Damaged() || report.Lossy() {
			t.Errorf("checked as %+v, %v", report, err)
		}
	})
}

// A creation that was cut short is begun anew: nothing was committed yet.
func TestAStoreThatWasNeverFinishedIsMadeAnew(t *testing.T) {
	for _, missing := range [][]string{{"mark"}, {"mark", "journal-1"}, {"mark", "journal-0", "journal-1"}} {
		dir := filepath.Join(folder(t), "store")
		records.Create(t, dir, small)
		for _, name := range missing {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		s := open(t, dir, small)
		if got := all(t, s); len(got) > 0 || s.Identity().Epoch != 1 {
			t.Errorf("it holds %q and is %+v", got, s.Identity())
		}
		shut(t, s)
	}
}
