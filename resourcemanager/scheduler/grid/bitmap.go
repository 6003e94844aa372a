package grid

import "math/bits"

// Bitmap is a set of node slots. A slot beyond its end is not in it.
type Bitmap []uint64

// Has reports whether a slot is in the set.
func (b Bitmap) Has(slot int32) bool {
	word := int(slot >> 6)
	return word < len(b) && b[word]&(1<<(slot&63)) != 0
}

// Set adds a slot, growing the bitmap to at least words words.
func (b *Bitmap) Set(slot int32, words int) {
	word := int(slot >> 6)
	if word >= len(*b) {
		grown := make(Bitmap, max(word+1, words))
		copy(grown, *b)
		*b = grown
	}
	(*b)[word] |= 1 << (slot & 63)
}

// Clear takes a slot out.
func (b Bitmap) Clear(slot int32) {
	if word := int(slot >> 6); word < len(b) {
		b[word] &^= 1 << (slot & 63)
	}
}

// Word is the i-th word; beyond the end it is empty.
func (b Bitmap) Word(i int) uint64 {
	if i < len(b) {
		return b[i]
	}
	return 0
}

// Span is a bitmap of which only the words between the first and the last member are kept.
type Span struct {
	first int
	words Bitmap
}

// Set adds a slot.
func (s *Span) Set(slot int32) {
	word := int(slot >> 6)
	switch {
	case len(s.words) == 0:
		s.first, s.words = word, make(Bitmap, 1)
	case word < s.first:
		s.words = append(make(Bitmap, s.first-word), s.words...)
		s.first = word
	}
	s.words.Set(slot-int32(s.first<<6), 0)
}

// Has reports whether a slot is in the set.
func (s *Span) Has(slot int32) bool {
	word := int(slot >> 6)
	return word >= s.first && s.words.Has(slot-int32(s.first<<6))
}

// Clear takes a slot out.
func (s *Span) Clear(slot int32) {
	if word := int(slot >> 6); word >= s.first {
		s.words.Clear(slot - int32(s.first<<6))
	}
}

// Word is the i-th word of the whole bitmap.
func (s *Span) Word(i int) uint64 {
	if i < s.first {
		return 0
	}
	return s.words.Word(i - s.first)
}

// Set is a bitmap that finds its next word with members quickly, however thin it is.
type Set struct {
	words Bitmap
	// filled has a bit for each word that has any.
	filled Bitmap
	count  int
}

func (s *Set) add(slot int32, words int) {
	s.words.Set(slot, words)
	s.filled.Set(slot>>6, (words+63)/64)
	s.count++
}

func (s *Set) remove(slot int32) {
	s.words.Clear(slot)
	if s.words[slot>>6] == 0 {
		s.filled.Clear(slot >> 6)
	}
	s.count--
}

// Next is the first word at or after i that has members, or -1.
func (s *Set) Next(i int) int {
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

// Words is how many words the set has, of which the last may be empty.
func (s *Set) Words() int { return len(s.words) }

// Word is the i-th word.
func (s *Set) Word(i int) uint64 { return s.words[i] }

// Range is which words the members are in: from, and up to but without to.
func (s *Span) Range() (from, to int) { return s.first, s.first + len(s.words) }
