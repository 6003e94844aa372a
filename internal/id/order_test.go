package id

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNamesAreOrderedAsPeopleCount(t *testing.T) {
	names := []string{"web-10", "web-2", "back-3", "web-1", "web-front-2", "web-02", "web", "web-100", "web-20a", "web-20", "node-9", "node-10", ""}
	slices.SortFunc(names, CompareNames)
	const want = " back-3 node-9 node-10 web web-1 web-02 web-2 web-10 web-20 web-20a web-100 web-front-2"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestTheOrderOfNamesIsTotal(t *testing.T) {
	name := rapid.StringMatching(`[ab-]{0,3}[0-2]{0,3}[ab-]{0,2}[0-2]{0,2}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := name.Draw(t, "a"), name.Draw(t, "b"), name.Draw(t, "c")
		if sign(CompareNames(a, b)) != -sign(CompareNames(b, a)) || (CompareNames(a, b) == 0) != (a == b) {
			t.Fatalf("%q and %q: %d and %d", a, b, CompareNames(a, b), CompareNames(b, a))
		}
		if CompareNames(a, b) <= 0 && CompareNames(b, c) <= 0 && CompareNames(a, c) > 0 {
			t.Fatalf("%q, %q, %q are not in one order", a, b, c)
		}
	})
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}
