// Package records stores records by key in a folder, so that what was committed survives any crash, and damaged or missing
// bytes are detected.
//
// A commit is one frame in the journal and one sync. When half of the journal is full, its content is written as a run, a
// file that never changes. Every byte is covered by a checksum; commits are numbered without gaps.
//
// A Store owns its folder, under a lock, and a goroutine that writes runs. What the values mean is known to its callers.
package records

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Change is a record to write or, without a value, to delete. Keys that begin with a zero byte are the store's own.
type Change struct {
	Key   string
	Value []byte
}

// Options are the options of a store.
type Options struct {
	// Now becomes the start if the store is new.
	Now time.Time
	// Segment is the size of each half of the journal of a new store. Default 4 MiB.
	Segment int64
	// Known is the expected store; zero if the store may be new.
	Known ID
	// Expired reports whether the record of a key is not needed any more: it is not read again, and dropped at some time. It
	// may be called by any goroutine. Default: none is.
	Expired func(key string) bool
	// NoSync leaves syncing to the operating system; for tests.
	NoSync bool
	// Failing is called before each step that may fail; for tests.
	Failing func(step string) error
}

// ID is different for every store.
type ID [16]byte

// String is a store's id as it is written down elsewhere.
func (i ID) String() string { return fmt.Sprintf("%x", i[:]) }

// ParseID reads what String writes.
func ParseID(text string) (id ID, ok bool) {
	raw, err := hex.DecodeString(text)
	return ID(append(raw, make([]byte, len(id))...)[:len(id)]), err == nil && len(raw) == len(id)
}

// Identity does not change while a store is open.
type Identity struct {
	ID ID
	// Start is when the store was opened for the first time, to the millisecond.
	Start time.Time
	// Epoch is how often it was opened, this time included.
	Epoch int64
	// LastCommit is the time of the last commit before this opening; zero if there was none.
	LastCommit time.Time
}

const (
	defaultSegment = 4 << 20
	// lockWait is how long Open waits for another process to unlock the folder: long enough for one that is ending.
	lockWait = 2 * time.Second
	lockLook = 20 * time.Millisecond
	lockName = "lock"

	startKey = "\x00start"
	epochKey = "\x00epoch"
	// firstKey is above every key of the store's own.
	firstKey = "\x01"
)

// Store is an open store.
type Store struct {
	disk     disk
	options  Options
	identity Identity
	lock     *os.File
	markFile *os.File

	// committing is held during a commit. It guards the journal and number, which is that of the newest commit.
	committing sync.Mutex
	segments   [2]*segment
	active     int
	number     uint64
	time       time.Time
	// opened is true once this opening is committed.
	opened bool

	// drainers write the segment that is not active to a run. draining is held by the one that writes, and guards spare, the
	// size of the reserved space.
	drainers sync.WaitGroup
	draining sync.Mutex
	spare    int64
	// inline writes runs before a commit returns; for tests.
	inline bool

	mu sync.RWMutex
	// runs are in the order of their commits. drainTable is the content of the segment that is being written to a run, up to
	// the commits in drainSpan; activeTable is that of the active one.
	runs        []*run
	drainTable  table
	drainSpan   span
	activeTable table
	failed      error
}

