package peer

import "testing"

func TestSomeHostsAreEveryAddressOrThisMachine(t *testing.T) {
	for host, want := range map[string][2]bool{
		"": {true, false}, "0.0.0.0": {true, false}, "::": {true, false}, "localhost": {false, true}, "127.0.0.2": {false, true}, "::1": {false, true},
		"192.0.2.1": {false, false}, "node-1": {false, false},
	} {
		if got := [2]bool{Everywhere(host), Loopback(host)}; got != want {
			t.Errorf("%q is everywhere and loopback: %v, want %v", host, got, want)
		}
	}
}
