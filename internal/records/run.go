package records

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// run is a file with the result of consecutive commits: each key once, in order. It is written once and never changed. Runs
// and journal together have every commit from the first one on, so that a missing one leaves a gap.
//
//	header | blocks | index of the blocks | footer
//
// Every byte is covered by a checksum.
type run struct {
	file *os.File
	name string
	span span
	size int64
	// seed makes the checksums specific to this file.
	seed   uint32
	blocks []block
	// The file is closed after its readers have ended.
	readers sync.WaitGroup
}

// span is the commits of a run, and the opening that wrote it.
type span struct {
	first, last uint64
	// time is that of the last commit, epoch that of the opening.
	time  time.Time
	epoch uint64
}

// block is consecutive keys of a run.
type block struct {
	at     int64
	length int
	count  int
	first  string
	last   string
	// damaged blocks are skipped, in a repair only.
	damaged bool
}

const (
	runMagic    = "mmRun001"
	footerMagic = "mmRunEnd"
	runSuffix   = ".run"
	// blockHead is the length of a block's head: its length and a checksum of its offset, its length and its content.
	blockHead = 4 + 4
	// blockSize is the size at which the next block begins.
	blockSize = 16 << 10
)

func runName(first, last uint64) string { return fmt.Sprintf("%020d-%020d%s", first, last, runSuffix) }

// parseRunName returns the commits in a file's name.
func parseRunName(name string) (first, last uint64, ok bool) {
	stem, ok := strings.CutSuffix(name, runSuffix)
	if !ok {
		return 0, 0, false
	}
	if _, err := fmt.Sscanf(stem, "%020d-%020d", &first, &last); err != nil || runName(first, last) != name || first < 1 || last < first {
		return 0, 0, false
	}
	return first, last, true
}

func (s span) header(store ID) []byte {
	return sector{magic: runMagic, store: store, numbers: [6]uint64{s.first, s.last, uint64(s.time.UnixMilli()), s.epoch}}.encode()
}

// runWriter writes keys in order.
type runWriter struct {
	to     *bufio.Writer
	seed   uint32
	at     int64
	block  []byte
	head   block
	blocks []block
}

func newRunWriter(file io.Writer, store ID, s span) (*runWriter, error) {
	header := s.header(store)
	w := &runWriter{to: bufio.NewWriterSize(file, 256<<10), seed: crc32.Checksum(header, castagnoli), at: sectorSize}
	_, err := w.to.Write(header)
	return w, err
}

func (w *runWriter) add(key string, value []byte) error {
	if w.head.count == 0 {
		w.head.first = key
		w.block = append(w.block[:0], make([]byte, blockHead)...)
	}
	w.block = appendChange(w.block, key, value)
	w.head.last = key
	w.head.count++
	if len(w.block) < blockSize {
		return nil
	}
	return w.endBlock()
}

func (w *runWriter) endBlock() error {
	if w.head.count == 0 {
		return nil
	}
	w.head.at, w.head.length = w.at, len(w.block)
	w.blocks = append(w.blocks, w.head)
	w.head = block{}
	return w.write(w.block)
}

// write writes a block and sets its head.
func (w *runWriter) write(raw []byte) error {
	binary.BigEndian.PutUint32(raw, uint32(len(raw)-blockHead))
	binary.BigEndian.PutUint32(raw[4:], blockSum(w.seed, w.at, raw))
	w.at += int64(len(raw))
	_, err := w.to.Write(raw)
	return err
}

func blockSum(seed uint32, at int64, raw []byte) uint32 {
	sum := crc32.Update(seed, castagnoli, binary.BigEndian.AppendUint64(nil, uint64(at)))
	sum = crc32.Update(sum, castagnoli, raw[:4])
	return crc32.Update(sum, castagnoli, raw[blockHead:])
}

// finish completes the file and returns its length.
func (w *runWriter) finish(store ID) (int64, error) {
	if err := w.endBlock(); err != nil {
		return 0, err
	}
	index := w.at
	if err := w.write(encodeIndex(w.blocks)); err != nil {
		return 0, err
	}
	footer := sector{magic: footerMagic, store: store, numbers: [6]uint64{uint64(index), uint64(len(w.blocks)), uint64(w.at + sectorSize), uint64(w.seed)}}
	if _, err := w.to.Write(footer.encode()); err != nil {
		return 0, err
	}
	return w.at + sectorSize, w.to.Flush()
}

