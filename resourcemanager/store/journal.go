package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// journal is a file of numbered records, in two halves that are written in turns: while one is filled, what the other
// holds is written where it is to stay. The file is filled with zeros once and never grows, so that a commit changes
// data and no metadata, and its fsync waits for nothing else that the file system has to do.
type journal struct {
	file   *os.File
	half   int64
	noSync bool
	// number is that of the newest record.
	number uint64
	// place is where the next one goes: in the half at base, so many bytes into it.
	base, place int64
}

// headSize is what precedes each record: a checksum of all that follows, its number, and its length.
const headSize = 4 + 8 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openJournal opens the journal or makes one.
func openJournal(path string, tuning tuning) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeJournal(path, tuning); err != nil {
			return nil, err
		}
		file, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if info.Size() <= 2*headSize {
		err := fmt.Errorf("%s was cut short; restore the whole folder from a backup, or move that file away to go on without what it held: %w", path, errdefs.ErrDataLoss)
		return nil, errors.Join(err, file.Close())
	}
	return &journal{file: file, half: info.Size() / 2, noSync: tuning.noSync}, nil
}

// makeJournal makes an empty journal, or none.
func makeJournal(path string, tuning tuning) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close() //nolint:errcheck // it is only read
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(file, zeros{}, 2*tuning.half)
	if err == nil && !tuning.noSync {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil || tuning.noSync {
		return err
	}
	return folder.Sync()
}

// zeros is a reader of nothing else.
type zeros struct{}

func (zeros) Read(into []byte) (int, error) {
	clear(into)
	return len(into), nil
}

// replay calls each for every record after a number, in their order. What was being written when the journal was last
// used, and was not finished, is no record. The bytes are each's to keep.
func (j *journal) replay(after uint64, each func(record []byte) error) error {
	older, err := j.read(0)
	if err != nil {
		return err
	}
	newer, err := j.read(j.half)
	if err != nil {
		return err
	}
	behind := max(older.behind, newer.behind)
	if len(older.records) > 0 && len(newer.records) > 0 && older.records[0].number > newer.records[0].number {
		older, newer = newer, older
	}
	j.number = after
	for _, r := range append(older.records, newer.records...) {
		switch {
		case r.number <= j.number:
			continue
		case r.number > j.number+1:
			return fmt.Errorf("the journal has record %d but not %d; restore it, or the whole folder, from a backup: %w", r.number, j.number+1, errdefs.ErrDataLoss)
		}
		if err := each(r.content); err != nil {
			return fmt.Errorf("record %d of the journal: %w", r.number, err)
		}
		j.number = r.number
	}
	if behind > j.number {
		// A record is written once the one before it is on the disk, so this is not how a crash leaves a journal.
		return fmt.Errorf("record %d is damaged in %s; restore the whole folder from a backup, or move that file away to go on without what it holds: %w",
			j.number+1, j.file.Name(), errdefs.ErrDataLoss)
	}
	return nil
}

type record struct {
	number  uint64
	content []byte
}

// content is what a half of the journal holds.
type content struct {
	// records follow each other.
	records []record
	// behind is the number of the record that stands whole behind the first bytes that are none; zero if there is none. It
	// may be left from an earlier turn.
	behind uint64
}

func (j *journal) read(base int64) (content, error) {
	half := bufio.NewReader(io.NewSectionReader(j.file, base, j.half))
	var c content
	for left := j.half; left > headSize; {
		r, whole, err := readRecord(half, left)
		if err != nil || r.content == nil {
			return c, err
		}
		left -= headSize + int64(len(r.content))
		if last := len(c.records) - 1; whole && (last < 0 || r.number == c.records[last].number+1) {
			c.records = append(c.records, r)
			continue
		}
		if left <= headSize {
			return c, nil
		}
		if r, whole, err = readRecord(half, left); whole {
			c.behind = r.number
		}
		return c, err
	}
	return c, nil
}

// readRecord reads a record of at most so many bytes, and reports whether it is one. It gives no content if what stands
// where its length should be is none.
func readRecord(from io.Reader, most int64) (r record, whole bool, err error) {
	var head [headSize]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return r, false, err
	}
	r.number = binary.BigEndian.Uint64(head[4:])
	length := int64(binary.BigEndian.Uint32(head[12:]))
	if length > most-headSize {
		return r, false, nil
	}
	r.content = make([]byte, length)
	if _, err := io.ReadFull(from, r.content); err != nil {
		return r, false, err
	}
	sum := crc32.Update(crc32.Checksum(head[4:], castagnoli), castagnoli, r.content)
	return r, sum == binary.BigEndian.Uint32(head[:]), nil
}

// holds reports whether a half has room for a record of so many bytes, its head included.
func (j *journal) holds(length int) bool { return int64(length) <= j.half }

// full reports whether the present half has no room for it.
func (j *journal) full(length int) bool { return j.place+int64(length) > j.half }

// turn goes on in the other half, whose records must not be needed any more.
func (j *journal) turn() { j.base, j.place = j.half-j.base, 0 }

// leaveOut is about a record that is too large and was stored elsewhere, with all those before it. The next one is the
// first of its half again, as records in a half follow each other.
func (j *journal) leaveOut() {
	j.number++
	j.place = 0
}

// add writes a record, for good on return. It begins with room for its head.
func (j *journal) add(record []byte) error {
	binary.BigEndian.PutUint64(record[4:], j.number+1)
	binary.BigEndian.PutUint32(record[12:], uint32(len(record)-headSize))
	binary.BigEndian.PutUint32(record, crc32.Checksum(record[4:], castagnoli))
	if _, err := j.file.WriteAt(record, j.base+j.place); err != nil {
		return err
	}
	if !j.noSync {
		if err := unix.Fdatasync(int(j.file.Fd())); err != nil {
			return err
		}
	}
	j.number++
	j.place += int64(len(record))
	return nil
}
