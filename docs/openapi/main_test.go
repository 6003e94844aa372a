package main

import (
	"regexp"
	"strconv"
	"testing"
	"time"
)

// Each number from the least to the most is in the pattern, and no other.
func TestLengthsAreBoundedOnBothSides(t *testing.T) {
	for _, c := range [][2]int64{{0, 86400}, {60, 31 * 86400}, {2, 600}, {0, 1}, {9, 10}, {99, 1001}, {1, 12345}} {
		pattern := regexp.MustCompile(lasting(time.Duration(c[0])*time.Second, time.Duration(c[1])*time.Second)["pattern"].(string))
		for n := int64(0); n <= c[1]+1000; n++ {
			if got := pattern.MatchString(strconv.FormatInt(n, 10) + "s"); got != (c[0] <= n && n <= c[1]) {
				t.Fatalf("%d of %d to %d: %v, by %s", n, c[0], c[1], got, pattern)
			}
		}
		for text, want := range map[string]bool{
			"-1s": false, "-0.5s": false, "010s": false, "": false, strconv.FormatInt(c[1], 10) + ".5s": false,
			strconv.FormatInt(c[1]-1, 10) + ".999999999s": true, strconv.FormatInt(c[0], 10) + "0000000s": c[0] == 0 && false,
		} {
			if got := pattern.MatchString(text); got != want {
				t.Errorf("%q of %d to %d: %v, by %s", text, c[0], c[1], got, pattern)
			}
		}
	}
}
