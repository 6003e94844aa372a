package records

import (
	"bytes"
	"os"
	"time"
)

type fataler interface {
	Helper()
	Fatal(args ...any)
}

// Inline has runs written before a commit returns.
func Inline(s *Store) *Store {
	s.inline = true
	return s
}

// Tear leaves in a copy of the store's files so many bytes of one more frame, where the next one goes. They are fewer if those of an
// earlier generation behind them happen to be the rest of the frame: it would not be torn.
func Tear(t fataler, dir string, s *Store, length int) {
	t.Helper()
	active := s.segments[s.active]
	raw := encodeChanges(make([]byte, frameHead), []Change{{"a", bytes.Repeat([]byte{0xff}, 150)}})
	if !active.fits(len(raw) - frameHead) {
		return
	}
	active.seal(raw, s.number+1, time.Now())
	file, err := os.OpenFile(disk{dir: dir}.path(active.name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	there := make([]byte, len(raw))
	if _, err := file.ReadAt(there, active.at); err != nil {
		t.Fatal(err)
	}
	for length = min(length, len(raw)-1); length > 0 && bytes.Equal(there[length:], raw[length:]); {
		length--
	}
	if _, err := file.WriteAt(raw[:length], active.at); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// Surveyed is the id of the store in a folder.
func Surveyed(t fataler, dir string) ID {
	t.Helper()
	found, err := disk{dir: dir}.survey()
	if err != nil {
		t.Fatal(err)
	}
	if err := found.close(); err != nil {
		t.Fatal(err)
	}
	return found.store
}

// Create makes the files of an empty store.
func Create(t fataler, dir string, options Options) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	options.Now = time.Now()
	found, err := disk{dir: dir, noSync: true}.create(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := found.close(); err != nil {
		t.Fatal(err)
	}
}