// Open opens the store in a folder, or creates it. It fails with a DamagedError if a part of it is missing, and with
// errdefs.ErrUnavailable while another process has it open.
func Open(dir string, options Options) (*Store, error) {
	if options.Segment == 0 {
		options.Segment = defaultSegment
	}
	if options.Expired == nil {
		options.Expired = func(string) bool { return false }
	}
	s := &Store{disk: disk{dir: dir, noSync: options.NoSync, failpoint: options.Failing}, options: options, activeTable: table{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, s.openError(err)
	}
	var err error
	if s.lock, err = s.disk.lock(); err != nil {
		return nil, s.openError(err)
	}
	found, err := s.disk.survey()
	if err == nil {
		found.expect(options.Known)
	}
	if err == nil && found.fresh {
		if err = found.close(); err == nil {
			found, err = s.disk.create(options)
		}
	}
	if err == nil && found.report.Damaged() {
		err = errors.Join(&DamagedError{&found.report}, found.close())
	}
	if err != nil {
		return nil, s.openError(errors.Join(err, s.lock.Close()))
	}
	if err := s.take(found); err != nil {
		return nil, s.openError(errors.Join(err, s.release()))
	}
	return s, nil
}

// openError adds the folder to an error.
func (s *Store) openError(err error) error {
	var damaged *DamagedError
	switch {
	case errors.As(err, &damaged):
		return damaged
	case errdefs.IsUnavailable(err) || errdefs.IsResourceExhausted(err):
		return err
	case isFull(err):
		return s.disk.full(err)
	}
	return fmt.Errorf("open the store %s: %w", s.disk.dir, err)
}

// lock locks the folder for this process.
func (d disk) lock() (*os.File, error) {
	file, err := os.OpenFile(d.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for waited := time.Duration(0); ; waited += lockLook {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return file, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, errors.Join(err, file.Close())
		case waited >= lockWait:
			err := fmt.Errorf("another process has the store %s open; stop it first: %w", d.dir, errdefs.ErrUnavailable)
			return nil, errors.Join(err, file.Close())
		}
		time.Sleep(lockLook)
	}
}

// create creates an empty store. The mark is written last: without it there is no store.
func (d disk) create(options Options) (*survey, error) {
	var store ID
	_, _ = rand.Read(store[:]) // it cannot fail
	for i, name := range segmentNames {
		if err := d.makeSegment(name, segment{size: options.Segment, store: store, generation: uint64(i + 1), salt: newSalt()}); err != nil {
			return nil, err
		}
	}
	if err := d.makeMark(mark{store: store, start: options.Now}); err != nil {
		return nil, err
	}
	return d.survey()
}

// take builds the store from what was found, and counts this opening.
func (s *Store) take(found *survey) error {
	s.markFile, s.segments, s.runs = found.markFile, found.segments, found.runs
	for _, r := range found.superseded {
		if err := errors.Join(r.file.Close(), os.Remove(s.disk.path(r.name))); err != nil {
			return err
		}
	}
	s.identity = Identity{ID: found.store, Start: found.mark.start, Epoch: int64(found.mark.epoch)}
	s.number = found.last()
	if len(s.runs) > 0 {
		s.time = s.runs[len(s.runs)-1].span.time
	}
	if err := s.replay(found); err != nil {
		return err
	}
	if s.number > 0 {
		s.identity.LastCommit = s.time
	}
	err := s.read("", firstKey, func(key string, value []byte) error {
		if key == epochKey && len(value) == 8 {
			s.identity.Epoch = max(s.identity.Epoch, int64(binary.BigEndian.Uint64(value)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.identity.Epoch++
	if err := writeMark(s.markFile, s.marked()); err != nil {
		return err
	}
	if s.drainTable != nil {
		s.drainers.Go(func() { _ = s.drain() }) // the next switch returns the error
	}
	_ = s.reserve() // Room reports the error
	err = s.Commit([]Change{
		{startKey, binary.BigEndian.AppendUint64(nil, uint64(s.identity.Start.UnixMilli()))},
		{epochKey, binary.BigEndian.AppendUint64(nil, uint64(s.identity.Epoch))},
	})
	s.opened = err == nil
	return err
}

// replay loads the commits that are in no run, and empties segments without such.
func (s *Store) replay(found *survey) error {
	inRuns := found.inRuns()
	var older, newer *segment
	for _, segment := range s.segments {
		switch {
		case segment.last <= inRuns:
			if segment.last > 0 {
				if err := segment.empty(s.disk); err != nil {
					return err
				}
			}
		case newer == nil || segment.last > newer.last:
			older, newer = newer, segment
		default:
			older = segment
		}
	}
	if newer == s.segments[1] && newer != nil {
		s.active = 1
	}
	if older != nil {
		s.drainTable, s.drainSpan = table{}, span{last: older.last}
	}
	for _, f := range found.journal {
		changes, err := decodeChanges(f.payload)
		if err != nil {
			return fmt.Errorf("commit %d: %w: %w", f.number, err, errdefs.ErrDataLoss)
		}
		s.time = f.time
		if older != nil && f.number <= older.last {
			s.drainTable.apply(changes)
			s.drainSpan.time = f.time
			continue
		}
		s.activeTable.apply(changes)
	}
	return nil
}

// Identity identifies the store and counts its openings.
func (s *Store) Identity() Identity { return s.identity }

// Commit stores the changes: all of them or none, and durably on return without an error. The last one for a key counts. On
// a full disk it fails with errdefs.ErrResourceExhausted, and nothing has changed; after any other error the store must be
// closed, and the next opening shows whether the changes were stored.
func (s *Store) Commit(changes []Change) error {
	s.committing.Lock()
	defer s.committing.Unlock()
	if err := s.failure(); err != nil {
		return err
	}
	raw := encodeChanges(make([]byte, frameHead, frameHead+sizeOf(changes)), changes)
	// The store keeps the bytes of the frame, since the changes belong to the caller on return.
	kept, err := decodeChanges(raw[frameHead:])
	if err != nil {
		return err
	}
	switch err := s.add(raw, kept); {
	case errdefs.IsResourceExhausted(err):
		return err
	case isFull(err):
		return s.disk.full(err)
	case err != nil:
		return s.fail(fmt.Errorf("write to the store %s: %w", s.disk.dir, err))
	}
	// The mark may lag behind, so a failed write is not an error.
	_ = writeMark(s.markFile, s.marked())
	return nil
}

func (s *Store) marked() mark {
	return mark{store: s.identity.ID, number: s.number, epoch: uint64(s.identity.Epoch), start: s.identity.Start}
}

func (s *Store) add(raw []byte, kept []Change) error {
	now := time.Now()
	length := len(raw) - frameHead
	active := s.segments[s.active]
	if !active.holds(length + active.openingReserve()) {
		return s.addRun(kept, now)
	}
	need := length
	if s.opened {
		need += active.openingReserve()
	}
	if !active.fits(need) {
		if err := s.switchSegment(); err != nil {
			return err
		}
		active = s.segments[s.active]
	}
	if err := active.add(s.disk, raw, s.number+1, now); err != nil {
		return err
	}
	s.number, s.time = s.number+1, now
	s.mu.Lock()
	defer s.mu.Unlock()
	s.activeTable.apply(kept)
	return nil
}

// switchSegment continues in the other segment, once its content is in a run.
func (s *Store) switchSegment() error {
	s.drainers.Wait()
	if err := s.drain(); err != nil {
		return err
	}
	s.mu.Lock()
	s.drainTable, s.activeTable = s.activeTable, table{}
	s.drainSpan = span{last: s.number, time: s.time}
	s.active = 1 - s.active
	s.mu.Unlock()
	s.drainers.Go(func() { _ = s.drain() }) // the next switch returns the error
	if s.inline {
		s.drainers.Wait()
	}
	return nil
}

// addRun commits changes that are too large for a segment, with all that is in no run, as a run. Without changes it does
// nothing.
func (s *Store) addRun(kept []Change, now time.Time) error {
	s.drainers.Wait()
	if err := s.drain(); err != nil {
		return err
	}
	s.draining.Lock()
	defer s.draining.Unlock()
	number, all := s.number, s.activeTable.clone()
	if len(kept) > 0 {
		number++
		all.apply(kept)
	}
	if err := s.writeRun(all, span{last: number, time: now, epoch: uint64(s.identity.Epoch)}); err != nil {
		return err
	}
	s.mu.Lock()
	s.activeTable = table{}
	s.mu.Unlock()
	s.number, s.time = number, now
	if err := errors.Join(writeMark(s.markFile, s.marked()), s.disk.syncData(s.markFile)); err != nil {
		return err
	}
	return s.segments[s.active].empty(s.disk)
}

func (s *Store) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err
	return err
}

func (s *Store) failure() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.failed
}

// Scan calls each for every record from one key on, and before another if that is not empty, in the order of keys. each owns
// the bytes, and must not commit.
func (s *Store) Scan(from, to string, each func(key string, value []byte) error) error {
	return s.read(max(from, firstKey), to, each)
}

func (s *Store) read(from, to string, each func(key string, value []byte) error) error {
	s.mu.RLock()
	runs := s.runs
	var sources []source
	for _, r := range runs {
		r.readers.Add(1)
		sources = append(sources, r.from(from))
	}
	for _, t := range []table{s.drainTable, s.activeTable} {
		sources = append(sources, t.between(from, to))
	}
	s.mu.RUnlock()
	defer func() {
		for _, r := range runs {
			r.readers.Done()
		}
	}()
	err := merge(sources, func(key string, value []byte) error {
		switch {
		case key < from || value == nil || s.options.Expired(key):
			return nil
		case to != "" && key >= to:
			return errStopScan
		}
		return each(key, slices.Clone(value))
	})
	if errors.Is(err, errStopScan) {
		return nil
	}
	return err
}

// errStopScan ends a scan.
var errStopScan = errors.New("enough")

// Close closes the store. What is only in the journal is written to a run, unless the disk is full.
func (s *Store) Close() error {
	s.committing.Lock()
	defer s.committing.Unlock()
	s.drainers.Wait()
	err := s.failure()
	if err == nil && (s.drainTable != nil || len(s.activeTable) > 0) {
		err = s.addRun(nil, s.time)
	}
	if isFull(err) || errdefs.IsResourceExhausted(err) {
		err = nil
	}
	return errors.Join(err, s.release())
}

// release closes every file.
func (s *Store) release() error {
	s.drainers.Wait()
	_ = s.fail(fmt.Errorf("the store %s is closed: %w", s.disk.dir, errdefs.ErrUnavailable))
	failures := []error{s.markFile.Close()}
	for _, segment := range s.segments {
		failures = append(failures, segment.file.Close())
	}
	for _, r := range s.runs {
		failures = append(failures, r.file.Close())
	}
	return errors.Join(append(failures, s.lock.Close())...)
}
