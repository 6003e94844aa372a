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

// mark is a small file beside the journal that says which commit was the last one. It is written after each commit and synced with
// each run, so that a power failure may leave it behind the journal, and never before it. A journal that ends before it has lost
// something, be it only its last frame, which otherwise looks like one that was never finished.
type mark struct {
	store ID
	// number is that of the last commit; epoch and start are of the last opening and the first.
	number, epoch uint64
	start         time.Time
}

func (m mark) encode() []byte {
	return sector{magic: markMagic, store: m.store, numbers: [6]uint64{m.number, m.epoch, uint64(m.start.UnixMilli())}}.encode()
}

// makeMark makes the file, with two copies that are written in turns.
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

// openMark reads the newest of the copies. known says that there is one.
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
