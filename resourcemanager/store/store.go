// Package store keeps the records of a ResourceManager, by kind and key, and a bounded log of events. To this package
// records and events are bytes; their writers know what they mean.
//
// A batch is the unit of a commit. The retention is how many events are kept. The identity identifies a store and its opening.
//
// An implementation owns what it has stored, for one opening at a time: a later one ends the writes of an earlier one.
package store

import (
	"context"
	"time"

	"github.com/mammoth-os/mammoth/internal/records"
)

// Kind is a class of records.
type Kind string

// Store is one opening of the records of a zone, for one term. Its epoch is its fence: once there is a later opening, this one
// refuses every commit. One goroutine calls Commit; the other methods may be called from any.
type Store interface {
	// Identity identifies the store and counts its openings.
	Identity() Identity
	// Load calls each for every record of a kind, in the order of keys. each owns the bytes.
	Load(kind Kind, each func(key string, value []byte) error) error
	// Commit stores a batch: all of it or none, and durably on return without an error. On a full disk it may fail with
	// errdefs.ErrResourceExhausted: nothing of the batch is stored then, and the store stays usable. After any other error
	// the store must be closed; the next opening shows whether the batch was stored. After a later opening it fails with
	// errdefs.ErrFailedPrecondition, and nothing of the batch is stored. A store that waits for other machines fails when ctx ends.
	Commit(ctx context.Context, batch Batch) error
	// Events calls each for the stored events after a sequence number, oldest first, until each returns false.
	Events(after int64, each func(sequence int64, value []byte) bool) error
	// LastEvent is the newest sequence number ever used; zero if none was.
	LastEvent() int64
	// Room returns nil while the disk has space, and fails with errdefs.ErrResourceExhausted, in one sentence, while it is full. It
	// may block. The reserved room is for changes that must be stored even then.
	Room() error
	Close() error
}

// Identity does not change while a store is open.
type Identity struct {
	// ID is different for every store.
	ID records.ID
	// ClusterStart is when the store was opened for the first time, to the millisecond.
	ClusterStart time.Time
	// Epoch is how often it was opened, this time included.
	Epoch int64
	// LastCommit is the time of the last commit before this opening; zero for a new store.
	LastCommit time.Time
}

// Batch is a set of changes that are stored together.
type Batch struct {
	// Puts are records to write, or to delete if Value is nil. The last one for a key counts.
	Puts []Put
	// Events are appended; their sequence numbers rise.
	Events []Event
}

// Put is a record to write or, without a value, to delete.
type Put struct {
	Kind  Kind
	Key   string
	Value []byte
}

// Event is one entry of the log.
type Event struct {
	Sequence int64
	Value    []byte
}

// Empty reports whether there is nothing to commit.
func (b Batch) Empty() bool { return len(b.Puts) == 0 && len(b.Events) == 0 }

// Options are the options of every store.
type Options struct {
	// Now becomes ClusterStart if the store is new.
	Now time.Time
	// EventRetention is how many events are kept; older ones are dropped.
	EventRetention int64
	// Known is the expected store; zero if the store may be new.
	Known records.ID
}
