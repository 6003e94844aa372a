package records

import (
	"maps"
	"slices"
)

// source returns changes in the order of their keys.
type source interface {
	read() (change Change, ok bool, err error)
}

// merge calls each once for every key, with the value of the newest source, which is the last one. Deletions are included.
func merge(sources []source, each func(key string, value []byte) error) error {
	heads := make([]*Change, len(sources))
	for i := range sources {
		if err := advance(sources, heads, i); err != nil {
			return err
		}
	}
	for {
		newest := -1
		for i, head := range heads {
			if head != nil && (newest < 0 || head.Key <= heads[newest].Key) {
				newest = i
			}
		}
		if newest < 0 {
			return nil
		}
		change := *heads[newest]
		for i, head := range heads {
			if head != nil && head.Key == change.Key {
				if err := advance(sources, heads, i); err != nil {
					return err
				}
			}
		}
		if err := each(change.Key, change.Value); err != nil {
			return err
		}
	}
}

func advance(sources []source, heads []*Change, i int) error {
	change, ok, err := sources[i].read()
	heads[i] = nil
	if ok {
		heads[i] = &change
	}
	return err
}

// table is the result of commits that are in no run.
type table map[string][]byte

func (t table) apply(changes []Change) {
	for _, change := range changes {
		t[change.Key] = change.Value
	}
}

// between returns the changes from one key on, and before another if that is not empty.
func (t table) between(from, to string) *tableCursor {
	var changes []Change
	for key, value := range t {
		if key >= from && (to == "" || key < to) {
			changes = append(changes, Change{key, value})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return &tableCursor{changes}
}

func (t table) clone() table { return maps.Clone(t) }

type tableCursor struct{ rest []Change }

func (c *tableCursor) read() (Change, bool, error) {
	if len(c.rest) == 0 {
		return Change{}, false, nil
	}
	change := c.rest[0]
	c.rest = c.rest[1:]
	return change, true, nil
}
