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

// Check reads every byte of the store in a folder that no process has open, and changes nothing. known is the expected
// store; zero if unknown. each is called for every readable record; it may be nil.
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
		return fmt.Errorf("examine the store %s: %w", dir, err)
	}
	found.expect(known)
	if found.fresh {
		err = fmt.Errorf("%s holds no store: %w", dir, errdefs.ErrNotFound)
	} else {
		err = do(d, found)
	}
	return errors.Join(err, found.close())
}

// merged returns the readable records, each as its newest commit left it, and notes over them.
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

// These are the suffixes of a store's folder during a repair, and of the damaged one after it.
const (
	repairedSuffix = ".repaired"
	damagedSuffix  = ".damaged"
)

// Repairing are the options of a repair.
type Repairing struct {
	// Known is the expected store; zero if unknown.
	Known ID
	// Notes are records about the losses.
	Notes []Change
	// NoSync is that of Options.
	NoSync bool
}

// Repair builds a complete store from what can be read of a damaged one, and keeps the damaged files in a folder beside it,
// which it returns. The id of the store stays, and its epochs keep rising.
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

// rewrite writes the readable records as a new store of the same id.
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

// lostOpenings is how many epochs are skipped if the last one is uncertain, so that none is used twice.
const lostOpenings = 1000

// exchange swaps two folders, atomically if the file system can.
func exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	aside := b + ".aside"
	return errors.Join(os.Rename(b, aside), os.Rename(a, b), os.Rename(aside, a))
}
