package records

import (
	"errors"
	"io"
	"os"
	"time"
)

const (
	markMagic = "mmMark01"
	markName  = "mark"
)

// mark is a small file beside the journal with the number of the last commit. It is written after each commit and synced
// with each run, so that after a power failure it may be older than the journal, and never newer. If the journal ends before
// the mark, commits are missing, be it only the last frame, which otherwise looks like an unfinished one.
type mark struct {
	store ID
	// number is the last commit's; epoch and start are those of the last opening and the first.
	number, epoch uint64
	start         time.Time
}

func (m mark) encode() []byte {
	return sector{magic: markMagic, store: m.store, numbers: [6]uint64{m.number, m.epoch, uint64(m.start.UnixMilli())}}.encode()
}

// makeMark creates the file, with two copies that are written alternately.
func (d disk) makeMark(m mark) error {
	return d.makeFile(markName, func(file *os.File) error {
		_, err := file.Write(append(m.encode(), m.encode()...))
		return err
	})
}

func writeMark(file *os.File, m mark) error {
	_, err := file.WriteAt(m.encode(), int64(m.number&1)*sectorSize)
	return err
}

// openMark reads the newer copy. known is true if there is one.
func (d disk) openMark() (file *os.File, m mark, known bool, found []Finding, err error) {
	file, err = os.OpenFile(d.path(markName), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, m, false, []Finding{{File: markName, What: "it is gone"}}, nil
	}
	if err != nil {
		return nil, m, false, nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(file, 2*sectorSize+1))
	if err != nil {
		return nil, m, false, nil, errors.Join(err, file.Close())
	}
	valid := 0
	for _, at := range []int{0, sectorSize} {
		if at+sectorSize > len(raw) {
			continue
		}
		head, ok := decodeSector(raw[at:at+sectorSize], markMagic)
		if !ok {
			continue
		}
		valid++
		one := mark{store: head.store, number: head.numbers[0], epoch: head.numbers[1], start: time.UnixMilli(int64(head.numbers[2]))}
		if !known || one.number > m.number || one.number == m.number && one.epoch > m.epoch {
			m, known = one, true
		}
	}
	if valid < 2 || len(raw) != 2*sectorSize {
		found = []Finding{{File: markName, What: "it is damaged"}}
	}
	return file, m, known, found, nil
}
