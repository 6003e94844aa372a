package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// Memory is a store that lasts as long as the Disk it is opened on: for tests and benchmarks. All have the same id.
type Memory struct {
	identity  Identity
	retention int64
	disk      *Disk
}

// Disk is the content of Memory stores, which outlives them. The zero Disk is empty.
type Disk struct {
	mu           sync.RWMutex
	clusterStart time.Time
	epoch        int64
	records      map[Kind]map[string][]byte
	events       []Event
	last         int64
	lastCommit   time.Time
}

// OpenMemory opens the store on a disk.
func OpenMemory(disk *Disk, options Options) *Memory {
	disk.mu.Lock()
	defer disk.mu.Unlock()
	if disk.records == nil {
		disk.records = map[Kind]map[string][]byte{}
		disk.clusterStart = options.Now.Truncate(time.Millisecond)
	}
	disk.epoch++
	return &Memory{
		identity:  Identity{ClusterStart: disk.clusterStart, Epoch: disk.epoch, LastCommit: disk.lastCommit},
		retention: options.EventRetention,
		disk:      disk,
	}
}

// Identity implements Store.
func (m *Memory) Identity() Identity { return m.identity }

// Load implements Store.
func (m *Memory) Load(kind Kind, each func(key string, value []byte) error) error {
	m.disk.mu.RLock()
	records := maps.Clone(m.disk.records[kind])
	m.disk.mu.RUnlock()
	for _, key := range slices.Sorted(maps.Keys(records)) {
		if err := each(key, slices.Clone(records[key])); err != nil {
			return err
		}
	}
	return nil
}

// Commit implements Store.
func (m *Memory) Commit(_ context.Context, batch Batch) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if m.disk.epoch != m.identity.Epoch {
		return fmt.Errorf("the store was opened again, for a later term: %w", errdefs.ErrFailedPrecondition)
	}
	m.disk.lastCommit = time.Now()
	for _, put := range batch.Puts {
		records := m.disk.records[put.Kind]
		if records == nil {
			records = map[string][]byte{}
			m.disk.records[put.Kind] = records
		}
		if put.Value == nil {
			delete(records, put.Key)
			continue
		}
		records[put.Key] = slices.Clone(put.Value)
	}
	for _, event := range batch.Events {
		m.disk.events = append(m.disk.events, Event{event.Sequence, slices.Clone(event.Value)})
		m.disk.last = event.Sequence
	}
	if surplus := int64(len(m.disk.events)) - m.retention; surplus > 0 {
		m.disk.events = slices.Clone(m.disk.events[surplus:])
	}
	return nil
}

// Events implements Store.
func (m *Memory) Events(after int64, each func(sequence int64, value []byte) bool) error {
	m.disk.mu.RLock()
	events := slices.Clone(m.disk.events)
	m.disk.mu.RUnlock()
	for _, event := range events {
		if event.Sequence > after && !each(event.Sequence, slices.Clone(event.Value)) {
			return nil
		}
	}
	return nil
}

// LastEvent implements Store.
func (m *Memory) LastEvent() int64 {
	m.disk.mu.RLock()
	defer m.disk.mu.RUnlock()
	return m.disk.last
}

// Room implements Store.
func (m *Memory) Room() error { return nil }

// Close implements Store.
func (m *Memory) Close() error { return nil }
