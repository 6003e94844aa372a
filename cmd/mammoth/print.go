package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/wire"
)

// printer prints what a command has found, in the form of --output, and warns a person.
type printer struct {
	*globalFlags
	out, err io.Writer
}

// print writes an answer of the zone in the form of --output; table writes it for a person.
func (p *printer) print(message proto.Message, table func(io.Writer) error) error {
	switch p.output {
	case "json":
		raw, err := encodeJSON(message)
		if err != nil {
			return err
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, raw, "", "  "); err != nil {
			return fmt.Errorf("indent an answer: %w", err)
		}
		_, err = fmt.Fprintln(p.out, indented.String())
		return err
	case "yaml":
		raw, err := encodeYAML(message)
		if err != nil {
			return err
		}
		_, err = p.out.Write(raw)
		return err
	}
	return table(p.out)
}

// printOne writes one message of a stream: a JSON object on a line, a YAML document, or what line writes.
func (p *printer) printOne(message proto.Message, line func(io.Writer) error) error {
	switch p.output {
	case "json":
		raw, err := encodeJSON(message)
		if err != nil {
			return err
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, raw); err != nil {
			return fmt.Errorf("compact an answer: %w", err)
		}
		_, err = fmt.Fprintln(p.out, compact.String())
		return err
	case "yaml":
		raw, err := encodeYAML(message)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.out, "---\n%s", raw)
		return err
	}
	return line(p.out)
}

func encodeJSON(message proto.Message) ([]byte, error) {
	raw, err := wire.JSON.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode an answer: %w", err)
	}
	return escapeHidden(raw), nil
}

// escapeHidden escapes characters that JSON permits and a terminal interprets. They occur in strings only.
func escapeHidden(raw []byte) []byte {
	if bytes.IndexFunc(raw, hidden) < 0 {
		return raw
	}
	var out bytes.Buffer
	for _, r := range string(raw) {
		if hidden(r) && r != '\n' {
			fmt.Fprintf(&out, `\u%04x`, r)
			continue
		}
		out.WriteRune(r)
	}
	return out.Bytes()
}

// encodeYAML writes the same fields as JSON in the same order.
func encodeYAML(message proto.Message) ([]byte, error) {
	raw, err := encodeJSON(message)
	if err != nil {
		return nil, err
	}
	return yamlOf(raw)
}

// yamlOf turns JSON into YAML.
func yamlOf(raw []byte) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(raw, &document); err != nil {
		return nil, fmt.Errorf("turn an answer into YAML: %w", err)
	}
	plainStyle(&document)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&document); err != nil {
		return nil, fmt.Errorf("turn an answer into YAML: %w", err)
	}
	return out.Bytes(), encoder.Close()
}

// plainStyle removes JSON's brackets and quotes where YAML does not need them.
func plainStyle(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	for _, child := range n.Content {
		plainStyle(child)
	}
}

// table aligns columns.
type table struct{ *tabwriter.Writer }

func newTable(w io.Writer, header ...string) table {
	t := table{tabwriter.NewWriter(&lineTrimmer{out: w}, 0, 0, 2, ' ', 0)}
	if len(header) > 0 {
		t.row(toAny(header)...)
	}
	return t
}

// row writes one line; an empty cell is "-", so that columns can be counted.
func (t table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		texts[i] = visible(strings.ReplaceAll(fmt.Sprint(cell), "\t", " "))
		if texts[i] == "" && i < len(cells)-1 {
			texts[i] = "-"
		}
	}
	// A row without its last tab would end the column before it, and the rows below would be aligned apart.
	fmt.Fprintln(t, strings.Join(texts, "\t"))
}

// lineTrimmer removes the spaces at the ends of lines.
type lineTrimmer struct {
	out io.Writer
	// begun is the last line as far as it was written.
	begun []byte
}

// Write implements io.Writer.
func (t *lineTrimmer) Write(text []byte) (int, error) {
	t.begun = append(t.begun, text...)
	for {
		line, rest, whole := bytes.Cut(t.begun, []byte("\n"))
		if !whole {
			return len(text), nil
		}
		if _, err := fmt.Fprintf(t.out, "%s\n", bytes.TrimRight(line, " ")); err != nil {
			return 0, err
		}
		t.begun = rest
	}
}

func toAny(texts []string) []any {
	cells := make([]any, len(texts))
	for i, text := range texts {
		cells[i] = text
	}
	return cells
}

// word is an enum value for a person: RUNNING is running, BLUE_GREEN is blue-green, unspecified is empty.
func word(value interface {
	Number() protoreflect.EnumNumber
	String() string
},
) string {
	text := value.String()
	if strings.HasSuffix(text, "_UNSPECIFIED") {
		return ""
	}
	return strings.ReplaceAll(strings.ToLower(text), "_", "-")
}

// ago is how long ago something was: 12s, 5m, 3h, 2d.
func ago(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return short(max(0, time.Since(at.AsTime())))
}

// short formats a duration in its largest unit, two when the first is small.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 10*time.Minute && d%time.Minute >= time.Second:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// millis formats the duration of a phase.
func millis(ms int32) string {
	if ms < 10_000 {
		return fmt.Sprintf("%dms", ms)
	}
	return short(time.Duration(ms) * time.Millisecond)
}

// shortDigest is enough of a digest to distinguish it.
func shortDigest(digest string) string {
	if _, hex, ok := strings.Cut(digest, ":"); ok && len(hex) > 12 {
		return hex[:12]
	}
	return digest
}

func ratio(used, of int64, format func(int64) string) string {
	return format(used) + "/" + format(of)
}

// orDash is for text outside of tables.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

var (
	cores = resource.FormatCPU
	size  = resource.FormatBytes
)
