package records

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Check looks at every byte of the store in a folder that no process has open, and changes nothing. known is the store that is to
// be there; zero if nobody knows. each is given every record that can be read; nil is not.
func Check(dir string, known ID, each func(key string, value []byte)) (*Report, error) {
	var report *Report
	err := examine(dir, known, func(_ disk, found *survey) error {
		report = &found.report
		return found.merged(nil, func(key string, value []byte) error {
			if key >= firstKey && value != nil {
				report.Records++
				if each != nil {
					each(key, value)
				}
			}
			return nil
		})
	})
	return report, err
}

func examine(dir string, known ID, do func(d disk, found *survey) error) error {
	d := disk{dir: dir}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && known != (ID{}) {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	} else if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no store %s: %w", dir, errdefs.ErrNotFound)
	}
	lock, err := d.lock()
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // nothing is written to it
	found, err := d.survey()
	if err != nil {
		return fmt.Errorf("look at the store %s: %w", dir, err)
	}
	found.expect(known)
	if found.fresh {
		err = fmt.Errorf("%s holds no store: %w", dir, errdefs.ErrNotFound)
	} else {
		err = do(d, found)
	}
	return errors.Join(err, found.close())
}

// merged gives what can be read of the records, each as its newest commit left it, and notes over them.
func (s *survey) merged(notes []Change, each func(key string, value []byte) error) error {
	var sources []source
	for _, r := range s.runs {
		sources = append(sources, r.from(""))
	}
	left := table{}
	for _, f := range s.journal {
		changes, err := decodeChanges(f.payload)
		if err != nil {
			return fmt.Errorf("commit %d: %w", f.number, err)
		}
		left.apply(changes)
	}
	left.apply(notes)
	return merge(append(sources, left.between("", "")), each)
}

// suffixes of the folder of a store while it is repaired, and of what it was before.
const (
	repairedSuffix = ".repaired"
	damagedSuffix  = ".damaged"
)

// Repairing is what a repair is done with.
type Repairing struct {
	// Known is the store that is to be there; zero if nobody knows.
	Known ID
	// Notes are records that tell of the loss.
	Notes []Change
	// NoSync is that of Options.
	NoSync bool
}

// Repair makes a whole store of what can be read of a damaged one, and keeps that one's files in a folder beside it, which it gives.
// The store stays the same one: its epochs go on rising.
func Repair(dir string, repairing Repairing) (kept string, err error) {
	now := time.Now()
	kept = fmt.Sprintf("%s%s-%s", dir, damagedSuffix, now.UTC().Format("20060102T150405.000000"))
	err = examine(dir, repairing.Known, func(d disk, found *survey) error {
		repaired := disk{dir: dir + repairedSuffix, noSync: repairing.NoSync}
		if err := errors.Join(os.RemoveAll(repaired.dir), os.Mkdir(repaired.dir, 0o700)); err != nil {
			return err
		}
		if err := found.rewrite(repaired, repairing.Notes, now); err != nil {
			return errors.Join(err, os.RemoveAll(repaired.dir))
		}
		if err := errors.Join(exchange(repaired.dir, dir), os.Rename(repaired.dir, kept)); err != nil {
			return err
		}
		return disk{dir: filepath.Dir(dir), noSync: repairing.NoSync}.syncFolder()
	})
	if isFull(err) {
		return "", (disk{dir: dir}).full(err)
	}
	return kept, err
}

// rewrite writes what can be read as a new store of the same id.
func (s *survey) rewrite(to disk, notes []Change, now time.Time) error {
	m := mark{store: s.store, number: s.report.Commits + 1, epoch: s.mark.epoch, start: s.mark.start}
	if m.start.IsZero() {
		m.start = now
	}
	of := span{first: 1, last: m.number, time: now}
	for _, r := range s.runs {
		m.epoch = max(m.epoch, r.span.epoch)
	}
	written, err := to.writeRun(s.store, of, func(add func(key string, value []byte) error) error {
		return s.merged(notes, func(key string, value []byte) error {
			switch {
			case value == nil:
				return nil
			case key == epochKey && len(value) == 8:
				m.epoch = max(m.epoch, binary.BigEndian.Uint64(value))
			case key == startKey && len(value) == 8:
				m.start = time.UnixMilli(int64(binary.BigEndian.Uint64(value)))
			}
			return add(key, value)
		})
	})
	if err != nil {
		return err
	}
	if s.markFile == nil {
		m.epoch += lostOpenings
	}
	size := int64(defaultSegment)
	for _, segment := range s.segments {
		if segment != nil && segment.size > 0 {
			size = segment.size
		}
	}
	for i, name := range segmentNames {
		if err := to.makeSegment(name, segment{size: size, store: s.store, generation: uint64(i + 3), salt: newSalt()}); err != nil {
			return errors.Join(err, written.file.Close())
		}
	}
	return errors.Join(to.makeMark(m), written.file.Close())
}

// lostOpenings are skipped where the last one is not known for certain, so that no epoch comes twice.
const lostOpenings = 1000

// exchange swaps two folders; where the file system cannot do it at once, one after the other.
func exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	aside := b + ".aside"
	return errors.Join(os.Rename(b, aside), os.Rename(a, b), os.Rename(aside, a))
}
