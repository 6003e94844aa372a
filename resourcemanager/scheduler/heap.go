package scheduler

// ranked is something that a heap orders. seat is where its place in the heap is kept; -1 is outside.
type ranked[T any] interface {
	before(T) bool
	seat() *int32
}

// heap is a binary heap whose members know their place, so that one whose rank changed can be moved.
type heap[T ranked[T]] struct{ items []T }

func (h *heap[T]) push(item T) {
	*item.seat() = int32(len(h.items))
	h.items = append(h.items, item)
	h.up(len(h.items) - 1)
}

func (h *heap[T]) remove(item T) {
	i, last := int(*item.seat()), len(h.items)-1
	var none T
	if i != last {
		h.items[i] = h.items[last]
		*h.items[i].seat() = int32(i)
	}
	h.items[last] = none
	h.items = h.items[:last]
	*item.seat() = -1
	if i != last {
		h.move(h.items[i])
	}
}

// move puts an item whose rank changed where it belongs.
func (h *heap[T]) move(item T) {
	i := int(*item.seat())
	if !h.up(i) {
		h.down(i)
	}
}

// inOrder gives the items from the first on until yield returns false, without changing the heap. Its scratch space
// is handed from call to call.
func (h *heap[T]) inOrder(frontier *[]int32, yield func(T) bool) {
	next := (*frontier)[:0]
	less := func(i, j int) bool { return h.items[next[i]].before(h.items[next[j]]) }
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
		push(2*first + 1)
		push(2*first + 2)
	}
	*frontier = next
}

// rebuild puts all in order after the ranks of many changed.
func (h *heap[T]) rebuild() {
	for i := len(h.items)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h *heap[T]) up(i int) bool {
	moved := false
	for i > 0 {
		parent := (i - 1) / 2
		if !h.items[i].before(h.items[parent]) {
			break
		}
		h.swap(i, parent)
		i, moved = parent, true
	}
	return moved
}

func (h *heap[T]) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h.items) {
			return
		}
		if child+1 < len(h.items) && h.items[child+1].before(h.items[child]) {
			child++
		}
		if !h.items[child].before(h.items[i]) {
			return
		}
		h.swap(i, child)
		i = child
	}
}

func (h *heap[T]) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.items[i].seat() = int32(i)
	*h.items[j].seat() = int32(j)
}
