package term

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/resourcemanager/recording"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// mostRecorded is the most that a recording holds, in bytes; nothing is recorded any more after that.
const mostRecorded = 1 << 30

// record is the recording of the zone, if there is to be one. The loop's goroutine alone uses it.
type record struct {
	*recording.Writer
	file *os.File
}

// newRecord begins a file that is not there yet. The keys of the zone stand in it.
func newRecord(path string) (*record, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("there is a file at %s already, and a recording replaces none; record to another one: %w", path, errdefs.ErrAlreadyExists)
	}
	if err != nil {
		return nil, fmt.Errorf("begin the recording: %w", err)
	}
	return &record{Writer: recording.NewWriter(file, mostRecorded), file: file}, nil
}

// step gives the zone an input. It is recorded before, and the answer after.
func (t *Term) step(in zone.Input) (any, error) {
	if t.record == nil {
		return t.zone.Step(in)
	}
	t.record.Input(in)
	answer, err := t.zone.Step(in)
	t.record.Answer(answer, err)
	return answer, err
}

// ready ends the zone's turn, and records what it has decided. A recording that cannot go on ends, and nothing else does.
func (t *Term) ready() (*zone.Ready, error) {
	out, err := t.zone.Ready()
	if t.record == nil || err != nil {
		return out, err
	}
	t.record.Ready(out)
	if failed := t.record.Err(); failed != nil {
		t.config.Logger.Error("the recording ends here; the zone goes on", "file", t.config.Record, "error", failed)
		_ = t.record.file.Close()
		t.record = nil
	}
	return out, nil
}
