package manifest

import (
	"bytes"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// explained has plainer words for frequent errors of the YAML library. Where the library gives the line in which something begins,
// the text is about that line.
var explained = map[string]string{
	"did not find expected ',' or '}'": `the "{" of this line is not closed, or a comma is missing behind an entry of it`,
	"did not find expected ',' or ']'": `the "[" of this line is not closed, or a comma is missing behind an entry of it`,
	"found unexpected end of stream":   "the quotation mark that opens in this line is not closed",
	badKey:                             "this line is not indented like those before it, or there is text after a value, or a bracket too many",
	badItem:                            `this line is not indented like the list before it, or has no "-"`,
	"mapping values are not allowed in this context":               `a ":" is not allowed here; check the indentation, and quote a text that contains a colon`,
	"could not find expected ':'":                                  `a key has no ":" after it`,
	"found character that cannot start any token":                  "no value can begin with this character; indent with spaces instead of tabs, and quote a text that begins with @, ` or %",
	"found a tab character that violates indentation":              "indent with spaces instead of tabs",
	"found a tab character where an indentation space is expected": "indent with spaces instead of tabs",
}

const (
	badKey  = "did not find expected key"
	badItem = "did not find expected '-' indicator"
)

// byteOrderMark is what some editors put at the start of UTF-8 files.
const byteOrderMark = "\ufeff"

// notText reports the first byte that cannot be in a text file; nil if there is none.
func notText(data []byte, what string) *Error {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return &Error{Message: fmt.Sprintf("the file is UTF-16, but %s must be UTF-8; save it as UTF-8", what)}
	}
	line, start := 1, 0
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		fault := ""
		switch {
		case r == utf8.RuneError && size == 1:
			fault = fmt.Sprintf("the byte %#x is not UTF-8, and %s is", data[i], what)
		case r == 0:
			fault = fmt.Sprintf("there is a NUL character here, but %s is a text; check that the file is complete", what)
		case unicode.IsControl(r) && !strings.ContainsRune("\t\n\r\u0085", r):
			fault = fmt.Sprintf(`the control character %U is here; write it as "\u%04x", in quotation marks`, r, r)
		}
		if fault != "" {
			return &Error{Line: line, Column: utf8.RuneCount(data[start:i]) + 1, Message: fault}
		}
		if i += size; r == '\n' {
			line, start = line+1, i
		}
	}
	return nil
}

// syntaxError converts the library's error for data, with the line in which the problem is.
func syntaxError(data []byte, err error) Error {
	line, problem := problemOf(err)
	// If something begins in the first line, the library gives the line of its end. So the data is parsed again with a line before
	// it.
	if shifted, same := problemOf(parse(append([]byte("#\n"), data...))); same == problem && shifted > 1 {
		line = shifted - 1
	}
	if problem == badKey || problem == badItem {
		line = lineWith(data, problem)
	}
	if words, ok := explained[problem]; ok {
		problem = words
	}
	// If something is missing at the end, the library may give the line after the last.
	line = min(line, 1+bytes.Count(bytes.TrimRight(data, "\n"), []byte("\n")))
	return Error{Line: line, Message: "this is not YAML: " + problem}
}

func parse(data []byte) error {
	var document yaml.Node
	return yaml.NewDecoder(bytes.NewReader(data)).Decode(&document)
}

// fromParser are the prefixes of errors of the library's parser, which counts lines from 0. Its scanner counts from 1.
var fromParser = []string{"did not find expected ',' or", badKey, badItem, "did not find expected node content", "did not find expected <document start>", "found undefined tag handle"}

// problemOf takes the YAML library's "yaml: line 3: did not find expected key" apart. The line counts from 1, and is zero
// where it is not known.
func problemOf(err error) (line int, problem string) {
	if err == nil {
		return 0, ""
	}
	problem = strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(problem, "line "); ok {
		if number, words, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				line, problem = n, words
			}
		}
	}
	for _, begin := range fromParser {
		if strings.HasPrefix(problem, begin) {
			return line + 1, problem
		}
	}
	return line, problem
}

// lineWith is the first line with a problem. For some problems the library gives the line in which the surrounding block begins.
func lineWith(data []byte, problem string) int {
	lines := bytes.SplitAfter(data, []byte("\n"))
	return 1 + sort.Search(len(lines)-1, func(i int) bool {
		_, found := problemOf(parse(bytes.Join(lines[:i+1], nil)))
		return found == problem
	})
}
