package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Limits of a file. docs/design/limits.md lists them too.
const (
	// maxBytes is more than any manifest that a person wrote.
	maxBytes = 1 << 20
	// maxErrors is how many mistakes of a file are reported. A file with more was not written for this program.
	maxErrors = 64
	// maxMessage is the largest message in bytes. Messages quote parts of the file.
	maxMessage = 512
)

// Error is one mistake.
type Error struct {
	// Line counts from 1; zero is the file as a whole.
	Line int
	// Column counts the line's characters from 1; zero where it is not known.
	Column int
	// Message is one sentence.
	Message string
}

// Error names the column in the first line only: JSON often has no other line.
func (e Error) Error() string {
	switch {
	case e.Line == 0:
		return e.Message
	case e.Line == 1 && e.Column > 1:
		return fmt.Sprintf("line 1, column %d: %s", e.Column, e.Message)
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Message)
}

// Errors are the mistakes of a file, at least one, by line. If there are more than maxErrors, the last Error says so.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// A rule decodes one value, or records what is wrong with it.
type rule func(*yaml.Node)

// A fields has a rule for each key that a mapping may have.
type fields map[string]rule

// decoder owns the mistakes that were found in a file. Its methods decode what all kinds of files are made of. The functions for the
// objects of one kind are built from them.
type decoder struct {
	errors Errors
	// failed has the values with a mistake.
	failed map[*yaml.Node]bool
}

// fail records a mistake in a value. A message that is too long is cut in the middle, because the advice is at its end.
func (d *decoder) fail(n *yaml.Node, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if len(message) > maxMessage {
		const half = maxMessage / 2
		message = strings.ToValidUTF8(message[:half], "") + " … " + strings.ToValidUTF8(message[len(message)-half:], "")
	}
	d.errors = append(d.errors, Error{Line: n.Line, Column: n.Column, Message: message})
	if d.failed == nil {
		d.failed = map[*yaml.Node]bool{}
	}
	d.failed[n] = true
}

// mistakes is how many were found so far.
func (d *decoder) mistakes() int { return len(d.errors) }

// full reports whether there are too many mistakes to continue.
func (d *decoder) full() bool { return len(d.errors) > maxErrors }

func (d *decoder) err() error {
	if len(d.errors) == 0 {
		return nil
	}
	all := slices.Clone(d.errors)
	slices.SortStableFunc(all, func(a, b Error) int { return a.Line - b.Line })
	if d.full() {
		all = append(all[:maxErrors], Error{Message: fmt.Sprintf("the file has more than %d mistakes", maxErrors)})
	}
	return all
}

// failedIn reports whether n or a value in it has a mistake. Consequences of that are not reported.
func (d *decoder) failedIn(n *yaml.Node) bool {
	return d.failed[n] || slices.ContainsFunc(n.Content, d.failedIn)
}

// document returns the root of a file with exactly one document, or nil.
func (d *decoder) document(data []byte, what string) *yaml.Node {
	whole := &yaml.Node{}
	if len(data) > maxBytes {
		d.fail(whole, "the file has more than %d bytes, which is too much for %s", maxBytes, what)
		return nil
	}
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	if mistake := notText(data, what); mistake != nil {
		d.errors = append(d.errors, *mistake)
		return nil
	}
	data = jsonAsYAML(data)
	reader := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := reader.Decode(&document); {
	case errors.Is(err, io.EOF):
		d.fail(whole, "the file is empty")
		return nil
	case err != nil:
		d.errors = append(d.errors, syntaxError(data, err))
		return nil
	}
	if err := reader.Decode(&second); err != nil && !errors.Is(err, io.EOF) {
		d.errors = append(d.errors, syntaxError(data, err))
		return nil
	} else if err == nil {
		d.fail(&second, "the file has more than one document; a file is %s", what)
		return nil
	}
	root := document.Content[0]
	if !d.plain(root) {
		return nil
	}
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		d.fail(whole, "the file is empty")
		return nil
	}
	return root
}

