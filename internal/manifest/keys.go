package manifest

import (
	"math"
	"reflect"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// CheckFields checks that a YAML text can be decoded into a struct. It reports keys without a field, with the most similar key, and
// values of another kind than their field. what names the kind of file, as in "a scenario". The error is of type Errors.
func CheckFields(data []byte, what string, into any) error {
	d := &decoder{}
	if root := d.document(data, what); root != nil {
		checkFields(d, root, what, reflect.TypeOf(into))
	}
	return d.err()
}

var (
	unmarshaler = reflect.TypeFor[yaml.Unmarshaler]()
	instant     = reflect.TypeFor[time.Time]()
)

func checkFields(d *decoder, n *yaml.Node, what string, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case reflect.PointerTo(t).Implements(unmarshaler):
		if err := reflect.New(t).Interface().(yaml.Unmarshaler).UnmarshalYAML(n); err != nil {
			d.fail(n, "%s: %v", what, err)
		}
	case t == instant:
		if n.Decode(new(time.Time)) != nil {
			d.fail(n, "%s must be a time as in 2026-03-02T20:00:00Z, not %s", what, kindOf(n))
		}
	case t.Kind() == reflect.Slice:
		d.list(n, what, func(child *yaml.Node) { checkFields(d, child, "an item of "+what, t.Elem()) })
	case t.Kind() == reflect.Map:
		d.entries(n, what, func(name string, _, value *yaml.Node) { checkFields(d, value, name, t.Elem()) })
	case t.Kind() == reflect.Struct:
		known := fields{}
		for field := range t.Fields() {
			if name, _, _ := strings.Cut(field.Tag.Get("yaml"), ","); name != "" && name != "-" {
				known[name] = func(value *yaml.Node) { checkFields(d, value, name, field.Type) }
			}
		}
		d.object(n, what, known)
	default:
		checkScalar(d, n, what, t.Kind())
	}
}

func checkScalar(d *decoder, n *yaml.Node, what string, kind reflect.Kind) {
	var (
		flag  bool
		text  string
		float float64
	)
	switch kind {
	case reflect.Bool:
		d.flag(what, &flag)(n)
	case reflect.Int, reflect.Int64:
		d.integer(what, math.MinInt64, math.MaxInt64, func(int64) {})(n)
	case reflect.Uint64:
		d.integer(what, 0, math.MaxInt64, func(int64) {})(n)
	case reflect.Float64:
		d.number(what, -math.MaxFloat64, math.MaxFloat64, &float)(n)
	default:
		d.text(what, &text)(n)
	}
}

// Mentions reports whether a sentence contains a name as a whole word.
func Mentions(sentence, name string) bool {
	return regexp.MustCompile(`(^|[^\w-])` + regexp.QuoteMeta(name) + `($|[^\w-])`).MatchString(sentence)
}
