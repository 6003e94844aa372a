package haproxy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/internal/expose"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// settings are the parts of a configuration that do not depend on the plan.
type settings struct {
	Dir         string
	Listen, TLS string
	// Host of plain TCP ports.
	Host string
	// The user it becomes; empty if it does not run as root.
	User                string
	StopAfter           int
	Connections         int
	DynamicCookieSecret string
}

// files are the files that HAProxy reads, by name in its folder.
type files struct {
	config, routes, hosts, certificates string
	// Chain and key of each certificate in one file, by the certificate's name.
	pairs map[string]*balancer.Certificate
	// Digest of everything that the runtime interface cannot change: all but the servers.
	shape string
}

// group is one backend and its servers.
type group struct {
	name    string
	servers []balancer.Server
}

// groups lists every backend of a plan.
func groups(plan *balancer.Plan) []group {
	var list []group
	for _, service := range plan.Services {
		if service.Expose.GetHttp() != nil {
			list = append(list, group{"app_" + service.Name, service.HTTP})
		}
	}
	for _, tcp := range plan.TCP {
		list = append(list, group{fmt.Sprintf("tcp_%d", tcp.Listen), tcp.Servers})
	}
	return list
}

func render(s settings, plan *balancer.Plan) files {
	f := files{pairs: map[string]*balancer.Certificate{}}
	var routes, certificates strings.Builder
	for _, host := range plan.Hosts {
		for _, path := range host.Paths {
			fmt.Fprintf(&routes, "%s%s app_%s\n", host.Name, strings.TrimSuffix(path.Prefix, "/")+"/", path.Service.Name)
		}
		if host.Certificate != nil && host.Name != expose.AnyHost {
			f.pairs[host.Certificate.Name] = host.Certificate
			fmt.Fprintf(&certificates, "%s %s\n", shaped(s.Dir, host.Certificate.Name+".pem"), host.Name)
		}
	}
	f.routes, f.hosts, f.certificates = routes.String(), hostsMap(plan), certificates.String()
	whole := configure(s, plan, true)
	sum := sha256.New()
	fmt.Fprint(sum, configure(s, plan, false), f.routes, f.certificates)
	for _, host := range plan.Hosts {
		if host.Certificate != nil {
			fmt.Fprint(sum, host.Certificate.Digest)
		}
	}
	f.shape = hex.EncodeToString(sum.Sum(nil)[:8])
	f.config, f.certificates = strings.ReplaceAll(whole, shapeMark, f.shape), strings.ReplaceAll(f.certificates, shapeMark, f.shape)
	return f
}

const shapeMark = "@shape@"

// shaped is the path of a file that belongs to one configuration: each has its own maps and certificates, so that the last one stays
// complete while the next is checked.
func shaped(dir, name string) string { return dir + "/shape-" + shapeMark + "-" + name }

type writer struct{ strings.Builder }

// section begins a section, line adds to it.
func (w *writer) section(format string, values ...any) { fmt.Fprintf(w, "\n"+format+"\n", values...) }

func (w *writer) line(format string, values ...any) { fmt.Fprintf(w, "    "+format+"\n", values...) }

func configure(s settings, plan *balancer.Plan, servers bool) string {
	w := &writer{}
	w.WriteString("# Written by mammoth's haproxy companion: changes are overwritten.\n")
	w.section("global")
	w.line("stats socket %s/admin.sock mode 600 level admin expose-fd listeners", s.Dir)
	w.line("description %s", shapeMark)
	w.line("hard-stop-after %ds", s.StopAfter)
	w.line("close-spread-time %ds", int(balancer.KeepIdle.Seconds()))
	w.line("maxconn %d", s.Connections)
	// All headers of a request, or of an answer, have to fit into one buffer.
	w.line("tune.bufsize 32768")
	w.line("tune.maxrewrite 1024")
	w.line("expose-experimental-directives") // normalize-uri, below
	if s.User != "" {
		w.line("user %s", s.User)
	}
	w.section("defaults")
	w.line("mode http")
	w.line("option http-keep-alive")
	w.line("option http-no-delay")
	w.line("option forwardfor")
	w.line("timeout connect 1s")
	w.line("timeout client 60s")
	w.line("timeout server 60s")
	w.line("timeout http-request 60s")
	w.line("timeout http-keep-alive 75s")
	w.line("errorfile 503 %s/503.http", s.Dir)
	w.front(s, plan)
	for i := range plan.Services {
		w.app(s, &plan.Services[i], servers)
	}
	for _, tcp := range plan.TCP {
		w.section("frontend tcp_in_%d", tcp.Listen)
		w.line("mode tcp")
		w.line("bind %s:%d", s.Host, tcp.Listen)
		w.line("timeout client %dms", expose.Idle(tcp.Service.Expose).Milliseconds())
		w.line("default_backend tcp_%d", tcp.Listen)
		w.section("backend tcp_%d", tcp.Listen)
		w.line("mode tcp")
		w.common(tcp.Service.Expose)
		if servers {
			w.servers(tcp.Servers)
		}
	}
	return w.String()
}

