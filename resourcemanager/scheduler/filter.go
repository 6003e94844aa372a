package scheduler

import (
	"slices"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler/grid"
)

// filter is a set of constraints and avoided nodes. Asks with equal ones share it.
type filter struct {
	key         string
	constraints []Constraint
	avoid       []id.Node
	allowed     grid.Bitmap
	shapes      int
}

func (f *filter) update(n *node, words int) {
	if f.allows(n) {
		f.allowed.Set(n.slot, words)
	} else {
		f.allowed.Clear(n.slot)
	}
}

func (f *filter) allows(n *node) bool {
	return f.broken(n) == nil && !slices.Contains(f.avoid, n.spec.Name)
}

// broken is the first constraint that a node breaks; nil is none.
func (f *filter) broken(n *node) *Constraint {
	for i := range f.constraints {
		if have, known := n.attributes.value(f.constraints[i].Attribute); !f.constraints[i].Matches(have, known) {
			return &f.constraints[i]
		}
	}
	return nil
}

// filters are the filters of all asks.
type filters struct {
	// byKey finds a filter by the text of its constraints and avoided nodes, list has them in the order in which they came.
	byKey map[string]*filter
	list  []*filter
	// text is scratch space for a key.
	text []byte
}

// drop drops the filters that no shape has.
func (fs *filters) drop() {
	fs.list = slices.DeleteFunc(fs.list, func(f *filter) bool {
		if f.shapes == 0 {
			delete(fs.byKey, f.key)
		}
		return f.shapes == 0
	})
}

// filterFor finds the filter of an ask, nil if it takes any node.
func (fl *fleet) filterFor(spec *Ask) *filter {
	if len(spec.Constraints) == 0 && len(spec.Avoid) == 0 {
		return nil
	}
	fl.filters.text = fl.filters.text[:0]
	for i := range spec.Constraints {
		fl.filters.text = append(append(fl.filters.text, spec.Constraints[i].String()...), 0)
	}
	fl.filters.text = append(fl.filters.text, 1)
	for _, name := range spec.Avoid {
		fl.filters.text = append(append(fl.filters.text, name...), 0)
	}
	if f := fl.filters.byKey[string(fl.filters.text)]; f != nil {
		return f
	}
	f := &filter{key: string(fl.filters.text), constraints: spec.Constraints, avoid: spec.Avoid}
	fl.filters.byKey[f.key] = f
	fl.filters.list = append(fl.filters.list, f)
	for _, n := range fl.nodes {
		f.update(n, fl.grid.Words())
	}
	return f
}
