package scheduler

import (
	"maps"
	"slices"
	"strings"
)

// attributes are those of a node, in the order of their names. A node has few, and a map has room for eight: in a zone of many nodes that
// is memory for nothing.
type attributes []attribute

type attribute struct {
	name  string
	value Value
}

func attributesOf(values map[string]Value) attributes {
	list := make(attributes, 0, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		list = append(list, attribute{name, values[name]})
	}
	return list
}

// value is the value of an attribute, if there is one.
func (a attributes) value(name string) (Value, bool) {
	i, ok := slices.BinarySearchFunc(a, name, func(one attribute, name string) int { return strings.Compare(one.name, name) })
	if !ok {
		return Value{}, false
	}
	return a[i].value, true
}

// are reports whether these are all that there are.
func (a attributes) are(values map[string]Value) bool {
	return len(a) == len(values) && !slices.ContainsFunc(a, func(one attribute) bool {
		value, ok := values[one.name]
		return !ok || value != one.value
	})
}
