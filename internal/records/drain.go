package records

import (
	"errors"
	"os"

	"github.com/containerd/errdefs"
)

// drain writes the segment that is not active to a run, and empties it. On a full disk it fails without a change, and may be
// repeated.
func (s *Store) drain() error {
	s.draining.Lock()
	defer s.draining.Unlock()
	s.mu.RLock()
	full, of, other, err := s.drainTable, s.drainSpan, s.segments[1-s.active], s.failed
	s.mu.RUnlock()
	if full == nil || err != nil {
		return err
	}
	of.epoch = uint64(s.identity.Epoch)
	if err := s.writeRun(full, of); err != nil {
		if isFull(err) {
			return s.disk.full(err)
		}
		return s.fail(err)
	}
	if err := errors.Join(s.disk.syncData(s.markFile), other.empty(s.disk)); err != nil {
		return s.fail(err)
	}
	s.mu.Lock()
	s.drainTable = nil
	s.mu.Unlock()
	_ = s.reserveLocked() // Room says that there is none
	return nil
}

// writeRun writes a table as a run, merged with the newest runs as long as those are not much larger: so there are few runs,
// and each record is written few times.
func (s *Store) writeRun(t table, of span) error {
	size := int64(0)
	for key, value := range t {
		size += int64(len(key) + len(value))
	}
	keep := len(s.runs)
	for keep > 0 && s.runs[keep-1].size <= 2*size {
		keep--
		size += s.runs[keep].size
	}
	of.first = 1
	if keep < len(s.runs) {
		of.first = s.runs[keep].span.first
	} else if keep > 0 {
		of.first = s.runs[keep-1].span.last + 1
	}
	var sources []source
	for _, r := range s.runs[keep:] {
		sources = append(sources, r.from(""))
	}
	written, err := s.disk.writeRun(s.identity.ID, of, func(add func(key string, value []byte) error) error {
		return merge(append(sources, t.between("", "")), func(key string, value []byte) error {
			if value == nil && keep == 0 || s.options.Expired(key) {
				return nil
			}
			return add(key, value)
		})
	})
	if err != nil {
		return err
	}
	s.spare = 0
	s.mu.Lock()
	replaced := s.runs[keep:]
	s.runs = append(s.runs[:keep:keep], written)
	s.mu.Unlock()
	for _, r := range replaced {
		r.readers.Wait()
		err = errors.Join(err, s.disk.fault("remove"), r.file.Close(), os.Remove(s.disk.path(r.name)))
	}
	return err
}

// writeRun writes a run's file into the reserved space.
func (d disk) writeRun(store ID, of span, fill func(add func(key string, value []byte) error) error) (*run, error) {
	file, err := os.OpenFile(d.path(spareName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	w, err := newRunWriter(file, store, of)
	if err == nil {
		err = d.fault("run")
	}
	if err == nil {
		err = fill(w.add)
	}
	var size int64
	if err == nil {
		size, err = w.finish(store)
	}
	if err == nil {
		err = file.Truncate(size)
	}
	if err == nil {
		err = d.sync(file)
	}
	name := runName(of.first, of.last)
	if err == nil {
		err = d.rename(spareName, name)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &run{file: file, name: name, span: of, size: size, seed: w.seed, blocks: w.blocks}, nil
}

// Room returns nil while the disk has space, and errdefs.ErrResourceExhausted with one sentence while it is full. It resumes
// what a full disk has stopped. While the disk is full, the reserved space is for commits that cannot be refused.
func (s *Store) Room() error {
	if err := s.drain(); err != nil {
		return err
	}
	if err := s.reserve(); err != nil {
		return err
	}
	return s.disk.room()
}

// reserve allocates space for the next run.
func (s *Store) reserve() error {
	s.draining.Lock()
	defer s.draining.Unlock()
	return s.reserveLocked()
}

func (s *Store) reserveLocked() error {
	if err := s.failure(); err != nil && !errdefs.IsUnavailable(err) {
		return err
	}
	// The largest possible run merges all runs and the journal.
	size := s.segments[0].size + s.segments[1].size
	for _, r := range s.runs {
		size += r.size
	}
	if s.spare >= size {
		return nil
	}
	if err := s.disk.reserve(size); err != nil {
		if isFull(err) {
			return s.disk.full(err)
		}
		return err
	}
	s.spare = size
	return nil
}
