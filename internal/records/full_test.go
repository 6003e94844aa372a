package records_test

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/records"
)

// fullDisk is one on which no file can grow while it is full.
type fullDisk struct{ full bool }

func (d *fullDisk) options() records.Options {
	options := small
	options.Failing = func(step string) error {
		if d.full && (step == "run" || step == "reserve" || step == "make") {
			return unix.ENOSPC
		}
		return nil
	}
	return options
}

// A full disk loses nothing: commits succeed while the journal has space, fail completely after that, and succeed again once there
// is space. The store opens and closes on a full disk.
func TestAFullDiskLosesNothing(t *testing.T) {
	disk, dir := &fullDisk{}, filepath.Join(folder(t), "store")
	s := records.Inline(open(t, dir, disk.options()))
	want := map[string]string{}
	put := func(i int) error {
		key := fmt.Sprint(i)
		err := s.Commit([]records.Change{{Key: key, Value: []byte("value")}})
		if err == nil {
			want[key] = "value"
		}
		return err
	}
	for i := range 10 {
		if err := put(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Room(); err != nil {
		t.Fatal(err)
	}
	disk.full = true
	var err error
	last := 10
	for ; err == nil && last < 1000; last++ {
		err = put(last)
	}
	if last < 14 || !errdefs.IsResourceExhausted(err) || !strings.HasPrefix(err.Error(), "the disk of "+dir+" is full") {
		t.Fatalf("after %d commits: %v", last, err)
	}
	for range 3 {
		if err := put(last); !errdefs.IsResourceExhausted(err) {
			t.Fatalf("and then: %v", err)
		}
		if err := s.Room(); !errdefs.IsResourceExhausted(err) {
			t.Fatalf("there is room: %v", err)
		}
		if got := all(t, s); !maps.Equal(got, want) {
			t.Fatalf("it holds %q, want %q", got, want)
		}
	}
	again := open(t, crashed(t, dir, dir+"-killed"), disk.options())
	if got := all(t, again); !maps.Equal(got, want) {
		t.Fatalf("after a crash on a full disk it holds %q, want %q", got, want)
	}
	shut(t, again)
	large := records.Change{Key: "large", Value: bytes.Repeat([]byte("x"), 5000)}
	if err := s.Commit([]records.Change{large}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("a large commit: %v", err)
	}
	disk.full = false
	if err := s.Room(); err != nil {
		t.Fatal(err)
	}
	if err := put(last); err != nil {
		t.Fatal(err)
	}
	commit(t, s, large)
	want["large"] = string(large.Value)
	commit(t, s, records.Change{Key: "one more", Value: []byte("value")})
	want["one more"] = "value"
	disk.full = true
	for range 2 {
		shut(t, s)
		s = records.Inline(open(t, dir, disk.options()))
		if got := all(t, s); !maps.Equal(got, want) {
			t.Fatalf("opened on a full disk it holds %q, want %q", got, want)
		}
	}
	shut(t, s)
}

// What was refused does not come to life when the store is opened again.
func TestACommitThatFailedLeavesNothing(t *testing.T) {
	dir := filepath.Join(folder(t), "store")
	fail := false
	options := small
	options.Failing = func(step string) error {
		if fail && step == "sync" {
			return unix.ENOSPC
		}
		return nil
	}
	s := open(t, dir, options)
	commit(t, s, records.Change{Key: "a", Value: []byte("1")})
	fail = true
	if err := s.Commit([]records.Change{{Key: "a", Value: []byte("2")}}); !errdefs.IsResourceExhausted(err) {
		t.Fatal(err)
	}
	fail = false
	again := open(t, crashed(t, dir, dir+"-crashed"), small)
	if got := all(t, again)["a"]; got != "1" {
		t.Errorf("it holds %q", got)
	}
	shut(t, again)
	commit(t, s, records.Change{Key: "b", Value: []byte("3")})
	shut(t, s)
	s = open(t, dir, small)
	if got := all(t, s); got["a"] != "1" || got["b"] != "3" {
		t.Errorf("it holds %q", got)
	}
	shut(t, s)
}

// After another failure than a full disk nothing is committed any more.
func TestABrokenDiskEndsTheStore(t *testing.T) {
	dir := filepath.Join(folder(t), "store")
	fail := false
	options := small
	options.Failing = func(step string) error {
		if fail && step == "run" {
			return unix.EIO
		}
		return nil
	}
	s := records.Inline(open(t, dir, options))
	fail = true
	committed := 0
	var err error
	for ; err == nil && committed < 100; committed++ {
		err = s.Commit([]records.Change{{Key: fmt.Sprint(committed), Value: []byte("v")}})
	}
	committed--
	if err == nil || errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "input/output error") {
		t.Fatalf("after %d commits: %v", committed, err)
	}
	fail = false
	if again := s.Commit([]records.Change{{Key: "late"}}); again == nil {
		t.Error("it went on")
	}
	_ = s.Close()
	s = open(t, dir, small)
	if got := len(all(t, s)); got != committed {
		t.Errorf("%d of %d commits are there", got, committed)
	}
	shut(t, s)
}
