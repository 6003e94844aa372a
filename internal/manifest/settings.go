package manifest

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Setting is one entry of a daemon's configuration file.
type Setting struct {
	Name string
	// Values has one entry for a single value, several for a list, and NAME=VALUE for each entry of a mapping.
	Values []string
	Line   int
}

// ParseSettings reads a daemon's configuration file: a mapping whose keys are among known. The error is of type Errors; the
// settings without a mistake are returned too.
func ParseSettings(data []byte, known []string) ([]Setting, error) {
	d := &decoder{}
	root := d.document(data, "a configuration")
	if root == nil || refuseOther(d, root, kind{marks: known}) {
		return nil, d.err()
	}
	var settings []Setting
	d.entries(root, "a configuration", func(name string, key, value *yaml.Node) {
		if !slices.Contains(known, name) {
			d.fail(key, "unknown key %q%s", name, suggest(name, known))
			return
		}
		setting, before := Setting{Name: name, Line: key.Line}, d.mistakes()
		switch value.Kind {
		case yaml.SequenceNode:
			d.texts(name, &setting.Values)(value)
		case yaml.MappingNode:
			d.entries(value, name, func(inner string, _, value *yaml.Node) {
				var text string
				d.text(inner, &text)(value)
				setting.Values = append(setting.Values, fmt.Sprintf("%s=%s", inner, text))
			})
		default:
			var text string
			d.text(name, &text)(value)
			setting.Values = []string{text}
		}
		if d.mistakes() == before {
			settings = append(settings, setting)
		}
	})
	return settings, d.err()
}
