// Package logs stores the output of containers in files of bounded size that outlive the container: one line a record, with
// its time and stream, in NAME.log and, once that is full, NAME.log.1.
//
// A Log is written by the runtime of a container. A Spool is a file that a process writes to directly.
package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

const (
	// DefaultLimit is the size at which a file is rotated; a container has at most twice that.
	DefaultLimit = 10 << 20
	// MaxText is the longest line; a longer one continues in further lines.
	MaxText = 64 << 10
)

// Log appends to one container's output. Read needs only the files; Follow needs the Log.
type Log struct {
	path  string
	limit int64

	mu   sync.Mutex
	file *os.File
	size int64
	// changed is closed and replaced at each Append.
	changed chan struct{}
}

// Open opens or creates the log called name in dir. A limit of zero is DefaultLimit.
func Open(dir, name string, limit int64) (*Log, error) {
	if limit == 0 {
		limit = DefaultLimit
	}
	l := &Log{path: path(dir, name), limit: limit, changed: make(chan struct{})}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	return l, l.open()
}

func path(dir, name string) string { return filepath.Join(dir, name+".log") }

func (l *Log) open() error {
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	l.file, l.size = file, info.Size()
	return nil
}

// Append writes lines in order and wakes followers.
func (l *Log) Append(lines []runtime.LogLine) error {
	if len(lines) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() {
		close(l.changed)
		l.changed = make(chan struct{})
	}()
	var buffer []byte
	flush := func() error {
		n, err := l.file.Write(buffer)
		l.size += int64(n)
		buffer = buffer[:0]
		return err
	}
	for _, line := range lines {
		buffer = appendLine(buffer, line)
		if l.size+int64(len(buffer)) < l.limit && len(buffer) < 1<<20 {
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		if l.size >= l.limit {
			if err := l.rotate(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func (l *Log) rotate() error {
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		return err
	}
	if err := l.file.Close(); err != nil {
		return err
	}
	return l.open()
}

// Close ends writing. Followers end with the container.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// wait returns a channel that is closed at the next Append.
func (l *Log) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Delete removes a log. One that does not exist is not an error.
func Delete(dir, name string) error {
	var failed error
	for _, file := range []string{path(dir, name), path(dir, name) + ".1"} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = err
		}
	}
	return failed
}

// appendLine writes <unix nanoseconds> <o or e> <text>\n.
func appendLine(buffer []byte, line runtime.LogLine) []byte {
	text := line.Text
	for {
		piece := text
		if len(piece) > MaxText {
			piece = piece[:Cut(piece, MaxText)]
		}
		text = text[len(piece):]
		buffer = strconv.AppendInt(buffer, line.Time.UnixNano(), 10)
		if line.Stderr {
			buffer = append(buffer, " e "...)
		} else {
			buffer = append(buffer, " o "...)
		}
		buffer = append(buffer, piece...)
		buffer = append(buffer, '\n')
		if text == "" {
			return buffer
		}
	}
}

// Cut is where to cut a text of more than most bytes: at most there, and between two characters.
func Cut[T string | []byte](text T, most int) int {
	for back := range min(utf8.UTFMax, most) {
		if utf8.RuneStart(text[most-back]) {
			return most - back
		}
	}
	return most // not UTF-8
}

// parseLine decodes a record of appendLine, without the newline.
func parseLine(record []byte) (runtime.LogLine, error) {
	stamp, rest, ok := bytes.Cut(record, []byte(" "))
	nanos, err := strconv.ParseInt(string(stamp), 10, 64)
	if !ok || err != nil || len(rest) < 2 || rest[1] != ' ' || (rest[0] != 'o' && rest[0] != 'e') {
		return runtime.LogLine{}, fmt.Errorf("not a log record: %.40q", record)
	}
	return runtime.LogLine{Time: time.Unix(0, nanos), Stderr: rest[0] == 'e', Text: string(rest[2:])}, nil
}