func (w *writer) front(s settings, plan *balancer.Plan) {
	w.section("frontend http")
	w.line("bind %s", s.Listen)
	tls := s.TLS != "" && slices.ContainsFunc(plan.Hosts, func(h balancer.Host) bool { return h.Certificate != nil })
	if tls {
		w.line("bind %s ssl crt-list %s strict-sni ssl-min-ver TLSv1.2", s.TLS, shaped(s.Dir, "certificates.list"))
	}
	w.line("timeout client %dms", clientTimeout(plan).Milliseconds())
	w.headers()
	w.path()
	w.line(`http-request set-var(txn.host) req.hdr(host),host_only,lower,regsub(\.$,)`)
	// A pattern of hosts is tried when no exact name is known; the longest first.
	var patterns []string
	for _, host := range plan.Hosts {
		if host.Name == expose.AnyHost || strings.HasPrefix(host.Name, "*.") {
			patterns = append(patterns, host.Name)
		}
	}
	slices.SortFunc(patterns, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	w.line("http-request set-var(txn.known) var(txn.host),map_str(%s)", shaped(s.Dir, "hosts.map"))
	for _, pattern := range patterns {
		if pattern == expose.AnyHost {
			w.line("http-request set-var(txn.host) str(*) unless { var(txn.known) -m found }")
			continue
		}
		w.line("http-request set-var(txn.pattern) str(%s) if !{ var(txn.known) -m found } { var(txn.host) -m end %s }", pattern, pattern[1:])
		w.line("http-request set-var(txn.known) str(1) if { var(txn.pattern) -m str %s }", pattern)
		w.line("http-request set-var(txn.host) str(%s) if { var(txn.pattern) -m str %s }", pattern, pattern)
	}
	w.line("http-request set-var(txn.app) var(txn.host),concat(,txn.path),map_beg(%s)", shaped(s.Dir, "routes.map"))
	for _, service := range plan.Services {
		if body := expose.Body(service.Expose.GetHttp()); service.Expose.GetHttp() != nil && body > 0 {
			w.line("http-request deny deny_status 413 if { var(txn.app) -m str app_%s } { req.hdr_val(content-length) gt %d }", service.Name, body)
		}
	}
	// Instances refuse a request without a host, which HTTP/1.0 permits.
	w.line(`http-request set-header Host %%[var(txn.to)]:%%[dst_port] unless { req.hdr(host) -m found }`)
	w.line("http-request return status 404 content-type text/html string %q unless { var(txn.app) -m found }",
		"<!doctype html><title>Nothing is here</title><h1>Nothing is here</h1><p>No app of this zone is exposed under this address.</p>")
	w.line("use_backend %%[var(txn.app)]")
}

// headers writes the rules for request headers. Names with an underscore are dropped: a program that reads headers as
// variables cannot distinguish X_Real_IP, which anybody may send, from X-Real-IP.
func (w *writer) headers() {
	w.line("http-request set-header Host %%[url,field(3,/)] if { url -m beg http:// } !{ req.hdr(host) -m found }")
	w.line("http-request del-header _ -m sub")
	w.line("http-request set-header X-Forwarded-Proto %%[ssl_fc,iif(https,http)]")
	w.line("http-request del-header X-Forwarded-Host")
	w.line("http-request set-header X-Forwarded-Host %%[req.hdr(host)] if { req.hdr(host) -m found }")
	w.line("http-request set-header X-Real-IP %%[src]")
	w.line("http-request set-var(txn.to) dst")
	w.line("http-request set-var(txn.to) str([),concat(,txn.to,]) if { var(txn.to) -m sub : }")
}

// path writes the rules that normalise a request's path into a variable, for routing, without changing the request.
func (w *writer) path() {
	w.line("http-request set-var(txn.asked) url")
	w.line("http-request normalize-uri percent-decode-unreserved")
	w.line("http-request normalize-uri path-merge-slashes")
	w.line("http-request normalize-uri path-strip-dot")
	w.line("http-request normalize-uri path-strip-dotdot full")
	w.line("http-request set-var(txn.path) path,url_dec,concat(/)")
	w.line("http-request set-uri %%[var(txn.asked)]")
}

// clientTimeout is the longest timeout of all apps, since HAProxy reads a request before it knows its app.
func clientTimeout(plan *balancer.Plan) time.Duration {
	longest := expose.DefaultIdle
	for _, service := range plan.Services {
		if service.Expose.GetHttp() != nil {
			longest = max(longest, expose.ClientIdle(service.Expose))
		}
	}
	return longest
}

func (w *writer) app(s settings, service *balancer.Service, servers bool) {
	h := service.Expose.GetHttp()
	if h == nil {
		return
	}
	w.section("backend app_%s", service.Name)
	w.common(service.Expose)
	if service.Expose.GetRetry() == apiv1.Expose_IDEMPOTENT {
		w.line("retry-on conn-failure empty-response")
		w.line("http-request disable-l7-retry unless METH_GET or { method HEAD OPTIONS PUT DELETE TRACE }")
	}
	if h.GetStickyCookie() != "" {
		w.line("cookie %s insert indirect nocache httponly dynamic attr SameSite=Lax", h.GetStickyCookie())
		w.line("dynamic-cookie-key %s", s.DynamicCookieSecret)
	}
	if servers {
		w.servers(service.HTTP)
	}
}

// common writes the part of a backend that both kinds have.
func (w *writer) common(e *apiv1.Expose) {
	switch e.GetBalance() {
	case apiv1.Expose_LEAST_CONNECTIONS:
		w.line("balance leastconn")
	case apiv1.Expose_HASH:
		w.line("balance source")
		w.line("hash-type consistent")
	default:
		w.line("balance roundrobin")
	}
	w.line("timeout connect %dms", expose.Connect(e).Milliseconds())
	w.line("timeout server %dms", expose.Idle(e).Milliseconds())
	w.line("timeout tunnel %dms", expose.Idle(e).Milliseconds())
	if e.GetRetry() == apiv1.Expose_OFF {
		w.line("retries 0")
	} else {
		w.line("retries 2")
		w.line("option redispatch 1")
	}
}

func (w *writer) servers(servers []balancer.Server) {
	weights := scale(servers)
	for i, server := range servers {
		w.line("server %s %s:%d weight %d", server.ID, server.Address, server.Port, weights[i])
	}
}

// maxWeight is HAProxy's largest weight.
const maxWeight = 256

// scale converts weights to HAProxy's range, in proportion, with at least 1. They are as small as possible: after a change
// HAProxy needs a whole round, of sixteen times their sum, to settle.
func scale(servers []balancer.Server) []int32 {
	var divisor, largest int32
	for _, server := range servers {
		divisor, largest = gcd(divisor, server.Weight), max(largest, server.Weight)
	}
	weights := make([]int32, len(servers))
	for i, server := range servers {
		weights[i] = server.Weight / divisor
		if largest/divisor > maxWeight {
			weights[i] = max(1, int32(int64(server.Weight)*maxWeight/int64(largest)))
		}
	}
	return weights
}

func gcd(a, b int32) int32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// unavailable is HAProxy's response when a backend has no server.
const unavailable = "HTTP/1.1 503 Service Unavailable\r\nCache-Control: no-cache\r\nConnection: close\r\nRetry-After: 1\r\n" +
	"Content-Type: text/html\r\n\r\n<!doctype html><title>Not available just now</title><h1>Not available just now</h1>" +
	"<p>The app is known here, but none of its instances is ready. Try again in a moment.</p>\n"

func hostsMap(plan *balancer.Plan) string {
	var text strings.Builder
	for _, host := range plan.Hosts {
		if host.Name != expose.AnyHost && !strings.HasPrefix(host.Name, "*.") {
			fmt.Fprintf(&text, "%s 1\n", host.Name)
		}
	}
	return text.String()
}
