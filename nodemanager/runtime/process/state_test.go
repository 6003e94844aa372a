package process

import "testing"

func FuzzParseStartTicks(f *testing.F) {
	f.Add([]byte("12 (a) b) S 1 12 12 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 5 0 8675309 1 2"))
	f.Add([]byte("1 (x"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		if ticks, err := parseStartTicks(stat); err != nil && ticks != 0 {
			t.Fatalf("%d with %v", ticks, err)
		}
	})
}

func TestParseStartTicks(t *testing.T) {
	got, err := parseStartTicks([]byte("12 (a) b) S 1 12 12 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 5 0 8675309 1 2"))
	if err != nil || got != 8675309 {
		t.Errorf("%d, %v", got, err)
	}
}
