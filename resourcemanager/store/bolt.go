package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
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
	// journalKey is where the number of the newest record of the journal is that the file has.
	journalKey = []byte("journal")
)

const (
	// journalHalf is what the journal holds twice.
	journalHalf = 4 << 20
	// fileMapped is in addresses, not in memory: a file that outgrows what is mapped is mapped anew, and all that was read
	// of it copied before.
	fileMapped = 256 << 20
)

// Bolt is a store in a bbolt file and a journal beside it. A commit is one write to the journal and one fsync; the file
// follows when a half of the journal is full, in one transaction for all that was committed meanwhile, in which a record
// that changed ten times is written once. Transactions of bbolt write whole pages, and wait for the disk twice.
type Bolt struct {
	db        *bolt.DB
	journal   *journal
	identity  Identity
	retention int64

	// drainers write what is in the half of the journal that is not filled at present to the file.
	drainers sync.WaitGroup
	// draining is held by whoever writes to the file.
	draining sync.Mutex

	mu sync.Mutex
	// waiting are the batches that are in the journal and not in the file, of which the first one has the number after.
	waiting []Batch
	first   uint64
	failed  error
}

// OpenBolt opens or makes the file at path and its journal, at path with ".journal" behind it. It fails with
// errdefs.ErrUnavailable while another process has it open.
func OpenBolt(path string, options Options) (*Bolt, error) {
	b, err := openBolt(path, options, tuning{half: journalHalf, mapped: fileMapped})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("another ResourceManager has %s open; stop it first: %w", path, errdefs.ErrUnavailable)
	}
	if err != nil {
		return nil, fmt.Errorf("open the store %s: %w", path, err)
	}
	return b, nil
}

// tuning is what tests change.
type tuning struct {
	// half is how many bytes a half of a new journal has.
	half int64
	// mapped is how many bytes of addresses the file has at first.
	mapped int
	// noSync leaves it to the operating system when what was written is on the disk.
	noSync bool
}

func openBolt(path string, options Options, tuning tuning) (*Bolt, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:         lockWait,
		FreelistType:    bolt.FreelistMapType,
		NoFreelistSync:  true,
		NoSync:          tuning.noSync,
		InitialMmapSize: tuning.mapped,
	})
	if err != nil {
		return nil, err
	}
	journal, err := openJournal(path+".journal", tuning)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	b := &Bolt{db: db, journal: journal, retention: options.EventRetention}
	if err := b.recover(); err != nil {
		return nil, errors.Join(err, b.release())
	}
	if err := db.Update(func(tx *bolt.Tx) error { return b.begin(tx, options.Now) }); err != nil {
		return nil, errors.Join(err, b.release())
	}
	return b, nil
}

// recover brings the file up to date with the journal, which begins anew after that.
func (b *Bolt) recover() error {
	begun := false
	b.first = 1
	err := b.db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if begun = meta != nil; !begun {
			return nil
		}
		if last := meta.Get(journalKey); last != nil {
			b.first = uint64(fromNumber(last)) + 1
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = b.journal.replay(b.first-1, func(record []byte) error {
		batch, err := decodeBatch(record)
		b.waiting = append(b.waiting, batch)
		return err
	})
	if err != nil {
		return err
	}
	if !begun && len(b.waiting) > 0 {
		// A zone that began anew with it would count its starts from one, and name containers like earlier ones.
		return fmt.Errorf("%s is of a zone whose file is gone; restore the whole folder from a backup, or move that file away to begin a new zone: %w",
			b.journal.file.Name(), errdefs.ErrDataLoss)
	}
	return b.drain()
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
	return b.view(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(records(kind))
		if bucket == nil {
			return nil
		}
		return bucket.ForEach(func(key, value []byte) error { return each(string(key), slices.Clone(value)) })
	})
}

// view reads the file, once it has everything that was committed before.
func (b *Bolt) view(read func(*bolt.Tx) error) error {
	if err := b.drain(); err != nil {
		return err
	}
	return b.db.View(read)
}

// Commit implements Store.
func (b *Bolt) Commit(batch Batch) error {
	if batch.Empty() {
		return nil
	}
	if err := b.commit(batch); err != nil {
		return fmt.Errorf("write to the store: %w", err)
	}
	return nil
}

func (b *Bolt) commit(batch Batch) error {
	record := batch.encode()
	// What waits is what the record says: the batch is the caller's on return.
	batch, err := decodeBatch(record[headSize:])
	if err != nil {
		return err
	}
	if !b.journal.holds(len(record)) {
		b.wait(batch)
		if err := b.drain(); err != nil {
			return err
		}
		b.journal.leaveOut()
		return nil
	}
	if b.journal.full(len(record)) {
		b.drainers.Wait() // the other half's
		b.journal.turn()
		b.drainers.Go(func() { _ = b.drain() }) // the next commit says what was wrong
	}
	if err := b.failure(); err != nil {
		return err
	}
	if err := b.journal.add(record); err != nil {
		return err
	}
	b.wait(batch)
	return nil
}

// wait has the batch written to the file in its turn.
func (b *Bolt) wait(batch Batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, batch)
}

func (b *Bolt) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// drain writes every batch that was committed before to the file.
func (b *Bolt) drain() error {
	b.draining.Lock()
	defer b.draining.Unlock()
	b.mu.Lock()
	batches, last, err := b.waiting, b.first+uint64(len(b.waiting))-1, b.failed
	b.mu.Unlock()
	if len(batches) == 0 || err != nil {
		return err
	}
	err = b.db.Update(func(tx *bolt.Tx) error { return b.write(tx, batches, last) })
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.failed = err
		return err
	}
	b.waiting, b.first = slices.Clone(b.waiting[len(batches):]), last+1
	return nil
}

// write writes batches of which the last one has a number. Of the puts for a key the last one counts.
func (b *Bolt) write(tx *bolt.Tx, batches []Batch, last uint64) error {
	type place struct {
		kind Kind
		key  string
	}
	newest := map[place]Put{}
	var events []Event
	for _, batch := range batches {
		for _, put := range batch.Puts {
			newest[place{put.Kind, put.Key}] = put
		}
		events = append(events, batch.Events...)
	}
	puts := slices.SortedFunc(maps.Values(newest), func(x, y Put) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Key, y.Key))
	})
	for _, put := range puts {
		if err := write(tx, put); err != nil {
			return err
		}
	}
	if err := b.appendEvents(tx, events); err != nil {
		return err
	}
	meta, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	return meta.Put(journalKey, number(int64(last)))
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

func (b *Bolt) appendEvents(tx *bolt.Tx, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	bucket, err := tx.CreateBucketIfNotExists(eventsBucket)
	if err != nil {
		return err
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
	return b.view(func(tx *bolt.Tx) error {
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
	// This fails only when the store is closed or broken, and then nobody has use for the answer.
	_ = b.view(func(tx *bolt.Tx) error {
		if key, _ := tx.Bucket(eventsBucket).Cursor().Last(); key != nil {
			last = fromNumber(key)
		}
		return nil
	})
	return last
}

// Close implements Store.
func (b *Bolt) Close() error {
	b.drainers.Wait()
	return errors.Join(b.drain(), b.release())
}

func (b *Bolt) release() error { return errors.Join(b.journal.file.Close(), b.db.Close()) }

func records(kind Kind) []byte { return []byte("record/" + string(kind)) }

// number writes n so that the order of keys is the order of numbers.
func number(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func fromNumber(key []byte) int64 { return int64(binary.BigEndian.Uint64(key)) }
