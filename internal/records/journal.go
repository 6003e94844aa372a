package records

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// segment is one of the two files of the journal, which are filled in turns: while one is filled, what the other holds is
// written to a run. A segment is filled with zeros once and never grows, so that a commit changes data and no metadata, takes no
// room, and its sync waits for nothing else that the file system has to do.
//
// It begins and ends with the same header. Between them are frames: one for each commit, each written and synced before the next
// one is begun. A frame begins with the salt of the segment's generation, which is another one after each emptying, so that what
// is left of an earlier generation is never read as a frame.
type segment struct {
	file       *os.File
	name       string
	size       int64
	store      ID
	generation uint64
	salt       uint64
	// at is where the next frame goes.
	at int64
	// last is the number of the newest commit in it; zero if it is empty.
	last uint64
}

const (
	segmentMagic = "mmJournl"
	// frameHead is what precedes the changes of a commit: the salt, its number, its time in milliseconds, their length, and a
	// checksum of all of it.
	frameHead = 8 + 8 + 8 + 4 + 4
)

// frame is one commit as the journal holds it.
type frame struct {
	number  uint64
	time    time.Time
	payload []byte
}

func (s *segment) header() []byte {
	return sector{magic: segmentMagic, store: s.store, numbers: [6]uint64{s.generation, s.salt, uint64(s.size)}}.encode()
}

// makeSegment makes an empty segment's file, or none.
func (d disk) makeSegment(name string, s segment) error {
	return d.makeFile(name, func(file *os.File) error {
		header := s.header()
		if _, err := file.Write(header); err != nil {
			return err
		}
		if _, err := io.CopyN(file, zeros{}, s.size-2*sectorSize); err != nil {
			return err
		}
		_, err := file.Write(header)
		return err
	})
}

// zeros is a reader of nothing else.
type zeros struct{}

func (zeros) Read(into []byte) (int, error) {
	clear(into)
	return len(into), nil
}

func newSalt() uint64 { return rand.Uint64() | 1<<63 } // never zero

// holds reports whether a segment has room for so many bytes of changes when it is empty; fits whether it has now.
func (s *segment) holds(length int) bool {
	return sectorSize+frameHead+int64(length) <= s.size-sectorSize
}
func (s *segment) fits(length int) bool { return s.at+frameHead+int64(length) <= s.size-sectorSize }

// forOpenings is how much of a segment is kept for the commit that each opening is, so that a store on a full disk opens.
func (s *segment) forOpenings() int { return int(min(32<<10, s.size/16)) }

// add writes a commit, for good on return. raw begins with room for the frame's head. After an error the next one is written over
// it.
func (s *segment) add(d disk, raw []byte, number uint64, now time.Time) error {
	s.seal(raw, number, now)
	err := d.fault("append")
	if err == nil {
		_, err = s.file.WriteAt(raw, s.at)
	}
	if err == nil {
		err = d.syncData(s.file)
	}
	if err != nil {
		// What was refused does not come to life at the next opening.
		_, again := s.file.WriteAt(make([]byte, frameHead), s.at)
		return errors.Join(err, again)
	}
	s.at += int64(len(raw))
	s.last = number
	return nil
}

// seal fills in a frame's head.
func (s *segment) seal(raw []byte, number uint64, now time.Time) []byte {
	binary.BigEndian.PutUint64(raw, s.salt)
	binary.BigEndian.PutUint64(raw[8:], number)
	binary.BigEndian.PutUint64(raw[16:], uint64(now.UnixMilli()))
	binary.BigEndian.PutUint32(raw[24:], uint32(len(raw)-frameHead))
	binary.BigEndian.PutUint32(raw[28:], frameSum(raw))
	return raw
}

func frameSum(raw []byte) uint32 {
	return crc32.Update(crc32.Checksum(raw[:28], castagnoli), castagnoli, raw[frameHead:])
}

// empty begins a new generation. What the segment held must be in a run.
func (s *segment) empty(d disk) error {
	next := *s
	next.generation, next.salt = s.generation+2, newSalt()
	header := next.header()
	for _, at := range []int64{0, s.size - sectorSize} {
		if err := d.fault("empty"); err != nil {
			return err
		}
		if _, err := s.file.WriteAt(header, at); err != nil {
			return err
		}
	}
	if err := d.syncData(s.file); err != nil {
		return err
	}
	next.at, next.last = sectorSize, 0
	*s = next
	return nil
}

