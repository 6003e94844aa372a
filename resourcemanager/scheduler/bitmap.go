package scheduler

import "math/bits"

// bitmap is a set of node slots. A slot beyond its end is not in it.
type bitmap []uint64

func (b bitmap) has(slot int32) bool {
	word := int(slot >> 6)
	return word < len(b) && b[word]&(1<<(slot&63)) != 0
}

// set adds a slot, growing the bitmap to at least words words.
func (b *bitmap) set(slot int32, words int) {
	word := int(slot >> 6)
	if word >= len(*b) {
		grown := make(bitmap, max(word+1, words))
		copy(grown, *b)
		*b = grown
	}
	(*b)[word] |= 1 << (slot & 63)
}

func (b bitmap) clear(slot int32) {
	if word := int(slot >> 6); word < len(b) {
		b[word] &^= 1 << (slot & 63)
	}
}

// word is the i-th word; beyond the end it is empty.
func (b bitmap) word(i int) uint64 {
	if i < len(b) {
		return b[i]
	}
	return 0
}

// span is a bitmap of which only the words between the first and the last member are kept.
type span struct {
	first int
	words bitmap
}

func (s *span) set(slot int32) {
	word := int(slot >> 6)
	switch {
	case len(s.words) == 0:
		s.first, s.words = word, make(bitmap, 1)
	case word < s.first:
		s.words = append(make(bitmap, s.first-word), s.words...)
		s.first = word
	}
	s.words.set(slot-int32(s.first<<6), 0)
}

func (s *span) has(slot int32) bool {
	word := int(slot >> 6)
	return word >= s.first && s.words.has(slot-int32(s.first<<6))
}

func (s *span) clear(slot int32) {
	if word := int(slot >> 6); word >= s.first {
		s.words.clear(slot - int32(s.first<<6))
	}
}

func (s *span) word(i int) uint64 {
	if i < s.first {
		return 0
	}
	return s.words.word(i - s.first)
}

// nodeSet is a bitmap that finds its next word with members quickly, however thin it is.
type nodeSet struct {
	words bitmap
	// filled has a bit for each word that has any.
	filled bitmap
	count  int
}

func (s *nodeSet) add(slot int32, words int) {
	s.words.set(slot, words)
	s.filled.set(slot>>6, (words+63)/64)
	s.count++
}

func (s *nodeSet) remove(slot int32) {
	s.words.clear(slot)
	if s.words[slot>>6] == 0 {
		s.filled.clear(slot >> 6)
	}
	s.count--
}

// next is the first word at or after i that has members, or -1.
func (s *nodeSet) next(i int) int {
	word := i >> 6
	if word >= len(s.filled) {
		return -1
	}
	if rest := s.filled[word] >> (i & 63); rest != 0 {
		return i + bits.TrailingZeros64(rest)
	}
	for word++; word < len(s.filled); word++ {
		if s.filled[word] != 0 {
			return word<<6 + bits.TrailingZeros64(s.filled[word])
		}
	}
	return -1
}
