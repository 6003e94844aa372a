// Package recovery writes down what a node runs, so that a NodeManager that was killed takes it up again. Writes
// of all containers are grouped: whoever waits for one shares its sync with everybody who waits meanwhile.
package recovery

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/nodemanager/container"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Record is what is kept of one container.
type Record struct {
	Container *container.Container
	Lease     *corev1.Lease
	// Spec is nil for a container that was found without a record of its own.
	Spec *corev1.ContainerSpec
}

// File is the store. One goroutine writes; Save and Drop may be called from one other.
type File struct {
	db    *bolt.DB
	queue chan write
}

type write struct {
	key   string
	value []byte // nil deletes
	done  func(error)
}

var (
	containers = []byte("containers")
	node       = []byte("node")
)

// queueLength is how many writes may wait before Save does.
const queueLength = 1024

// Open opens or creates the file at path. It fails with errdefs.ErrFailedPrecondition while another
// NodeManager has it open.
func Open(path string) (*File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the node's records: %w", err)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: 2 * time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("another NodeManager uses %s: %w", path, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return nil, fmt.Errorf("open the node's records at %s: %w", path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, bucket := range [][]byte{containers, node} {
			if _, err := tx.CreateBucketIfNotExists(bucket); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("prepare the node's records at %s: %w", path, err)
	}
	return &File{db: db, queue: make(chan write, queueLength)}, nil
}

// Close closes the file. Run must have returned.
func (f *File) Close() error { return f.db.Close() }

// Load reads every record. What cannot be read is an error: a container must not be lost over a damaged record.
func (f *File) Load() ([]Record, error) {
	var records []Record
	err := f.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(containers).ForEach(func(key, value []byte) error {
			record, err := decode(value)
			if err != nil {
				return fmt.Errorf("the record of container %s: %w", key, err)
			}
			records = append(records, record)
			return nil
		})
	})
	return records, err
}

// Save queues a record. done, if not nil, is called from the writer once the record is on the disk, or could not
// be brought there. A later Save of the same container is never overtaken by an earlier one.
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

// Drop queues the removal of a record.
func (f *File) Drop(key string) { f.queue <- write{key: key} }

// Run writes what is queued until ctx ends, and then what is left. failed is told of writes that nobody waits for.
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
	err := f.db.Update(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(containers)
		for _, w := range group {
			var err error
			if w.value == nil {
				err = bucket.Delete([]byte(w.key))
			} else {
				err = bucket.Put([]byte(w.key), w.value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("write the node's records: %w", err)
		failed(err)
	}
	for _, w := range group {
		if w.done != nil {
			w.done(err)
		}
	}
}

// FolderID is a random text that was made when the file was.
func (f *File) FolderID() (string, error) {
	id := rand.Text()
	err := f.db.Update(func(tx *bolt.Tx) error {
		bucket, name := tx.Bucket(node), []byte("folder id")
		if kept := bucket.Get(name); kept != nil {
			id = string(kept)
			return nil
		}
		return bucket.Put(name, []byte(id))
	})
	if err != nil {
		return "", fmt.Errorf("keep the id of the node's folder: %w", err)
	}
	return id, nil
}

// Fact is a value about the node that was once measured and has to stay. It gives what is stored under name,
// and stores fallback first if that is nothing.
func (f *File) Fact(name string, fallback int64) (int64, error) {
	value := fallback
	err := f.db.Update(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(node)
		if raw := bucket.Get([]byte(name)); raw != nil {
			return json.Unmarshal(raw, &value)
		}
		raw, err := json.Marshal(fallback)
		if err != nil {
			return err
		}
		return bucket.Put([]byte(name), raw)
	})
	if err != nil {
		return 0, fmt.Errorf("keep the node's %s: %w", name, err)
	}
	return value, nil
}

// stored is a Record as JSON, with its messages in protobuf's own encoding.
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
