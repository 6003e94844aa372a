// Package heap is a heap whose items store their own index, so that an item whose rank changed can be moved.
// A Heap owns the order of its items; what they are belongs to its user.
package heap

// Ranked is an item of a heap. HeapIndex points to its index in the heap, -1 if it is in none.
type Ranked[T any] interface {
	Before(T) bool
	HeapIndex() *int32
}

// fanout is the number of children of an item. A flat heap reads fewer items, which are scattered in memory.
const fanout = 4

// Heap is a heap whose items know their index.
type Heap[T Ranked[T]] struct{ items []T }

// Items are the items in heap order: only the first one is known to come before all others.
func (h *Heap[T]) Items() []T { return h.items }

// Push adds an item.
func (h *Heap[T]) Push(item T) {
	*item.HeapIndex() = int32(len(h.items))
	h.items = append(h.items, item)
	h.up(len(h.items) - 1)
}

// Remove removes an item.
func (h *Heap[T]) Remove(item T) {
	i, last := int(*item.HeapIndex()), len(h.items)-1
	var none T
	if i != last {
		h.items[i] = h.items[last]
		*h.items[i].HeapIndex() = int32(i)
	}
	h.items[last] = none
	h.items = h.items[:last]
	*item.HeapIndex() = -1
	if i != last {
		h.Move(h.items[i])
	}
}

// Move restores the order after the rank of an item has changed.
func (h *Heap[T]) Move(item T) {
	i := int(*item.HeapIndex())
	if !h.up(i) {
		h.down(i)
	}
}

// InOrder yields the items in order until yield returns false, without changing the heap. The frontier is scratch space.
func (h *Heap[T]) InOrder(frontier *[]int32, yield func(T) bool) {
	next := (*frontier)[:0]
	less := func(i, j int) bool { return h.items[next[i]].Before(h.items[next[j]]) }
	push := func(item int) {
		if item >= len(h.items) {
			return
		}
		next = append(next, int32(item))
		for i := len(next) - 1; i > 0 && less(i, (i-1)/2); i = (i - 1) / 2 {
			next[i], next[(i-1)/2] = next[(i-1)/2], next[i]
		}
	}
	push(0)
	for len(next) > 0 {
		first := int(next[0])
		if !yield(h.items[first]) {
			break
		}
		last := len(next) - 1
		next[0] = next[last]
		next = next[:last]
		for i := 0; ; {
			child := 2*i + 1
			if child+1 < last && less(child+1, child) {
				child++
			}
			if child >= last || !less(child, i) {
				break
			}
			next[i], next[child] = next[child], next[i]
			i = child
		}
		for child := fanout*first + 1; child <= fanout*first+fanout; child++ {
			push(child)
		}
	}
	*frontier = next
}

// Rebuild restores the order after the ranks of many items have changed.
func (h *Heap[T]) Rebuild() {
	for i := len(h.items) - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h *Heap[T]) up(i int) bool {
	item, from := h.items[i], i
	for i > 0 {
		parent := (i - 1) / fanout
		if !item.Before(h.items[parent]) {
			break
		}
		h.put(h.items[parent], i)
		i = parent
	}
	if i != from {
		h.put(item, i)
	}
	return i != from
}

func (h *Heap[T]) down(i int) {
	item, from := h.items[i], i
	for {
		first := fanout*i + 1
		if first >= len(h.items) {
			break
		}
		best := first
		for child := first + 1; child < min(first+fanout, len(h.items)); child++ {
			if h.items[child].Before(h.items[best]) {
				best = child
			}
		}
		if !h.items[best].Before(item) {
			break
		}
		h.put(h.items[best], i)
		i = best
	}
	if i != from {
		h.put(item, i)
	}
}

func (h *Heap[T]) put(item T, i int) {
	h.items[i] = item
	*item.HeapIndex() = int32(i)
}
