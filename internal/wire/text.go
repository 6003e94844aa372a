package wire

import (
	"strings"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that Codec wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Replacement replaces bytes that are not UTF-8.
const Replacement = "�"

// Text replaces bytes that are not UTF-8, which no message can have.
func Text(text string) string { return strings.ToValidUTF8(text, Replacement) }

// Codec is gRPC's own codec, except that it replaces what is not UTF-8 instead of refusing the message: the output of a
// container or an engine must not prevent a report. It is for senders of such text.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2("proto")} }

type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	out, err := c.CodecV2.Marshal(v)
	message, ok := v.(proto.Message)
	if err == nil || !ok {
		return out, err
	}
	readable := proto.Clone(message) // the message may be shared
	if !makeReadable(readable.ProtoReflect()) {
		return nil, err
	}
	return c.CodecV2.Marshal(readable)
}

// makeReadable replaces what is not UTF-8 in all texts of a message, and reports whether there was any.
func makeReadable(message protoreflect.Message) bool {
	changed := false
	text := func(value protoreflect.Value) (protoreflect.Value, bool) {
		readable := Text(value.String())
		if readable == value.String() {
			return value, false
		}
		changed = true
		return protoreflect.ValueOfString(readable), true
	}
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			makeMapReadable(field, value.Map(), text, &changed)
		case field.IsList():
			list := value.List()
			for i := range list.Len() {
				switch field.Kind() {
				case protoreflect.StringKind:
					if readable, ok := text(list.Get(i)); ok {
						list.Set(i, readable)
					}
				case protoreflect.MessageKind:
					changed = makeReadable(list.Get(i).Message()) || changed
				}
			}
		case field.Kind() == protoreflect.StringKind:
			if readable, ok := text(value); ok {
				message.Set(field, readable)
			}
		case field.Kind() == protoreflect.MessageKind:
			changed = makeReadable(value.Message()) || changed
		}
		return true
	})
	return changed
}

func makeMapReadable(field protoreflect.FieldDescriptor, values protoreflect.Map, text func(protoreflect.Value) (protoreflect.Value, bool), changed *bool) {
	values.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		switch field.MapValue().Kind() {
		case protoreflect.StringKind:
			value, _ = text(value)
		case protoreflect.MessageKind:
			*changed = makeReadable(value.Message()) || *changed
		}
		if field.MapKey().Kind() == protoreflect.StringKind {
			if readable, ok := text(key.Value()); ok {
				values.Clear(key)
				key = readable.MapKey()
			}
		}
		values.Set(key, value)
		return true
	})
}
