package imagefile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/containerd/errdefs"
)

// program is what the start of an executable file shows.
type program struct {
	// architecture is Go's name; empty for a script.
	architecture string
	// interpreter runs the program: the dynamic linker, or a script's. Empty for a static program.
	interpreter string
	script      bool
}

// These are values of the ELF format (System V ABI, chapters 4 and 5).
const (
	elfExecutable  = 2
	elfShared      = 3
	elfInterpreter = 3
	maxInterpreter = 4096
)

// readProgram reads the start of a program. It fails with errdefs.ErrInvalidArgument for a file that Linux does not run; the
// text follows "… is".
func readProgram(file io.ReaderAt) (program, error) {
	var start [64]byte
	n, err := file.ReadAt(start[:], 0)
	if err != nil && err != io.EOF {
		return program{}, unreadable(err)
	}
	head := start[:n]
	switch {
	case bytes.HasPrefix(head, []byte("\x7fELF")) && n >= 52:
		return readELF(file, head)
	case bytes.HasPrefix(head, []byte("#!")):
		return readScript(file)
	case bytes.HasPrefix(head, []byte("MZ")):
		return program{}, foreign("a Windows program; build it for Linux (GOOS=linux for Go)")
	case bytes.HasPrefix(head, []byte("\xcf\xfa\xed\xfe")), bytes.HasPrefix(head, []byte("\xce\xfa\xed\xfe")), bytes.HasPrefix(head, []byte("\xca\xfe\xba\xbe")):
		return program{}, foreign("a macOS program; build it for Linux (GOOS=linux for Go)")
	}
	return program{}, foreign("not a Linux program")
}

func foreign(what string) error { return fmt.Errorf("%s: %w", what, errdefs.ErrInvalidArgument) }

// unreadable is the error without the file's name, which the caller adds.
func unreadable(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("not readable: %w", err)
}

func readScript(file io.ReaderAt) (program, error) {
	line := make([]byte, 256)
	n, err := file.ReadAt(line, 0)
	if err != nil && err != io.EOF {
		return program{}, unreadable(err)
	}
	first, _, _ := strings.Cut(string(line[:n]), "\n")
	words := strings.Fields(strings.TrimPrefix(first, "#!"))
	if len(words) == 0 {
		return program{}, foreign("a script that does not name its interpreter")
	}
	return program{interpreter: words[0], script: true}, nil
}

// readELF reads a Linux program's header and searches the segment with the dynamic linker.
func readELF(file io.ReaderAt, head []byte) (program, error) {
	wide := head[4] == 2
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 {
		order = binary.BigEndian
	}
	found := program{architecture: architecture(order.Uint16(head[18:]), wide, head[5] == 1)}
	if kind := order.Uint16(head[16:]); kind != elfExecutable && kind != elfShared {
		return found, foreign("an object file or core dump, not a program")
	}
	if found.architecture == "" {
		return found, foreign(fmt.Sprintf("a program for an unknown machine (number %d)", order.Uint16(head[18:])))
	}
	if wide && len(head) < 64 {
		return found, foreign("truncated")
	}
	table, size, count := int64(order.Uint32(head[28:])), int64(order.Uint16(head[42:])), int(order.Uint16(head[44:]))
	if wide {
		table, size, count = int64(order.Uint64(head[32:])), int64(order.Uint16(head[54:])), int(order.Uint16(head[56:]))
	}
	segment := make([]byte, 56)
	if !wide {
		segment = segment[:32]
	}
	if size < int64(len(segment)) || table < 0 {
		return found, foreign("a damaged program")
	}
	for i := range count {
		if _, err := file.ReadAt(segment, table+int64(i)*size); err != nil {
			return found, truncated(err)
		}
		if order.Uint32(segment) != elfInterpreter {
			continue
		}
		offset, length := int64(order.Uint32(segment[4:])), int64(order.Uint32(segment[16:]))
		if wide {
			offset, length = int64(order.Uint64(segment[8:])), int64(order.Uint64(segment[32:]))
		}
		if length < 1 || length > maxInterpreter || offset < 0 {
			return found, foreign("a damaged program")
		}
		name := make([]byte, length)
		if _, err := file.ReadAt(name, offset); err != nil {
			return found, truncated(err)
		}
		found.interpreter = string(bytes.TrimRight(name, "\x00"))
	}
	return found, nil
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) {
		return foreign("a truncated program")
	}
	return unreadable(err)
}

// architecture is Go's word for an ELF machine; empty if there is none.
func architecture(machine uint16, wide, little bool) string {
	switch {
	case machine == 62 && wide:
		return "amd64"
	case machine == 3:
		return "386"
	case machine == 183 && little:
		return "arm64"
	case machine == 40 && little:
		return "arm"
	case machine == 243 && wide:
		return "riscv64"
	case machine == 22 && wide:
		return "s390x"
	case machine == 21 && little:
		return "ppc64le"
	case machine == 21:
		return "ppc64"
	case machine == 258 && wide:
		return "loong64"
	}
	return ""
}
