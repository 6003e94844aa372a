package manifest

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonAsYAML converts JSON to YAML without changing the line or column of any value. It replaces what YAML does not accept: tabs
// between values, the escape of "/", and characters that are escaped as two surrogates. A text that becomes shorter is followed by
// blanks. Data that is not JSON is returned unchanged.
func jsonAsYAML(data []byte) []byte {
	if !json.Valid(data) {
		return data
	}
	out, inText, shorter := make([]byte, 0, len(data)), false, 0
	for i := 0; i < len(data); i++ {
		switch b := data[i]; {
		case b == '"':
			inText = !inText
			out = append(out, b)
			out = append(out, bytes.Repeat([]byte(" "), shorter)...)
			shorter = 0
		case !inText && (b == '\t' || b == '\r'):
			out = append(out, ' ')
		case inText && b == '\\' && data[i+1] == '/':
			i++
			out = append(out, '/')
			shorter++
		case inText && b == '\\' && data[i+1] == 'u':
			letter, length := escaped(data[i:])
			out = append(out, letter...)
			i += length - 1
			shorter += length - utf8.RuneCount(letter)
		case inText && b == '\\':
			i++
			out = append(out, b, data[i])
		default:
			out = append(out, b)
		}
	}
	return out
}

// escaped decodes an escape such as \u0041, or a pair of surrogates, and returns the character as YAML accepts it, and the number
// of bytes read.
func escaped(data []byte) (letter []byte, length int) {
	const one = len(`\u0000`)
	first := unit(data)
	if !utf16.IsSurrogate(first) {
		return data[:one], one
	}
	if len(data) >= 2*one && data[one] == '\\' && data[one+1] == 'u' {
		if whole := utf16.DecodeRune(first, unit(data[one:])); whole != '\uFFFD' {
			return []byte(string(whole)), 2 * one
		}
	}
	return []byte("\uFFFD"), one
}

func unit(data []byte) rune {
	n, _ := strconv.ParseUint(string(data[2:6]), 16, 32)
	return rune(n)
}
