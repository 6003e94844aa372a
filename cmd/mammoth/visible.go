package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// visible escapes every character that would move the cursor, change colours, begin another line or turn the writing
// direction, as in \x1b. Names, reasons and logs may contain them, and a terminal interprets them.
func visible(text string) string {
	if strings.IndexFunc(text, hidden) < 0 && utf8.ValidString(text) {
		return text
	}
	var out strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			fmt.Fprintf(&out, `\x%02x`, text[i])
		case r == '\n':
			out.WriteString(`\n`)
		case r == '\r':
			out.WriteString(`\r`)
		case !hidden(r):
			out.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&out, `\x%02x`, r)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

// hidden are control characters except the tab, line and paragraph separators, and marks of the writing direction.
func hidden(r rune) bool {
	return unicode.IsControl(r) && r != '\t' || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}

// visibleMessage escapes every text of a message, also map keys.
func visibleMessage(message proto.Message) { visibleFields(message.ProtoReflect()) }

func visibleFields(message protoreflect.Message) {
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			visibleMap(field, value.Map())
		case field.IsList():
			list := value.List()
			for i := range list.Len() {
				list.Set(i, visibleValue(field, list.Get(i)))
			}
		default:
			message.Set(field, visibleValue(field, value))
		}
		return true
	})
}

func visibleMap(field protoreflect.FieldDescriptor, entries protoreflect.Map) {
	entries.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		value = visibleValue(field.MapValue(), value)
		if text, ok := key.Interface().(string); ok && visible(text) != text {
			entries.Clear(key)
			key = protoreflect.ValueOfString(visible(text)).MapKey()
		}
		entries.Set(key, value)
		return true
	})
}

func visibleValue(field protoreflect.FieldDescriptor, value protoreflect.Value) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(visible(value.String()))
	case protoreflect.MessageKind:
		visibleFields(value.Message())
	}
	return value
}

// isTerminal reports whether a person reads the output.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
