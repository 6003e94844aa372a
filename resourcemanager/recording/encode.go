package recording

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"google.golang.org/protobuf/proto"
)

var (
	messageType = reflect.TypeFor[proto.Message]()
	timeType    = reflect.TypeFor[time.Time]()
)

// encode converts a value to what encoding/json can write: structs by their exported fields, messages in their binary form. It is
// deterministic. The value of an interface, such as an error, is written as text and cannot be decoded.
func encode(v reflect.Value) (any, error) {
	switch {
	case v.Type().Implements(messageType):
		if v.IsNil() {
			return nil, nil
		}
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(v.Interface().(proto.Message))
		return base64.StdEncoding.EncodeToString(raw), err
	case v.Type() == timeType:
		return v.Interface().(time.Time).UnixNano(), nil
	}
	switch v.Kind() {
	case reflect.Interface:
		if v.IsNil() {
			return nil, nil
		}
		return fmt.Sprint(v.Interface()), nil
	case reflect.Pointer:
		if v.IsNil() {
			return nil, nil
		}
		return encode(v.Elem())
	case reflect.Struct:
		fields := map[string]any{}
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if !field.IsExported() || v.Field(i).IsZero() {
				continue
			}
			encoded, err := encode(v.Field(i))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", field.Name, err)
			}
			fields[field.Name] = encoded
		}
		return fields, nil
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return base64.StdEncoding.EncodeToString(bytesOf(v)), nil
		}
		items := make([]any, v.Len())
		for i := range items {
			var err error
			if items[i], err = encode(v.Index(i)); err != nil {
				return nil, err
			}
		}
		return items, nil
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64:
		return v.Interface(), nil
	}
	return nil, fmt.Errorf("a recording has no place for a %v", v.Type())
}

func bytesOf(v reflect.Value) []byte {
	raw := make([]byte, v.Len())
	reflect.Copy(reflect.ValueOf(raw), v)
	return raw
}

// decode is the reverse of encode for a value of the same type.
func decode(raw json.RawMessage, into reflect.Value) error {
	if string(raw) == "null" {
		return nil
	}
	switch {
	case into.Type().Implements(messageType):
		encoded, err := readBytes(raw)
		if err != nil {
			return err
		}
		into.Set(reflect.New(into.Type().Elem()))
		return proto.Unmarshal(encoded, into.Interface().(proto.Message))
	case into.Type() == timeType:
		var nanos int64
		if err := json.Unmarshal(raw, &nanos); err != nil {
			return err
		}
		into.Set(reflect.ValueOf(time.Unix(0, nanos)))
		return nil
	}
	switch into.Kind() {
	case reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		return decode(raw, into.Elem())
	case reflect.Struct:
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			return err
		}
		for name, value := range fields {
			field := into.FieldByName(name)
			if !field.IsValid() {
				return fmt.Errorf("a %v has no field %s", into.Type(), name)
			}
			if err := decode(value, field); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	case reflect.Slice, reflect.Array:
		return decodeItems(raw, into)
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64:
		return json.Unmarshal(raw, into.Addr().Interface())
	}
	return fmt.Errorf("a %v cannot be read back", into.Type())
}

func decodeItems(raw json.RawMessage, into reflect.Value) error {
	if into.Type().Elem().Kind() == reflect.Uint8 {
		decoded, err := readBytes(raw)
		if err != nil {
			return err
		}
		if into.Kind() == reflect.Slice {
			into.Set(reflect.MakeSlice(into.Type(), len(decoded), len(decoded)))
		}
		if reflect.Copy(into, reflect.ValueOf(decoded)) != len(decoded) {
			return fmt.Errorf("%d bytes are too many for a %v", len(decoded), into.Type())
		}
		return nil
	}
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return err
	}
	into.Set(reflect.MakeSlice(into.Type(), len(items), len(items)))
	for i, item := range items {
		if err := decode(item, into.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

func readBytes(raw json.RawMessage) ([]byte, error) {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(text)
}
