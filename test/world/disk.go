package world

import (
	"maps"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// disk is what the ResourceManager's store has brought to the disk.
type disk struct {
	records    map[store.Kind]map[string][]byte
	start      time.Time
	lastCommit time.Time
	epoch      int64
	lastEvent  int64
	full       bool
	// unsynced are batches that were acknowledged and may be lost, which only a planted fault makes.
	unsynced []store.Batch
}

func newDisk() *disk { return &disk{records: map[store.Kind]map[string][]byte{}} }

// opened is what a ResourceManager reads when it starts.
type opened struct {
	*disk
	identity store.Identity
}

// open makes the next epoch, unless that stands still.
func (d *disk) open(now time.Time, stands bool) *opened {
	if d.start.IsZero() {
		d.start = now.Truncate(time.Millisecond)
	}
	if d.epoch == 0 || !stands {
		d.epoch++
	}
	return &opened{d, store.Identity{ClusterStart: d.start, Epoch: d.epoch, LastCommit: d.lastCommit}}
}

func (o *opened) Identity() store.Identity { return o.identity }
func (o *opened) LastEvent() int64         { return o.lastEvent }

func (o *opened) Load(kind store.Kind, each func(key string, value []byte) error) error {
	records := o.records[kind]
	for _, key := range slices.Sorted(maps.Keys(records)) {
		if err := each(key, slices.Clone(records[key])); err != nil {
			return err
		}
	}
	return nil
}

// commit writes a batch for good.
func (d *disk) commit(batch store.Batch, now time.Time) {
	d.lastCommit = now
	for _, put := range batch.Puts {
		if d.records[put.Kind] == nil {
			d.records[put.Kind] = map[string][]byte{}
		}
		if put.Value == nil {
			delete(d.records[put.Kind], put.Key)
			continue
		}
		d.records[put.Kind][put.Key] = put.Value
	}
	for _, event := range batch.Events {
		d.lastEvent = event.Sequence
	}
}

// has reports whether a record is on the disk, or at least acknowledged.
func (d *disk) has(kind store.Kind, key string) bool {
	for _, batch := range d.unsynced {
		for _, put := range batch.Puts {
			if put.Kind == kind && put.Key == key && put.Value != nil {
				return true
			}
		}
	}
	_, ok := d.records[kind][key]
	return ok
}

// later acknowledges a batch without writing it; sync writes what was acknowledged, and a crash loses it.
func (d *disk) later(batch store.Batch) { d.unsynced = append(d.unsynced, batch) }

func (d *disk) sync(now time.Time) {
	for _, batch := range d.unsynced {
		d.commit(batch, now)
	}
	d.unsynced = nil
}

func (d *disk) crash() { d.unsynced = nil }
