package balancer

import (
	"net/netip"
	"slices"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// isServiceName reports whether text may be written into a configuration as a name.
func isServiceName(text string) bool {
	if text == "" || len(text) > 128 {
		return false
	}
	for _, c := range []byte(text) {
		if !(c == '-' || c == '_' || c == '.' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
			return false
		}
	}
	return true
}

// plainAddress is an IP address in the form of a configuration: version 6 in brackets.
func plainAddress(text string) (string, bool) {
	address, err := netip.ParseAddr(text)
	if err != nil || address.Zone() != "" {
		return "", false
	}
	if address.Is6() && !address.Is4In6() {
		return "[" + address.String() + "]", true
	}
	return address.Unmap().String(), true
}

// portNames lists every port that an Expose uses.
func portNames(e *apiv1.Expose) []string {
	list := []string{"", e.GetHttp().GetPort()}
	for _, tcp := range e.GetTcp() {
		list = append(list, tcp.GetPort())
	}
	slices.Sort(list)
	return slices.Compact(list)
}
