package main

import "testing"

func TestAddresses(t *testing.T) {
	for text, kinds := range map[string][4]bool{
		// an IP, to connect to, to listen on, to listen on of one address
		"127.0.0.1":            {true, false, false, false},
		"::1":                  {true, false, false, false},
		"127.0.0.1:7070":       {false, true, true, true},
		"[::1]:7070":           {false, true, true, true},
		":7070":                {false, false, true, false},
		"127.0.0.1:0":          {false, true, true, true},
		"node-1.example.:7070": {false, true, true, false},
		"my_host:80":           {false, true, true, false},
		"1.2.3.4.5:80":         {},
		"1.2.3:80":             {},
		"1.2.3.4.5":            {},
		"host":                 {},
		"127.0.0.1:":           {},
		"127.0.0.1:http":       {},
		"127.0.0.1:65536":      {},
		"127.0.0.1:-1":         {},
		"a b:80":               {},
		"-a:80":                {},
		"a..b:80":              {},
		"::1:80:x":             {},
		"":                     {},
	} {
		for i, kind := range []addressKind{atIP, atPort, onPort, onIPPort} {
			if got := kind.check(text) == nil; got != kinds[i] {
				t.Errorf("%q as %s: %v, want %v", text, kind, got, kinds[i])
			}
		}
	}
}
