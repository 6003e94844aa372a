// Package recovery stores the records of a node's containers, so that the next NodeManager takes them over. Writes of all
// containers are grouped into one sync.
//
// It owns the store of the node.
package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/records"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Record is the stored state of one container.
type Record struct {
	Container *container.Container
	Lease     *corev1.Lease
	// Spec has only the runtime and labels of a container that was found without a record, or whose end is over.
	Spec *corev1.ContainerSpec
}

// File is the store. One goroutine writes; Save and Drop may be called from one other goroutine, Fact from any.
type File struct {
	records *records.Store
	queue   chan write
	// unwritten are writes that a full disk has refused and nobody waits for. It belongs to the writer.
	unwritten []write
}

type write struct {
	key   string
	value []byte // nil deletes
	done  func(error)
}

const (
	// FolderName is the name of the store's folder in the node's folder.
	FolderName = "store"
	// containers and facts are the prefixes of keys.
	containers = "container\x00"
	facts      = "node\x00"
	// queueLength is how many writes may be queued before Save blocks.
	queueLength = 1024
	// segment is half of the journal. A container's record has two or three thousand bytes.
	segment = 128 << 10
)

// Open opens or creates the store in a folder. It fails with errdefs.ErrFailedPrecondition while another NodeManager has it
// open, and with errdefs.ErrDataLoss, in one sentence with what to do, if records are missing.
func Open(dir string) (*File, error) {
	opened, err := records.Open(dir, records.Options{Now: time.Now(), Segment: segment})
	if errdefs.IsUnavailable(err) {
		return nil, fmt.Errorf("another NodeManager uses %s: %w", dir, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return nil, err
	}
	return &File{records: opened, queue: make(chan write, queueLength)}, nil
}

// Close closes the file. Run must have returned.
func (f *File) Close() error { return f.records.Close() }

// Load reads every record. An unreadable one is an error: a container must not be lost because its record is damaged.
func (f *File) Load() ([]Record, error) {
	var all []Record
	err := f.records.Scan(containers, "container\x01", func(key string, value []byte) error {
		record, err := decode(value)
		if err != nil {
			return fmt.Errorf("the record of container %s: %w", key[len(containers):], err)
		}
		all = append(all, record)
		return nil
	})
	return all, err
}

// Save queues a record. done, if not nil, is called when the record is durable, or could not be encoded or written. Saves
// of one container keep their order.
func (f *File) Save(record Record, done func(error)) {
	value, err := encode(record)
	if err != nil {
		if done != nil {
			done(err)
		}
		return
	}
	f.queue <- write{record.Container.ID.String(), value, done}
}

// Drop queues the deletion of a record.
func (f *File) Drop(key string) { f.queue <- write{key: key} }

// Run writes what is queued until ctx ends, and then the rest. failed is called with the error of each commit that has failed.
func (f *File) Run(ctx context.Context, failed func(error)) {
	for {
		var first write
		select {
		case first = <-f.queue:
		case <-ctx.Done():
			select {
			case first = <-f.queue:
			default:
				return
			}
		}
		f.commit(f.group(first), failed)
	}
}

func (f *File) group(first write) []write {
	group := []write{first}
	for {
		select {
		case next := <-f.queue:
			group = append(group, next)
		default:
			return group
		}
	}
}

func (f *File) commit(group []write, failed func(error)) {
	all := slices.Concat(f.unwritten, group)
	changes := make([]records.Change, 0, len(all))
	for _, w := range all {
		changes = append(changes, records.Change{Key: containers + w.key, Value: w.value})
	}
	f.unwritten = nil
	err := f.records.Commit(changes)
	if err != nil {
		err = fmt.Errorf("write the node's records: %w", err)
		failed(err)
	}
	for _, w := range all {
		if w.done != nil {
			w.done(err)
		} else if errdefs.IsResourceExhausted(err) {
			f.unwritten = append(f.unwritten, w)
		}
	}
	f.unwritten = newest(f.unwritten)
}

// newest keeps the last write of each record.
func newest(all []write) []write {
	last := make(map[string]int, len(all))
	for i, w := range all {
		last[w.key] = i
	}
	kept := all[:0]
	for i, w := range all {
		if last[w.key] == i {
			kept = append(kept, w)
		}
	}
	return kept
}

// FolderID is a random text that was created with the folder.
func (f *File) FolderID() (string, error) { return f.records.Identity().ID.String(), nil }

// Fact is a value about the node that is measured once and stored. It returns the stored value of that name, and stores
// fallback first if there is none.
func (f *File) Fact(name string, fallback int64) (int64, error) {
	value, found := fallback, false
	err := f.records.Scan(facts+name, facts+name+"\x00", func(_ string, raw []byte) error {
		found = true
		return json.Unmarshal(raw, &value)
	})
	if err == nil && !found {
		err = f.records.Commit([]records.Change{{Key: facts + name, Value: strconv.AppendInt(nil, fallback, 10)}})
	}
	if err != nil {
		return 0, fmt.Errorf("store the node's %s: %w", name, err)
	}
	return value, nil
}

// stored is the JSON form of a Record, with protobuf JSON inside.
type stored struct {
	Container *container.Container `json:"container"`
	Lease     json.RawMessage      `json:"lease"`
	Spec      json.RawMessage      `json:"spec,omitempty"`
}

func encode(record Record) ([]byte, error) {
	out := stored{Container: record.Container}
	var err error
	if out.Lease, err = protojson.Marshal(record.Lease); err != nil {
		return nil, fmt.Errorf("encode a lease: %w", err)
	}
	if record.Spec != nil {
		if out.Spec, err = protojson.Marshal(record.Spec); err != nil {
			return nil, fmt.Errorf("encode a container's spec: %w", err)
		}
	}
	return json.Marshal(out)
}

func decode(value []byte) (Record, error) {
	var in stored
	if err := json.Unmarshal(value, &in); err != nil {
		return Record{}, fmt.Errorf("decode: %w", err)
	}
	record := Record{Container: in.Container, Lease: &corev1.Lease{}}
	if in.Container == nil {
		return Record{}, fmt.Errorf("it is empty: %w", errdefs.ErrDataLoss)
	}
	read := func(raw json.RawMessage, into proto.Message) error {
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, into)
	}
	if err := read(in.Lease, record.Lease); err != nil {
		return Record{}, fmt.Errorf("decode its lease: %w", err)
	}
	if len(in.Spec) > 0 {
		record.Spec = &corev1.ContainerSpec{}
		if err := read(in.Spec, record.Spec); err != nil {
			return Record{}, fmt.Errorf("decode its spec: %w", err)
		}
	}
	return record, nil
}