func encodeIndex(blocks []block) []byte {
	raw := make([]byte, blockHead)
	for _, b := range blocks {
		raw = binary.AppendUvarint(raw, uint64(b.length))
		raw = binary.AppendUvarint(raw, uint64(b.count))
		raw = appendChange(raw, b.first, nil)
		raw = appendChange(raw, b.last, nil)
	}
	return raw
}

func decodeIndex(raw []byte) ([]block, error) {
	blocks := []block{}
	at := int64(sectorSize)
	for raw = raw[blockHead:]; len(raw) > 0; {
		b := block{at: at}
		for _, field := range []*int{&b.length, &b.count} {
			n, length := binary.Uvarint(raw)
			if length <= 0 || n > 1<<40 {
				return nil, errMalformed
			}
			*field, raw = int(n), raw[length:]
		}
		for _, field := range []*string{&b.first, &b.last} {
			change, rest, err := nextChange(raw)
			if err != nil {
				return nil, err
			}
			*field, raw = change.Key, rest
		}
		at += int64(b.length)
		blocks = append(blocks, b)
	}
	return blocks, nil
}

// openRun reads a run's file completely. found lists its errors; a run with damaged blocks is returned too, and nil if
// nothing can be read.
func (d disk) openRun(name string, store ID) (r *run, found []Finding, err error) {
	file, err := os.Open(d.path(name))
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	r = &run{file: file, name: name, size: info.Size()}
	r.span.first, r.span.last, _ = parseRunName(name)
	found, err = r.check(store)
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return r, found, nil
}

func (r *run) check(store ID) (found []Finding, err error) {
	bad := func(format string, arguments ...any) {
		found = append(found, Finding{File: r.name, What: fmt.Sprintf(format, arguments...)})
	}
	head, tail := make([]byte, sectorSize), make([]byte, sectorSize)
	if r.size < 2*sectorSize {
		bad("it was cut short")
		return found, nil
	}
	if err := readBoth(r.file, head, tail, r.size); err != nil {
		return nil, err
	}
	footer, ended := decodeSector(tail, footerMagic)
	if ended = ended && int64(footer.numbers[2]) == r.size; !ended {
		bad("its end is damaged")
	}
	header, begun := decodeSector(head, runMagic)
	switch {
	case !begun && ended:
		r.seed = uint32(footer.numbers[3])
		bad("its header is damaged")
	case !begun:
		bad("both its header and its end are damaged")
		return found, nil
	default:
		r.seed = crc32.Checksum(head, castagnoli)
		r.span.time, r.span.epoch = time.UnixMilli(int64(header.numbers[2])), header.numbers[3]
	}
	switch {
	case begun && (header.numbers[0] != r.span.first || header.numbers[1] != r.span.last):
		bad("it was renamed: it is %s", runName(header.numbers[0], header.numbers[1]))
		r.span.first, r.span.last = header.numbers[0], header.numbers[1]
	case begun && header.store != store || ended && footer.store != store:
		bad("it is of another store")
		return found, nil
	}
	var want []block
	if ended {
		if want, err = r.index(int64(footer.numbers[0])); err != nil {
			return nil, err
		}
		if want == nil {
			bad("its index is damaged")
		}
	}
	more, err := r.walk(want)
	return append(found, more...), err
}

// index reads the index of the blocks; nil if it is damaged.
func (r *run) index(at int64) ([]block, error) {
	if at < sectorSize || at > r.size-sectorSize-blockHead {
		return nil, nil
	}
	raw := make([]byte, r.size-sectorSize-at)
	if _, err := r.file.ReadAt(raw, at); err != nil {
		return nil, err
	}
	if !wholeBlock(r.seed, at, raw) {
		return nil, nil
	}
	blocks, err := decodeIndex(raw)
	if err != nil {
		return nil, nil //nolint:nilerr // it is damaged, which the caller reports
	}
	return blocks, nil
}

