package heap

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

type numbered struct {
	rank  int
	index int32
}

func (n *numbered) Before(other *numbered) bool { return n.rank < other.rank }
func (n *numbered) HeapIndex() *int32           { return &n.index }

func TestAHeapIsWalkedInOrderAndStaysAsItIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h Heap[*numbered]
		var want []int
		for _, rank := range rapid.SliceOf(rapid.IntRange(0, 50)).Draw(t, "ranks") {
			h.Push(&numbered{rank: rank})
			want = append(want, rank)
		}
		slices.Sort(want)
		want = want[:rapid.IntRange(0, len(want)).Draw(t, "until")]
		before := slices.Clone(h.items)
		var got []int
		var frontier []int32
		h.InOrder(&frontier, func(n *numbered) bool {
			if len(got) == len(want) {
				return false
			}
			got = append(got, n.rank)
			return true
		})
		if !slices.Equal(got, want) || !slices.Equal(h.items, before) {
			t.Fatalf("walked %v, want %v", got, want)
		}
	})
}
