package recording

import (
	"encoding/json"
	"reflect"
)

// Encode is what stands in a recording for a value.
func Encode(value any) ([]byte, error) {
	encoded, err := encode(reflect.ValueOf(value))
	if err != nil {
		return nil, err
	}
	return json.Marshal(encoded)
}

// Decode reads it back.
func Decode(raw []byte, into reflect.Value) error { return decode(raw, into) }
