package manifest

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// CheckKeys refuses the keys of a YAML text that have no field in the struct that it is to be read into, each with its
// line and the nearest key that there is. What is not YAML is left to whoever reads it.
func CheckKeys(data []byte, into any) error {
	var document yaml.Node
	if yaml.Unmarshal(data, &document) != nil || len(document.Content) == 0 {
		return nil
	}
	d := &decoder{}
	d.checkKeys(document.Content[0], reflect.TypeOf(into))
	return d.err()
}

var unmarshaler = reflect.TypeFor[yaml.Unmarshaler]()

func (d *decoder) checkKeys(n *yaml.Node, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case reflect.PointerTo(t).Implements(unmarshaler):
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for _, child := range n.Content {
			d.checkKeys(child, t.Elem())
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		known := map[string]reflect.Type{}
		var names []string
		for field := range t.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			if name != "" && name != "-" {
				known[name] = field.Type
				names = append(names, name)
			}
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			switch field, ok := known[key.Value]; {
			case ok:
				d.checkKeys(value, field)
			case key.Tag != "!!merge":
				d.fail(key, "unknown key %q%s", key.Value, suggest(key.Value, names))
			}
		}
	}
}
