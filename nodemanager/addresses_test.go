package nodemanager

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// Whatever the configuration, the NodeManager never advertises an address that others cannot reach.
func TestResolveAddresses(t *testing.T) {
	local := route{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")}
	own := route{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.1")}
	away := route{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")}
	away6 := route{netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::1")}
	for _, test := range []struct {
		name            string
		way             route
		address, listen string
		wantAddress     string
		wantListen      string
		refused         string
	}{
		{"here, nothing said", local, "", "", "127.0.0.1", "127.0.0.1:0", ""},
		{"here, by this machine's own address", own, "", "", "10.0.0.1", "10.0.0.1:0", ""},
		{"here, for this machine alone", own, "127.0.0.1", "127.0.0.1:7421", "127.0.0.1", "127.0.0.1:7421", ""},
		{"here, an address said", local, "10.0.0.1", "", "10.0.0.1", "10.0.0.1:0", ""},
		{"away, nothing said", away, "", "", "10.0.0.2", "10.0.0.2:0", ""},
		{"away, version 6", away6, "", "", "fd00::2", "[fd00::2]:0", ""},
		{"away, listening on all", away, "", "0.0.0.0:7421", "10.0.0.2", "0.0.0.0:7421", ""},
		{"away, listening on all in short", away, "", ":7421", "10.0.0.2", ":7421", ""},
		{"away, an address said", away, "192.0.2.9", "10.0.0.2:7421", "192.0.2.9", "10.0.0.2:7421", ""},
		{"away, loopback", away, "127.0.0.1", "", "", "", "from which instances cannot be reached at 127.0.0.1"},
		{"away, loopback version 6", away6, "::1", "", "", "", "from which instances cannot be reached at ::1"},
		{"away, listening on loopback", away, "", "127.0.0.1:7421", "", "", "from which application masters cannot reach this node at 127.0.0.1:7421"},
		{"away, listening on localhost", away, "10.0.0.2", "localhost:0", "", "", "reach this node at localhost:0"},
		{"every address", local, "0.0.0.0", "", "", "", "0.0.0.0, a wildcard address"},
		{"every address of version 6", away6, "::", "", "", "", "::, a wildcard address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := Config{ResourceManager: "zone.test:7070", Address: test.address, Listen: test.listen}
			got, err := config.resolveAddresses(func(string) (route, error) { return test.way, nil })
			switch {
			case test.refused == "" && (err != nil || got.Address != test.wantAddress || got.Listen != test.wantListen):
				t.Errorf("reached at %q, listens at %q, %v; want %q and %q", got.Address, got.Listen, err, test.wantAddress, test.wantListen)
			case test.refused != "" && (err == nil || !strings.Contains(err.Error(), test.refused)):
				t.Errorf("refused with %v, want %q", err, test.refused)
			}
		})
	}
	lost := errors.New("no such host")
	lose := func(string) (route, error) { return route{}, lost }
	if _, err := (Config{ResourceManager: "zone.test:7070"}).resolveAddresses(lose); !errors.Is(err, lost) || !strings.Contains(err.Error(), "--address") {
		t.Errorf("without a way: %v", err)
	}
	second := func(address string) (route, error) {
		if address != "second.test:7070" {
			return route{}, lost
		}
		return route{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")}, nil
	}
	if got, err := (Config{ResourceManager: "zone.test:7070,second.test:7070"}).resolveAddresses(second); err != nil || got.Address != "10.0.0.2" {
		t.Errorf("with a way to the second address alone: %q, %v", got.Address, err)
	}
	if got, err := (Config{ResourceManager: "zone.test:7070", Address: "10.0.0.2"}).resolveAddresses(lose); err != nil || got.Listen != "10.0.0.2:0" {
		t.Errorf("without a way, but with an address: %q, %v", got.Listen, err)
	}
}

func TestFindRoute(t *testing.T) {
	for _, address := range []string{"127.0.0.1:7070", "[::]:7070", "0.0.0.0:7070"} {
		if way, err := findRoute(address); err != nil || !way.isLocal() {
			t.Errorf("the way to %s is %v, %v", address, way, err)
		}
	}
}
