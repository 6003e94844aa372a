package snapshot

import (
	"iter"
	"slices"
)

// width is how many items a node of a tree has at most.
const width = 64

// tree is a sorted set that is never changed: with and without return another tree, which shares all but a few nodes with it. A change
// costs O(log n). compare orders the items.
type tree[V any] struct {
	root    *treeNode[V]
	size    int
	compare func(a, b V) int
}

// treeNode is a leaf with items, or a branch with children. Of a branch, items[i] is not greater than what is in children[i]; items[0]
// does not count.
type treeNode[V any] struct {
	items    []V
	children []*treeNode[V]
}

// with is the tree with an item, which takes the place of the one that is equal to it.
func (t tree[V]) with(item V) tree[V] {
	if t.root == nil {
		t.root, t.size = &treeNode[V]{items: []V{item}}, 1
		return t
	}
	left, right, added := t.insert(t.root, item)
	t.root = left
	if right != nil {
		t.root = &treeNode[V]{items: []V{left.items[0], right.items[0]}, children: []*treeNode[V]{left, right}}
	}
	if added {
		t.size++
	}
	return t
}

// insert returns the node with the item; if that became too wide, its two halves.
func (t tree[V]) insert(n *treeNode[V], item V) (left, right *treeNode[V], added bool) {
	if n.children == nil {
		i, found := slices.BinarySearchFunc(n.items, item, t.compare)
		if found {
			items := slices.Clone(n.items)
			items[i] = item
			return &treeNode[V]{items: items}, nil, false
		}
		left, right = (&treeNode[V]{items: inserted(n.items, i, item)}).split()
		return left, right, true
	}
	i := t.childOf(n, item)
	child, more, added := t.insert(n.children[i], item)
	changed := &treeNode[V]{items: n.items, children: slices.Clone(n.children)}
	changed.children[i] = child
	if more != nil {
		changed.items = inserted(n.items, i+1, more.items[0])
		changed.children = inserted(changed.children, i+1, more)
	}
	left, right = changed.split()
	return left, right, added
}

func inserted[E any](items []E, at int, item E) []E {
	more := make([]E, 0, len(items)+1)
	more = append(more, items[:at]...)
	more = append(more, item)
	return append(more, items[at:]...)
}

// split returns a node, or its two halves if it is too wide.
func (n *treeNode[V]) split() (left, right *treeNode[V]) {
	if len(n.items) <= width {
		return n, nil
	}
	middle := len(n.items) / 2
	left, right = &treeNode[V]{items: n.items[:middle:middle]}, &treeNode[V]{items: n.items[middle:]}
	if n.children != nil {
		left.children, right.children = n.children[:middle:middle], n.children[middle:]
	}
	return left, right
}

// childOf is the index of the child that an item belongs to.
func (t tree[V]) childOf(n *treeNode[V], item V) int {
	i, found := slices.BinarySearchFunc(n.items[1:], item, t.compare)
	if found {
		i++
	}
	return i
}

// without is the tree without the item that is equal to one.
func (t tree[V]) without(item V) tree[V] {
	if _, found := t.find(item); !found {
		return t
	}
	t.root = t.remove(t.root, item)
	t.size--
	for t.root != nil && len(t.root.children) == 1 {
		t.root = t.root.children[0]
	}
	return t
}

// remove returns the node without the item, which is in it; nil if nothing is left.
func (t tree[V]) remove(n *treeNode[V], item V) *treeNode[V] {
	if n.children == nil {
		if len(n.items) == 1 {
			return nil
		}
		i, _ := slices.BinarySearchFunc(n.items, item, t.compare)
		return &treeNode[V]{items: removed(n.items, i)}
	}
	i := t.childOf(n, item)
	child := t.remove(n.children[i], item)
	if child == nil {
		if len(n.children) == 1 {
			return nil
		}
		return &treeNode[V]{items: removed(n.items, i), children: removed(n.children, i)}
	}
	changed := &treeNode[V]{items: n.items, children: slices.Clone(n.children)}
	changed.children[i] = child
	if len(child.items) < width/4 {
		changed.merge(max(1, i))
	}
	return changed
}

func removed[E any](items []E, at int) []E {
	return slices.Concat(items[:at], items[at+1:])
}

// merge makes one child of the one at an index and the one before it, if they are narrow enough.
func (n *treeNode[V]) merge(at int) {
	if at >= len(n.children) {
		return
	}
	left, right := n.children[at-1], n.children[at]
	if len(left.items)+len(right.items) > width {
		return
	}
	both := &treeNode[V]{items: slices.Concat(left.items, right.items)}
	if left.children != nil {
		both.items[len(left.items)] = n.items[at]
		both.children = slices.Concat(left.children, right.children)
	}
	n.items, n.children = removed(n.items, at), removed(n.children, at)
	n.children[at-1] = both
}

// find is the item that is equal to one.
func (t tree[V]) find(item V) (found V, ok bool) {
	n := t.root
	if n == nil {
		return found, false
	}
	for n.children != nil {
		n = n.children[t.childOf(n, item)]
	}
	if i, ok := slices.BinarySearchFunc(n.items, item, t.compare); ok {
		return n.items[i], true
	}
	return found, false
}

// all are the items in their order.
func (t tree[V]) all() iter.Seq[V] {
	return func(yield func(V) bool) {
		if t.root != nil {
			t.root.each(yield)
		}
	}
}

func (n *treeNode[V]) each(yield func(V) bool) bool {
	for _, child := range n.children {
		if !child.each(yield) {
			return false
		}
	}
	if n.children == nil {
		for _, item := range n.items {
			if !yield(item) {
				return false
			}
		}
	}
	return true
}

// after are the items that are greater than one, in their order.
func (t tree[V]) after(item V) iter.Seq[V] {
	return func(yield func(V) bool) {
		if t.root != nil {
			t.eachAfter(t.root, item, yield)
		}
	}
}

// beginningWith are the items that are greater than one, as long as they belong to it.
func (t tree[V]) beginningWith(item V, belongs func(V) bool) iter.Seq[V] {
	return func(yield func(V) bool) {
		t.after(item)(func(later V) bool { return belongs(later) && yield(later) })
	}
}

func (t tree[V]) eachAfter(n *treeNode[V], item V, yield func(V) bool) bool {
	if n.children == nil {
		i, found := slices.BinarySearchFunc(n.items, item, t.compare)
		if found {
			i++
		}
		for _, later := range n.items[i:] {
			if !yield(later) {
				return false
			}
		}
		return true
	}
	i := t.childOf(n, item)
	if !t.eachAfter(n.children[i], item, yield) {
		return false
	}
	for _, child := range n.children[i+1:] {
		if !child.each(yield) {
			return false
		}
	}
	return true
}
