package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// lockWait is how long Open waits for another process to let go of the file: long enough for one that is
// about to end.
const lockWait = 2 * time.Second

var (
	metaBucket   = []byte("meta")
	eventsBucket = []byte("events")
	startKey     = []byte("cluster-start-ms")
	epochKey     = []byte("epoch")
)

// Bolt is a store in one file. A commit is one transaction and one fsync.
type Bolt struct {
	db        *bolt.DB
	identity  Identity
	retention int64
}

// OpenBolt opens or makes the file. It fails with errdefs.ErrUnavailable while another process has it open.
func OpenBolt(path string, options Options) (*Bolt, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:        lockWait,
		FreelistType:   bolt.FreelistMapType,
		NoFreelistSync: true,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("another ResourceManager has %s open; stop it first: %w", path, errdefs.ErrUnavailable)
	}
	if err != nil {
		return nil, fmt.Errorf("open the store %s: %w", path, err)
	}
	b := &Bolt{db: db, retention: options.EventRetention}
	if err := db.Update(func(tx *bolt.Tx) error { return b.begin(tx, options.Now) }); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store %s: %w", path, err), db.Close())
	}
	return b, nil
}

func (b *Bolt) begin(tx *bolt.Tx, now time.Time) error {
	if _, err := tx.CreateBucketIfNotExists(eventsBucket); err != nil {
		return err
	}
	meta, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	start := meta.Get(startKey)
	if start == nil {
		start = number(now.UnixMilli())
		if err := meta.Put(startKey, start); err != nil {
			return err
		}
	}
	epoch := int64(1)
	if last := meta.Get(epochKey); last != nil {
		epoch += fromNumber(last)
	}
	b.identity = Identity{ClusterStart: time.UnixMilli(fromNumber(start)), Epoch: epoch}
	return meta.Put(epochKey, number(epoch))
}

// Identity implements Store.
func (b *Bolt) Identity() Identity { return b.identity }

// Load implements Store.
func (b *Bolt) Load(kind Kind, each func(key string, value []byte) error) error {
	return b.db.View(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(records(kind))
		if bucket == nil {
			return nil
		}
		return bucket.ForEach(func(key, value []byte) error { return each(string(key), slices.Clone(value)) })
	})
}

// Commit implements Store.
func (b *Bolt) Commit(batch Batch) error {
	if batch.Empty() {
		return nil
	}
	err := b.db.Update(func(tx *bolt.Tx) error {
		for _, put := range batch.Puts {
			if err := write(tx, put); err != nil {
				return err
			}
		}
		return b.appendEvents(tx.Bucket(eventsBucket), batch.Events)
	})
	if err != nil {
		return fmt.Errorf("write to the store: %w", err)
	}
	return nil
}

func write(tx *bolt.Tx, put Put) error {
	bucket, err := tx.CreateBucketIfNotExists(records(put.Kind))
	if err != nil {
		return err
	}
	if put.Value == nil {
		return bucket.Delete([]byte(put.Key))
	}
	return bucket.Put([]byte(put.Key), put.Value)
}

func (b *Bolt) appendEvents(bucket *bolt.Bucket, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	bucket.FillPercent = 1 // keys only rise
	for _, event := range events {
		if err := bucket.Put(number(event.Sequence), event.Value); err != nil {
			return err
		}
	}
	// The log has no holes, so what is too old follows from the newest number.
	oldest := events[len(events)-1].Sequence - b.retention
	cursor := bucket.Cursor()
	for key, _ := cursor.First(); key != nil && fromNumber(key) <= oldest; key, _ = cursor.First() {
		if err := cursor.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// Events implements Store.
func (b *Bolt) Events(after int64, each func(sequence int64, value []byte) bool) error {
	return b.db.View(func(tx *bolt.Tx) error {
		cursor := tx.Bucket(eventsBucket).Cursor()
		for key, value := cursor.Seek(number(after + 1)); key != nil; key, value = cursor.Next() {
			if !each(fromNumber(key), slices.Clone(value)) {
				return nil
			}
		}
		return nil
	})
}

// LastEvent implements Store.
func (b *Bolt) LastEvent() int64 {
	last := int64(0)
	// A View fails only when the store is closed, and then nobody has use for the answer.
	_ = b.db.View(func(tx *bolt.Tx) error {
		if key, _ := tx.Bucket(eventsBucket).Cursor().Last(); key != nil {
			last = fromNumber(key)
		}
		return nil
	})
	return last
}

// Close implements Store.
func (b *Bolt) Close() error { return b.db.Close() }

func records(kind Kind) []byte { return []byte("record/" + string(kind)) }

// number writes n so that the order of keys is the order of numbers.
func number(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func fromNumber(key []byte) int64 { return int64(binary.BigEndian.Uint64(key)) }
