package id

import (
	"slices"
	"strings"
)

// CompareNames orders names with numbers: web-2 before web-10. It is a total order: names that differ only in leading zeros
// are ordered as texts.
func CompareNames(a, b string) int {
	at := 0
	for at < len(a) && at < len(b) && a[at] == b[at] {
		at++
	}
	// The difference may be at the end of two numbers.
	for at > 0 && isDigit(a[at-1]) {
		at--
	}
	x, y := a[at:], b[at:]
	m, n := digits(x), digits(y)
	if m == 0 || n == 0 {
		return strings.Compare(x, y)
	}
	p, q := strings.TrimLeft(x[:m], "0"), strings.TrimLeft(y[:n], "0")
	switch {
	case len(p) != len(q):
		return len(p) - len(q)
	case p != q:
		return strings.Compare(p, q)
	}
	if order := CompareNames(x[m:], y[n:]); order != 0 {
		return order
	}
	return strings.Compare(a, b)
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// digits is the number of leading digits.
func digits(text string) int {
	n := 0
	for n < len(text) && isDigit(text[n]) {
		n++
	}
	return n
}

// SortedKeys are the keys of a map in the order of CompareNames.
func SortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, CompareNames)
	return keys
}