// plain refuses anchors and aliases: with them a small file can stand for a huge one.
func (d *decoder) plain(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		d.fail(n, "anchors and aliases are not supported; write the value out")
		return false
	}
	for _, child := range n.Content {
		if !d.plain(child) {
			return false
		}
	}
	return true
}

// entries calls each for every entry of a mapping. It refuses other values and duplicate keys.
func (d *decoder) entries(n *yaml.Node, what string, each func(name string, key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, "%s must be a mapping of keys to values, not %s", what, kindOf(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content) && !d.full(); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.fail(key, "a key of %s must be a word, not %s", what, kindOf(key))
			continue
		}
		if first, twice := seen[key.Value]; twice {
			d.fail(key, "key %q is given twice; the first is in line %d", key.Value, first)
			continue
		}
		seen[key.Value] = key.Line
		each(key.Value, key, value)
	}
}

// object decodes a mapping with known keys and returns the values of those that are present.
func (d *decoder) object(n *yaml.Node, what string, known fields) map[string]*yaml.Node {
	present := map[string]*yaml.Node{}
	d.entries(n, what, func(name string, key, value *yaml.Node) {
		read, ok := known[name]
		switch {
		case !ok:
			d.fail(key, "unknown key %q%s", name, suggest(name, keys(known)))
		case value.Kind == yaml.ScalarNode && value.Tag == "!!null":
			present[name] = value
			d.fail(key, "%s has no value; give it one or remove the key", name)
		default:
			present[name] = value
			read(value)
		}
	})
	return present
}

func (d *decoder) require(n *yaml.Node, present map[string]*yaml.Node, what string, names ...string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for _, name := range names {
		if present[name] == nil {
			d.fail(n, "%s has no %s", what, name)
		}
	}
}

func (d *decoder) list(n *yaml.Node, what string, each rule) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n, "%s must be a list, not %s", what, kindOf(n))
		return
	}
	for _, item := range n.Content {
		if d.full() {
			return
		}
		each(item)
	}
}

// text decodes a text that passes every check.
func (d *decoder) text(what string, into *string, checks ...func(string) error) rule {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			d.fail(n, "%s must be a text, not %s", what, kindOf(n))
			return
		}
		for _, check := range checks {
			if err := check(n.Value); err != nil {
				d.fail(n, "%v", err)
				return
			}
		}
		*into = n.Value
	}
}

func (d *decoder) texts(what string, into *[]string) rule {
	return func(n *yaml.Node) {
		d.list(n, what, func(n *yaml.Node) {
			var text string
			d.text("an item of "+what, &text)(n)
			*into = append(*into, text)
		})
	}
}

func (d *decoder) integer(what string, low, high int64, set func(int64)) rule {
	return func(n *yaml.Node) {
		value, err := strconv.ParseInt(n.Value, 10, 64)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil {
			d.fail(n, "%s must be a whole number, not %s", what, kindOf(n))
			return
		}
		if value < low || value > high {
			d.fail(n, "%s must be between %d and %d, but is %d", what, low, high, value)
			return
		}
		set(value)
	}
}

func (d *decoder) number(what string, low, high float64, into *float64) rule {
	return func(n *yaml.Node) {
		value, err := strconv.ParseFloat(strings.TrimSuffix(n.Value, "%"), 64)
		if n.Kind != yaml.ScalarNode || err != nil {
			d.fail(n, "%s must be a number, not %s", what, kindOf(n))
			return
		}
		if !(value >= low && value <= high) {
			d.fail(n, "%s must be between %g and %g, but is %s", what, low, high, n.Value)
			return
		}
		*into = value
	}
}

func (d *decoder) flag(what string, into *bool) rule {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			d.fail(n, "%s must be true or false, not %s", what, kindOf(n))
			return
		}
		*into = strings.EqualFold(n.Value, "true")
	}
}

