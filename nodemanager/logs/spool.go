package logs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Spool is a file that a process writes its output to, so that the process does not depend on the NodeManager. Transfer
// moves new output into a Log, where each line has the time at which it was read, and frees the disk blocks by punching a
// hole: unlike truncation this cannot lose what is written meanwhile. The position is stored beside the file. A crash
// between the two writes repeats at most one batch of lines.
type Spool struct {
	file   *os.File
	mark   *os.File
	stderr bool
	offset int64
	// partial is what was read from offset on: the start of a line whose end has not arrived.
	partial []byte
}

// OpenSpool opens or creates the file at path for reading a process's output.
func OpenSpool(path string, stderr bool) (*Spool, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	mark, err := os.OpenFile(path+".read", os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	s := &Spool{file: file, mark: mark, stderr: stderr}
	var stored [8]byte
	if _, err := mark.ReadAt(stored[:], 0); err == nil {
		s.offset = int64(binary.LittleEndian.Uint64(stored[:]))
	}
	return s, nil
}

// Close closes the files without deleting them.
func (s *Spool) Close() error { return errors.Join(s.file.Close(), s.mark.Close()) }

// batch is how much is read at a time.
const batch = 64 << 10

// Transfer appends every complete new line to log, and with last also an unfinished one.
func (s *Spool) Transfer(log *Log, now time.Time, last bool) error {
	buffer := make([]byte, batch)
	for {
		n, err := s.file.ReadAt(buffer, s.offset+int64(len(s.partial)))
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		data := append(s.partial, buffer[:n]...)
		var lines []runtime.LogLine
		taken := 0
		for {
			end := bytes.IndexByte(data[taken:], '\n')
			next := taken + end + 1
			if end < 0 {
				rest := data[taken:]
				if len(rest) == 0 || len(rest) <= MaxText && (!last || n > 0) {
					break
				}
				end = len(rest)
				if end > MaxText {
					end = Cut(rest, MaxText)
				}
				next = taken + end
			}
			lines = append(lines, runtime.LogLine{Time: now, Stderr: s.stderr, Text: string(data[taken : taken+end])})
			taken = next
		}
		if err := log.Append(lines); err != nil {
			return err
		}
		s.partial = bytes.Clone(data[taken:])
		if err := s.advance(int64(taken)); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
}

func (s *Spool) advance(taken int64) error {
	if taken == 0 {
		return nil
	}
	s.offset += taken
	var stored [8]byte
	binary.LittleEndian.PutUint64(stored[:], uint64(s.offset))
	if _, err := s.mark.WriteAt(stored[:], 0); err != nil {
		return err
	}
	// A file system without holes keeps the blocks until the container is removed.
	err := unix.Fallocate(int(s.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, s.offset)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	return nil
}
