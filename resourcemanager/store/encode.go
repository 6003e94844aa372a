package store

import (
	"encoding/binary"
	"errors"
)

// encode writes a batch as a record of the journal, whose head the journal writes.
func (b Batch) encode() []byte {
	size := headSize + 2*binary.MaxVarintLen64
	for _, put := range b.Puts {
		size += len(put.Kind) + len(put.Key) + len(put.Value) + 3*binary.MaxVarintLen32
	}
	for _, event := range b.Events {
		size += len(event.Value) + 2*binary.MaxVarintLen64
	}
	raw := binary.AppendUvarint(make([]byte, headSize, size), uint64(len(b.Puts)))
	for _, put := range b.Puts {
		raw = appendBytes(raw, []byte(put.Kind))
		raw = appendBytes(raw, []byte(put.Key))
		if put.Value == nil {
			raw = append(raw, 0)
			continue
		}
		raw = appendBytes(append(raw, 1), put.Value)
	}
	raw = binary.AppendUvarint(raw, uint64(len(b.Events)))
	for _, event := range b.Events {
		raw = binary.AppendVarint(raw, event.Sequence)
		raw = appendBytes(raw, event.Value)
	}
	return raw
}

func appendBytes(raw, value []byte) []byte {
	return append(binary.AppendUvarint(raw, uint64(len(value))), value...)
}

var errMalformed = errors.New("it is malformed")

// decodeBatch reads what encode wrote. The batch shares its bytes.
func decodeBatch(raw []byte) (Batch, error) {
	r := &reader{rest: raw}
	var b Batch
	for range r.count() {
		put := Put{Kind: Kind(r.bytes()), Key: string(r.bytes())}
		if r.count() == 1 {
			put.Value = r.bytes()
		}
		if r.failed {
			return Batch{}, errMalformed
		}
		b.Puts = append(b.Puts, put)
	}
	for range r.count() {
		event := Event{Sequence: r.number(), Value: r.bytes()}
		if r.failed {
			return Batch{}, errMalformed
		}
		b.Events = append(b.Events, event)
	}
	if r.failed || len(r.rest) > 0 {
		return Batch{}, errMalformed
	}
	return b, nil
}

// reader reads until something is not as it should be, and nothing from then on.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) count() uint64 {
	n, length := binary.Uvarint(r.rest)
	if !r.skip(length) {
		return 0
	}
	return n
}

func (r *reader) number() int64 {
	n, length := binary.Varint(r.rest)
	if !r.skip(length) {
		return 0
	}
	return n
}

func (r *reader) bytes() []byte {
	n := r.count()
	if n > uint64(len(r.rest)) {
		r.failed = true
	}
	if r.failed {
		return nil
	}
	value := r.rest[:n:n]
	r.rest = r.rest[n:]
	return value
}

func (r *reader) skip(length int) bool {
	if length <= 0 || r.failed {
		r.failed = true
		return false
	}
	r.rest = r.rest[length:]
	return true
}
