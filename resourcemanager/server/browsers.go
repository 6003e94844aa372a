package server

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
)

// fromOwnPages refuses what a page of another site has a browser ask for, unless it changes nothing: the browser belongs to
// somebody who may change more than the page's author. A page that comes from here names this machine by an address, or is
// from another site whose name was given this machine's address meanwhile; a zone that is open to others may have a name.
func fromOwnPages(open bool, next http.Handler) http.Handler {
	crossing := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		looks := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
		if crossing.Check(r) == nil && (looks || open || origin == "" || ofThisMachine(r.Host)) {
			next.ServeHTTP(w, r)
			return
		}
		refuse(w, http.StatusForbidden, codes.PermissionDenied,
			fmt.Errorf("a page of %s may not change anything here; use the mammoth command, or a page of this zone at its own address", cmp.Or(origin, "another site")))
	})
}

// ofThisMachine reports whether a Host header's name is one that nobody else can give to this machine.
func ofThisMachine(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")) != nil
}
