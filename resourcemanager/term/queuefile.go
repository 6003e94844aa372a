package term

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/mammoth-os/mammoth/resourcemanager/zone"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/shares"
)

const (
	// lookEvery is how often the queue file is looked at. A change counts once two looks agree about it: whoever writes
	// may be in the midst of it.
	lookEvery = 400 * time.Millisecond
	// longestQueueFile is more than any tree needs.
	longestQueueFile = 2 << 20
)

func readQueueFile(path string) shares.FileText {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe's would wait for somebody who writes
	if err != nil {
		return unread(path, err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	info, err := file.Stat()
	if err != nil {
		return unread(path, err)
	}
	if !info.Mode().IsRegular() {
		return shares.FileText{Failure: path + " is no regular file, and cannot be read again and again"}
	}
	text, err := io.ReadAll(io.LimitReader(file, longestQueueFile+1))
	switch {
	case err != nil:
		return unread(path, err)
	case len(text) > longestQueueFile:
		return shares.FileText{Failure: fmt.Sprintf("%s is longer than %d bytes, which no queue tree is", path, longestQueueFile)}
	}
	return shares.FileText{Text: string(text)}
}

// unread says why the file could not be read, and what to do.
func unread(path string, err error) shares.FileText {
	var inner *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return shares.FileText{Failure: path + " is not there; put it there, or start the zone without --queues"}
	case errors.As(err, &inner):
		err = inner.Err
	}
	return shares.FileText{Failure: fmt.Sprintf("%s cannot be read (%v); let the zone read it, or start the zone without --queues", path, err)}
}

// RereadQueues has the queue file looked at again at once, also if it is the one that was refused.
func (t *Term) RereadQueues() {
	select {
	case t.reread <- struct{}{}:
	default:
	}
}

// followQueueFile declares what the queue file says whenever that has changed, until ctx ends.
func (t *Term) followQueueFile(ctx context.Context) {
	if t.config.Settings.QueueFile == "" {
		return
	}
	looks := time.NewTicker(lookEvery)
	defer looks.Stop()
	seen := t.queueFile
	last := seen
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-looks.C:
		case <-t.reread:
			asked = true
		}
		found := readQueueFile(t.config.Settings.QueueFile)
		if asked || found == last && found != seen {
			seen = found
			t.post(zone.QueueFile{Found: found})
		}
		last = found
	}
}
