package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/mammoth-os/mammoth/internal/records"
)

const (
	// FolderName is the name of a store's folder in its daemon's folder.
	FolderName = "store"
	// events is the kind of events, whose keys are their numbers.
	events Kind = "event"
	// separator divides a kind from a key.
	separator = "\x00"
)

// File is a store in a folder of its own.
type File struct {
	records  *records.Store
	identity Identity
	// last is the number of the newest event, oldest of the first that is kept.
	last, oldest atomic.Int64
	retention    int64
}

// OpenFile opens the store in a folder and creates it if there is none. It fails with errdefs.ErrDataLoss if a part of it is
// missing, in one sentence with what to do, and with errdefs.ErrUnavailable while another process has it open.
func OpenFile(dir string, options Options) (*File, error) {
	return openFile(dir, options, records.Options{})
}

func openFile(dir string, options Options, tuning records.Options) (*File, error) {
	f := &File{retention: options.EventRetention}
	tuning.Now, tuning.Known, tuning.Expired = options.Now, options.Known, f.expired
	var err error
	if f.records, err = records.Open(dir, tuning); err != nil {
		return nil, err
	}
	identity := f.records.Identity()
	f.identity = Identity{ID: identity.ID, ClusterStart: identity.Start, Epoch: identity.Epoch, LastCommit: identity.LastCommit}
	err = f.Events(0, func(sequence int64, _ []byte) bool {
		f.last.Store(sequence)
		return true
	})
	if err != nil {
		_ = f.records.Close()
		return nil, err
	}
	f.expire()
	return f, nil
}

// expired reports whether a key is that of an event older than those that are kept.
func (f *File) expired(key string) bool {
	text, ok := strings.CutPrefix(key, string(events)+separator)
	return ok && len(text) == 8 && number(text) < f.oldest.Load()
}

func (f *File) expire() { f.oldest.Store(f.last.Load() - f.retention + 1) }

// Identity implements Store.
func (f *File) Identity() Identity { return f.identity }

// Load implements Store.
func (f *File) Load(kind Kind, each func(key string, value []byte) error) error {
	prefix := string(kind) + separator
	return f.records.Scan(prefix, string(kind)+"\x01", func(key string, value []byte) error {
		return each(key[len(prefix):], value)
	})
}

// Commit implements Store. Nobody can open the folder while this opening lasts, so there is no later one.
func (f *File) Commit(_ context.Context, batch Batch) error {
	if batch.Empty() {
		return nil
	}
	changes := make([]records.Change, 0, len(batch.Puts)+len(batch.Events))
	for _, put := range batch.Puts {
		changes = append(changes, records.Change{Key: string(put.Kind) + separator + put.Key, Value: put.Value})
	}
	for _, event := range batch.Events {
		value := event.Value
		if value == nil {
			value = []byte{}
		}
		changes = append(changes, records.Change{Key: eventKey(event.Sequence), Value: value})
	}
	if err := f.records.Commit(changes); err != nil {
		return err
	}
	if n := len(batch.Events); n > 0 {
		f.last.Store(batch.Events[n-1].Sequence)
		f.expire()
	}
	return nil
}

// eventKey encodes a number so that keys sort as their numbers.
func eventKey(sequence int64) string {
	return string(binary.BigEndian.AppendUint64([]byte(string(events)+separator), uint64(sequence)))
}

func number(key string) int64 { return int64(binary.BigEndian.Uint64([]byte(key))) }

// Events implements Store.
func (f *File) Events(after int64, each func(sequence int64, value []byte) bool) error {
	err := f.Load(events, func(key string, value []byte) error {
		if len(key) != 8 {
			return fmt.Errorf("the number of an event has %d bytes", len(key))
		}
		sequence := number(key)
		if sequence > after && !each(sequence, value) {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

var errEnough = errors.New("the reader has enough")

// LastEvent implements Store.
func (f *File) LastEvent() int64 { return f.last.Load() }

// Room implements Store.
func (f *File) Room() error { return f.records.Room() }

// Close implements Store.
func (f *File) Close() error { return f.records.Close() }