// contents is what a segment's file holds.
type contents struct {
	// frames are whole and follow each other from the beginning.
	frames []frame
	// end is where the last of them ends.
	end int
	// behind are whole frames behind something that is none: they say that something was there.
	behind []frame
	// more says that something was written behind the end though it is no whole frame.
	more bool
}

// readFrames reads what stands between the headers of a segment. Of what a crash leaves only the last frame can be torn, since
// each is on the disk before the next one is begun: whatever of this generation stands behind a frame that is none proves that it
// is damaged.
func readFrames(area []byte, salt uint64) contents {
	var c contents
	for {
		f, length := parseFrame(area[c.end:], salt)
		if length == 0 || len(c.frames) > 0 && f.number != c.frames[len(c.frames)-1].number+1 {
			break
		}
		c.frames, c.end = append(c.frames, f), c.end+length
	}
	mark := binary.BigEndian.AppendUint64(nil, salt)
	for at := c.end + 1; at < len(area); {
		next := bytes.Index(area[at:], mark)
		if next < 0 {
			break
		}
		c.more = true
		at += next
		f, length := parseFrame(area[at:], salt)
		if length > 0 {
			c.behind = append(c.behind, f)
		}
		at += max(length, 1)
	}
	return c
}

// parseFrame gives the frame that raw begins with and its length, which is zero if it begins with none.
func parseFrame(raw []byte, salt uint64) (frame, int) {
	if len(raw) < frameHead || binary.BigEndian.Uint64(raw) != salt {
		return frame{}, 0
	}
	length := int64(binary.BigEndian.Uint32(raw[24:]))
	if length > int64(len(raw)-frameHead) {
		return frame{}, 0
	}
	whole := raw[:frameHead+length]
	if binary.BigEndian.Uint32(raw[28:]) != frameSum(whole) {
		return frame{}, 0
	}
	return frame{
		number: binary.BigEndian.Uint64(raw[8:]), time: time.UnixMilli(int64(binary.BigEndian.Uint64(raw[16:]))), payload: whole[frameHead:],
	}, len(whole)
}

// openSegment reads a segment's file. found says what is wrong with it, in one sentence each; what could be read all the same is
// given too, and no segment if that is nothing.
func (d disk) openSegment(name string) (s *segment, c contents, found []Finding, err error) {
	file, err := os.OpenFile(d.path(name), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, c, []Finding{{File: name, What: "it is gone"}}, nil
	}
	if err != nil {
		return nil, c, nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, c, nil, errors.Join(err, file.Close())
	}
	raw := make([]byte, info.Size())
	if _, err := file.ReadAt(raw, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, c, nil, errors.Join(err, file.Close())
	}
	var head sector
	valid := 0
	for _, at := range []int{0, len(raw) - sectorSize} {
		var one sector
		ok := at >= 0 && len(raw) >= sectorSize
		if ok {
			one, ok = decodeSector(raw[at:at+sectorSize], segmentMagic)
		}
		if !ok {
			continue
		}
		// A crash while it was emptied can leave one of each; what it held before is in a run.
		if valid++; valid == 1 || one.numbers[0] > head.numbers[0] {
			head = one
		}
	}
	switch {
	case valid == 0:
		found = append(found, Finding{File: name, What: "both of its headers are damaged"})
	case valid == 1:
		found = append(found, Finding{File: name, What: "one of its two headers is damaged"})
	}
	s = &segment{file: file, name: name, store: head.store, generation: head.numbers[0], salt: head.numbers[1], size: int64(head.numbers[2]), at: sectorSize}
	if valid > 0 && s.size != info.Size() {
		found = append(found, Finding{File: name, What: fmt.Sprintf("it has %d bytes of %d", info.Size(), s.size)})
	}
	if valid == 0 {
		return s, c, found, nil
	}
	area := raw[sectorSize:max(sectorSize, min(len(raw), int(s.size)-sectorSize))]
	c = readFrames(area, s.salt)
	s.at += int64(c.end)
	if len(c.frames) > 0 {
		s.last = c.frames[len(c.frames)-1].number
	}
	return s, c, found, nil
}

func (d disk) syncData(file *os.File) error {
	if err := d.fault("sync"); err != nil || d.noSync {
		return err
	}
	return unix.Fdatasync(int(file.Fd()))
}
