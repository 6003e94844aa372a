package main

import "testing"

func TestMoreInstancesThanDesiredAreNoShareOfThem(t *testing.T) {
	for _, c := range []struct {
		running, desired int32
		want             string
	}{
		{0, 3, "0 of 3 instances run"}, {3, 3, "3 of 3 instances run"}, {4, 3, "4 instances run, desired: 3"}, {2, 1, "2 instances run, desired: 1"},
	} {
		if got := runningOf(c.running, c.desired, " instances"); got != c.want {
			t.Errorf("it says %q, want %q", got, c.want)
		}
	}
}
