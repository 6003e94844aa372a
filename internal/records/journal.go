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

// segment is one of the two files of the journal, which are filled alternately: while one is filled, the content of the
// other is written to a run. A segment is filled with zeros once and never grows, so that a commit changes no metadata,
// needs no space, and its sync waits for no other work of the file system.
//
// It begins and ends with the same header. Between them are frames, one for each commit, each written and synced before the
// next. A frame begins with the salt of the segment's generation, which changes at each emptying, so that the rest of an
// earlier generation is never read as a frame.
type segment struct {
	file       *os.File
	name       string
	size       int64
	store      ID
	generation uint64
	salt       uint64
	// at is the offset of the next frame.
	at int64
	// last is the number of the newest commit in it; zero if it is empty.
	last uint64
}

const (
	segmentMagic = "mmJournl"
	// frameHead is the length of a frame's head: the salt, the commit's number, its time in milliseconds, the length of the
	// changes, and a checksum of all of it.
	frameHead = 8 + 8 + 8 + 4 + 4
)

// frame is one commit in the journal.
type frame struct {
	number  uint64
	time    time.Time
	payload []byte
}

func (s *segment) header() []byte {
	return sector{magic: segmentMagic, store: s.store, numbers: [6]uint64{s.generation, s.salt, uint64(s.size)}}.encode()
}

// makeSegment creates an empty segment's file, or none.
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

// zeros reads zeros.
type zeros struct{}

func (zeros) Read(into []byte) (int, error) {
	clear(into)
	return len(into), nil
}

func newSalt() uint64 { return rand.Uint64() | 1<<63 } // never zero

// holds reports whether changes of a length fit into an empty segment; fits whether they fit now.
func (s *segment) holds(length int) bool {
	return sectorSize+frameHead+int64(length) <= s.size-sectorSize
}
func (s *segment) fits(length int) bool { return s.at+frameHead+int64(length) <= s.size-sectorSize }

// openingReserve is the part of a segment that is reserved for the commit of an opening, so that a store on a full disk can
// be opened.
func (s *segment) openingReserve() int { return int(min(32<<10, s.size/16)) }

// add writes a commit durably. raw begins with space for the frame's head. After an error the next commit overwrites it.
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
		// A failed commit must not reappear at the next opening.
		_, again := s.file.WriteAt(make([]byte, frameHead), s.at)
		return errors.Join(err, again)
	}
	s.at += int64(len(raw))
	s.last = number
	return nil
}

// seal sets a frame's head.
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

// empty starts a new generation. The content of the segment must be in a run.
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

// contents is the content of a segment's file.
type contents struct {
	// frames are complete and follow each other from the beginning.
	frames []frame
	// end is the end of the last of them.
	end int
	// orphans are complete frames after a damaged one: they show that there was one.
	orphans []frame
	// hasTrailing is true if there are bytes of an incomplete frame after the end.
	hasTrailing bool
}

// readFrames decodes the area between the headers of a segment. A crash can only tear the last frame, since each is durable
// before the next begins: anything of this generation after a bad frame proves damage.
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
		c.hasTrailing = true
		at += next
		f, length := parseFrame(area[at:], salt)
		if length > 0 {
			c.orphans = append(c.orphans, f)
		}
		at += max(length, 1)
	}
	return c
}

// parseFrame decodes the frame at the start of raw, and its length, which is zero if there is none.
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

// openSegment reads a segment's file. found lists its errors, one sentence each; what can be read is returned too, and a nil
// segment if nothing can.
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
		// A crash during emptying can leave one header of each generation; the earlier content is in a run.
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
