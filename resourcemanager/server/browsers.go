package server

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
)

// fromOwnPages refuses changes that a web page of another site sends through a person's browser, since the person may change more
// than the author of the page. A page whose host is a name and not an address may be from another site by DNS rebinding, so it is
// refused too, unless open: then the zone may have a host name.
func fromOwnPages(open bool, next http.Handler) http.Handler {
	crossing := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		looks := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
		if crossing.Check(r) == nil && (looks || open || origin == "" || needsNoName(r.Host)) {
			next.ServeHTTP(w, r)
			return
		}
		refuse(w, http.StatusForbidden, codes.PermissionDenied,
			fmt.Errorf("a page of %s may not change anything here; use the mammoth command, or a page of this zone at its own address", cmp.Or(origin, "another site")))
	})
}

// needsNoName reports whether the host of a Host header is an address or localhost, for which there is no DNS rebinding.
func needsNoName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")) != nil
}
