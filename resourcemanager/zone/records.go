package zone

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// Kinds of records.
const (
	kindSchema    store.Kind = "schema"
	kindApp       store.Kind = "app"
	kindVersion   store.Kind = "version"
	kindMemo      store.Kind = "memo"
	kindAsk       store.Kind = "ask"
	kindInstance  store.Kind = "instance"
	kindContainer store.Kind = "container"
	kindNode      store.Kind = "node"
)

type recordKey struct {
	kind store.Kind
	key  string
}

// changes gathers what a turn has to write. A record that changes ten times in a turn is written once.
type changes struct {
	// records are those that have changed, nil for one that is removed; order is that of their first changes.
	order   []recordKey
	records map[recordKey]proto.Message
	events  []store.Event
	// raw are records of the store's own making.
	raw []store.Put
}

func (c *changes) Save(kind store.Kind, key string, record proto.Message) {
	k := recordKey{kind, key}
	if c.records == nil {
		c.records = map[recordKey]proto.Message{}
	}
	if _, ok := c.records[k]; !ok {
		c.order = append(c.order, k)
	}
	c.records[k] = record
}

func (c *changes) Forget(kind store.Kind, key string) { c.Save(kind, key, nil) }

// pack writes the gathered changes as a batch and begins a new set.
func (c *changes) pack() (store.Batch, error) {
	batch := store.Batch{Puts: c.raw, Events: c.events}
	for _, k := range c.order {
		put := store.Put{Kind: k.kind, Key: k.key}
		if record := c.records[k]; record != nil {
			if app, ok := record.(*storev1.App); ok {
				record = withoutVersions(app)
			}
			raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(record)
			if err != nil {
				return batch, fmt.Errorf("encode the %s record %q: %w", k.kind, k.key, err)
			}
			put.Value = raw
		}
		batch.Puts = append(batch.Puts, put)
	}
	*c = changes{}
	return batch, nil
}