func (d *decoder) duration(what string, into **durationpb.Duration) rule {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode {
			d.fail(n, "%s must be a duration as in 10s or 5m, not %s", what, kindOf(n))
			return
		}
		value, err := time.ParseDuration(n.Value)
		switch {
		case err != nil && longDuration.MatchString(n.Value):
			// It is a duration, but longer than any limit. The check of the whole spec names the limit.
			*into = longestDuration(n.Value)
		case err != nil:
			d.fail(n, "%s must be a duration as in 500ms, 10s or 5m, not %q", what, beginning(n.Value))
		case value < 0:
			d.fail(n, "%s must not be negative, but is %s", what, beginning(n.Value))
		default:
			*into = durationpb.New(value)
		}
	}
}

// longDuration is a duration of whole units, of which time.ParseDuration reads those of up to 292 years.
var longDuration = regexp.MustCompile(`^\+?([0-9]+)(h|m|s|ms|us|µs|ns)(?:[0-9]+(?:\.[0-9]+)?(?:h|m|s|ms|us|µs|ns))*$`)

// longestDuration decodes the first unit of a duration that is too long for time.ParseDuration. The result is at most what a
// message can hold.
func longestDuration(text string) *durationpb.Duration {
	const most = 315_576_000_000 // seconds, which are 10,000 years
	parts := longDuration.FindStringSubmatch(text)
	count, err := strconv.ParseFloat(parts[1], 64)
	unit, _ := time.ParseDuration("1" + parts[2])
	seconds := count * unit.Seconds()
	if err != nil || seconds > most {
		seconds = most
	}
	return &durationpb.Duration{Seconds: max(int64(seconds), int64(math.MaxInt64/time.Second)+1)}
}

// quantity decodes an amount of a resource that is more than 0.
func (d *decoder) quantity(what string, parse func(string) (int64, error), into *int64) rule {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode {
			d.fail(n, "%s must be an amount, not %s", what, kindOf(n))
			return
		}
		value, err := parse(n.Value)
		switch {
		case err != nil:
			d.fail(n, "%s: %v", what, err)
		case value == 0:
			d.fail(n, "%s must be more than 0", what)
		default:
			*into = value
		}
	}
}

func choice[T any](d *decoder, what string, choices map[string]T, into *T) rule {
	return func(n *yaml.Node) {
		value, ok := choices[n.Value]
		if n.Kind != yaml.ScalarNode || !ok {
			d.fail(n, "%s must be one of %s, not %s", what, strings.Join(keys(choices), ", "), kindOf(n))
			return
		}
		*into = value
	}
}

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	}
	return strconv.Quote(beginning(n.Value))
}

// shownLetters is how many characters of a value a message quotes. A file that is no manifest may be a single long value.
const shownLetters = 60

// beginning is the part of a text that a message quotes.
func beginning(text string) string {
	seen := 0
	for i := range text {
		if seen++; seen > shownLetters {
			return text[:i] + "…"
		}
	}
	return text
}

func keys[V any](of map[string]V) []string {
	names := make([]string, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// suggest is the hint for an unknown key: the most similar known one, or all if there are few.
func suggest(name string, known []string) string {
	best, distance := "", len(name)/3+1
	if len(name) > 64 {
		return ""
	}
	for _, candidate := range known {
		if len(name) >= 3 && len(candidate) > len(name) && strings.HasPrefix(strings.ToLower(candidate), strings.ToLower(name)) {
			return fmt.Sprintf("; did you mean %q?", candidate)
		}
		if n := editDistance(strings.ToLower(name), strings.ToLower(candidate)); n < distance {
			best, distance = candidate, n
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("; did you mean %q?", best)
	case len(known) <= 24:
		return fmt.Sprintf("; known are %s", strings.Join(known, ", "))
	}
	return ""
}

// editDistance counts the letters to add, drop, change or swap with their neighbour to make a into b: the optimal
// string alignment distance.
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