func readBoth(file *os.File, head, tail []byte, size int64) error {
	if _, err := file.ReadAt(head, 0); err != nil {
		return err
	}
	_, err := file.ReadAt(tail, size-int64(len(tail)))
	return err
}

// walk reads the blocks, as listed in the index if there is one.
func (r *run) walk(want []block) (found []Finding, err error) {
	in := bufio.NewReaderSize(io.NewSectionReader(r.file, sectorSize, r.size-2*sectorSize), int(min(r.size, 1<<20)))
	before := ""
	for at, i := int64(sectorSize), 0; want == nil || i < len(want); i++ {
		length := 0
		if want != nil {
			length = want[i].length
		} else if head, err := in.Peek(blockHead); err == nil {
			length = blockHead + int(binary.BigEndian.Uint32(head))
		}
		if length == 0 || int64(length) > r.size-sectorSize-at {
			return append(found, r.unread(at, before)), nil
		}
		raw := make([]byte, length)
		if _, err := io.ReadFull(in, raw); err != nil {
			return nil, err
		}
		b, ok := readBlock(r.seed, at, raw)
		ok = ok && (i == 0 || b.first > before) && (want == nil || b == want[i])
		switch {
		case ok:
		case want != nil:
			b = want[i]
			b.damaged = true
			found = append(found, Finding{
				File: r.name, What: fmt.Sprintf("bytes %d to %d are damaged", at, at+int64(length)-1), Keys: &Keys{First: b.first, Last: b.last, Count: b.count},
			})
		case wholeBlock(r.seed, at, raw): // the index, whose offset is unknown
			return found, nil
		default:
			return append(found, r.unread(at, before)), nil
		}
		r.blocks = append(r.blocks, b)
		at, before = at+int64(length), b.last
	}
	return found, nil
}

// unread is the finding for everything after a key.
func (r *run) unread(at int64, before string) Finding {
	return Finding{File: r.name, What: fmt.Sprintf("it cannot be read from byte %d on", at), Keys: &Keys{First: before}}
}

func wholeBlock(seed uint32, at int64, raw []byte) bool {
	return len(raw) >= blockHead && int(binary.BigEndian.Uint32(raw)) == len(raw)-blockHead && blockSum(seed, at, raw) == binary.BigEndian.Uint32(raw[4:])
}

// readBlock decodes a block, if it is complete.
func readBlock(seed uint32, at int64, raw []byte) (b block, ok bool) {
	if !wholeBlock(seed, at, raw) {
		return b, false
	}
	b.at, b.length = at, len(raw)
	for rest := raw[blockHead:]; len(rest) > 0; b.count++ {
		change, after, err := nextChange(rest)
		if err != nil || b.count > 0 && change.Key <= b.last {
			return b, false
		}
		if b.count == 0 {
			b.first = change.Key
		}
		b.last, rest = change.Key, after
	}
	return b, b.count > 0
}

// runCursor reads the keys of a run from a key on.
type runCursor struct {
	run  *run
	next int
	rest []byte
}

func (r *run) from(key string) *runCursor {
	i, _ := slices.BinarySearchFunc(r.blocks, key, func(b block, key string) int { return cmp.Compare(b.last, key) })
	return &runCursor{run: r, next: i}
}

func (c *runCursor) read() (change Change, ok bool, err error) {
	for len(c.rest) == 0 {
		if c.next == len(c.run.blocks) {
			return Change{}, false, nil
		}
		b := c.run.blocks[c.next]
		c.next++
		if b.damaged {
			continue
		}
		raw := make([]byte, b.length)
		if _, err := c.run.file.ReadAt(raw, b.at); err != nil {
			return Change{}, false, err
		}
		if _, whole := readBlock(c.run.seed, b.at, raw); !whole {
			return Change{}, false, fmt.Errorf("%s was damaged while it was open: %w", c.run.file.Name(), errDamaged)
		}
		c.rest = raw[blockHead:]
	}
	change, c.rest, err = nextChange(c.rest)
	return change, err == nil, err
}
