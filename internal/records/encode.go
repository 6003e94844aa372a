package records

import (
	"encoding/binary"
	"errors"
)

var errMalformed = errors.New("it is malformed")

// appendChange encodes one change: its key, and its value's length plus one; zero is a deletion.
func appendChange(raw []byte, key string, value []byte) []byte {
	raw = binary.AppendUvarint(raw, uint64(len(key)))
	raw = append(raw, key...)
	if value == nil {
		return binary.AppendUvarint(raw, 0)
	}
	raw = binary.AppendUvarint(raw, uint64(len(value))+1)
	return append(raw, value...)
}

// nextChange decodes one change. The value shares the bytes, and is nil for a deletion.
func nextChange(raw []byte) (change Change, rest []byte, err error) {
	key, rest, ok := cut(raw, 0)
	if !ok {
		return Change{}, nil, errMalformed
	}
	length, n := binary.Uvarint(rest)
	if n <= 0 {
		return Change{}, nil, errMalformed
	}
	if length == 0 {
		return Change{Key: string(key)}, rest[n:], nil
	}
	value, rest, ok := cut(rest, 1)
	if !ok {
		return Change{}, nil, errMalformed
	}
	return Change{Key: string(key), Value: value}, rest, nil
}

// cut decodes a length, minus less, and as many bytes.
func cut(raw []byte, less uint64) (value, rest []byte, ok bool) {
	length, n := binary.Uvarint(raw)
	if n <= 0 || length < less || length-less > uint64(len(raw)-n) {
		return nil, nil, false
	}
	end := n + int(length-less)
	return raw[n:end:end], raw[end:], true
}

func encodeChanges(raw []byte, changes []Change) []byte {
	for _, change := range changes {
		raw = appendChange(raw, change.Key, change.Value)
	}
	return raw
}

// decodeChanges decodes what encodeChanges wrote. The values share the bytes.
func decodeChanges(raw []byte) ([]Change, error) {
	var changes []Change
	for len(raw) > 0 {
		change, rest, err := nextChange(raw)
		if err != nil {
			return nil, err
		}
		changes, raw = append(changes, change), rest
	}
	return changes, nil
}

func sizeOf(changes []Change) int {
	size := 0
	for _, change := range changes {
		size += len(change.Key) + len(change.Value) + 2*binary.MaxVarintLen32
	}
	return size
}
