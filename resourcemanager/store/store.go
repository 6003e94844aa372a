// Package store keeps what a ResourceManager must not forget: records by kind and key, and a bounded log of
// events. What a record says is its writer's business; here it is bytes.
package store

import (
	"context"
	"time"

	"github.com/mammoth-os/mammoth/internal/records"
)

// Kind is a class of records.
type Kind string

// Store is one opening of the memory of a zone, for one term. Its epoch is its fence: once a later opening exists, this one takes
// nothing any more. Commit is called by one goroutine; everything else may be called by any.
type Store interface {
	// Identity is who the zone is and how often it was started.
	Identity() Identity
	// Load calls each for every record of a kind, in the order of their keys. The bytes are each's to keep.
	Load(kind Kind, each func(key string, value []byte) error) error
	// Commit writes a batch: all of it or none, and on return without an error for good. On a full disk it may fail with
	// errdefs.ErrResourceExhausted: nothing of the batch is stored then, and the store goes on. After any other error the store must
	// be closed: whether it holds the batch shows when it is opened again. After a later opening it fails with
	// errdefs.ErrFailedPrecondition, and nothing of the batch is stored. A store that waits for other machines fails when ctx ends.
	Commit(ctx context.Context, batch Batch) error
	// Events calls each for the stored events after a sequence number, oldest first, until each returns false.
	Events(after int64, each func(sequence int64, value []byte) bool) error
	// LastEvent is the newest sequence number ever used; zero if none was.
	LastEvent() int64
	// Room is nil while the disk has room, and fails with errdefs.ErrResourceExhausted, in one sentence, while it is full. It may
	// block. Until there is room again, what is reserved is for what must be stored all the same.
	Room() error
	Close() error
}

// Identity does not change while a store is open.
type Identity struct {
	// ID tells stores apart.
	ID records.ID
	// ClusterStart is when the store was opened for the first time, to the millisecond.
	ClusterStart time.Time
	// Epoch is how often it was opened, this time included.
	Epoch int64
	// LastCommit is when something was stored last before it was opened; zero for a new store. What happened later is not in it.
	LastCommit time.Time
}

// Batch is a set of changes that belong together.
type Batch struct {
	// Puts writes records, and deletes those with a nil Value. The last one for a key counts.
	Puts []Put
	// Events are appended; their sequence numbers rise.
	Events []Event
}

// Put is a record to be written or, without a value, deleted.
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

// Options are what every store is opened with.
type Options struct {
	// Now is taken for ClusterStart if the store is new.
	Now time.Time
	// EventRetention is how many events are kept; older ones are dropped.
	EventRetention int64
	// Known is the store that is to be there; zero says that it may be a new one.
	Known records.ID
}
