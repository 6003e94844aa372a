package nginx

import (
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
	// Folder of everything that nginx writes.
	Dir string
	// The configuration is one file of an attached nginx.
	Attached bool
	// Front addresses, host:port. TLS is empty for none.
	Listen, TLS string
	// Host of plain TCP ports.
	Host string
	// The user that workers run as; empty if nginx does not run as root.
	User string
	// Temporary files are in Dir instead of nginx's own folder.
	OwnTemp bool
	Workers int
	// How many requests a worker can serve at a time.
	Connections int
	// Path of the module for TCP ports; empty if it is built in.
	StreamModule string
	// The host:port for traffic messages, and the mark of this nginx's messages.
	TrafficAddress, Mark string
	// Old workers end after so many seconds in any case.
	ShutdownSeconds int
	// Old workers can keep the idle connections of clients for balancer.KeepIdle.
	KeepsIdle bool
}

// render renders the configuration of a plan, and its revision, which changes with every byte.
func render(s settings, plan *balancer.Plan) (text, revision string) {
	head, body := &writer{}, &writer{}
	head.line("# Written by mammoth's nginx companion: changes are overwritten.")
	if s.Attached {
		body.http(s, plan)
	} else {
		head.head(s, len(plan.TCP) > 0)
		body.block("http", func() {
			body.global(s)
			body.http(s, plan)
		})
	}
	if len(plan.TCP) > 0 {
		body.stream(s, plan)
	}
	sum := sha256.Sum256([]byte(head.String() + body.String()))
	revision = hex.EncodeToString(sum[:8])
	return head.String() + strings.Replace(body.String(), revisionMark, revision, 1), revision
}

// revisionMark is replaced by the revision; no name of a service can contain "@".
const revisionMark = "@revision@"

// writer writes directives of nginx.
type writer struct {
	strings.Builder
	depth int
	// The index of each service, for names of letters and digits only.
	numbers map[*balancer.Service]int
	// The size of the groups' shared zone; empty once it was written.
	zone string
}

// line writes one directive.
func (w *writer) line(format string, values ...any) {
	w.WriteString(strings.Repeat("    ", w.depth))
	fmt.Fprintf(w, format, values...)
	w.WriteByte('\n')
}

// block writes a directive with others inside.
func (w *writer) block(head string, inside func()) {
	w.line("%s {", head)
	w.depth++
	inside()
	w.depth--
	w.line("}")
}

func (w *writer) head(s settings, tcp bool) {
	if tcp && s.StreamModule != "" {
		w.line("load_module %s;", s.StreamModule)
	}
	if s.User != "" {
		w.line("user %s;", s.User)
	}
	w.line("worker_processes %d;", s.Workers)
	w.line("worker_shutdown_timeout %ds;", s.ShutdownSeconds)
	w.line("worker_rlimit_nofile %d;", 4*s.Connections)
	w.line("pid %s/nginx.pid;", s.Dir)
	// Errors of requests are sent to the companion, which limits the size of the log.
	w.line("error_log %s/error.log crit;", s.Dir)
	w.block("events", func() { w.line("worker_connections %d;", 2*s.Connections) })
}

// global writes the directives for an nginx of the companion's own.
func (w *writer) global(s settings) {
	w.line("server_tokens off;")
	w.line("sendfile on;")
	w.line("tcp_nodelay on;")
	w.line("keepalive_timeout 75s;")
	if s.KeepsIdle {
		w.line("keepalive_min_timeout %ds;", int(balancer.KeepIdle.Seconds()))
	}
	w.line("server_names_hash_bucket_size 512;")
	w.line("server_names_hash_max_size 65536;")
	w.line("variables_hash_max_size 16384;")
	w.line("map_hash_bucket_size 256;")
	w.streaming()
	if s.OwnTemp {
		for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			w.line("%s_temp_path %s/temp/%s;", kind, s.Dir, kind)
		}
	}
}

// http writes the groups and servers of apps.
func (w *writer) http(s settings, plan *balancer.Plan) {
	w.line(`log_format mammoth_traffic "$mammoth_service $upstream_addr $status";`)
	// nginx needs a millisecond to read a map, as much as for a hundred servers: unused ones are left out.
	if routesTo(plan, apiv1.Expose_IDEMPOTENT) {
		w.upgrade("mammoth_connection", "")
	}
	if routesTo(plan, apiv1.Expose_OFF) {
		w.upgrade("mammoth_close", "close")
	}
	w.host()
	w.numbers = make(map[*balancer.Service]int, len(plan.Services))
	room := 0
	for i := range plan.Services {
		room += zoneSize(plan.Services[i].HTTP)
	}
	w.zone = fmt.Sprintf(" %dk", room)
	for i := range plan.Services {
		w.numbers[&plan.Services[i]] = i
		w.upstream(i, &plan.Services[i])
	}
	w.block("server", func() {
		w.line("listen unix:%s/status.sock;", s.Dir)
		w.line("access_log off;")
		// Variables must be set somewhere, also without hosts.
		w.line(`set $mammoth_service "";`)
		w.line(`set $mammoth_named "";`)
		w.block("location = /revision", func() { w.line(`return 200 "%s";`, revisionMark) })
		w.block("location = /status", func() { w.line("stub_status;") })
	})
	any := s.Attached
	for _, host := range plan.Hosts {
		any = any || host.Name == expose.AnyHost
		w.server(s, host)
	}
	if !any {
		w.server(s, balancer.Host{Name: expose.AnyHost})
	}
}

// routesTo reports whether a service with this retry has instances.
func routesTo(plan *balancer.Plan, retry apiv1.Expose_Retry) bool {
	return slices.ContainsFunc(plan.Services, func(s balancer.Service) bool { return len(s.HTTP) > 0 && s.Expose.GetRetry() == retry })
}

// upgrade writes the Connection header for instances: the client's if it requests another protocol, else idle.
func (w *writer) upgrade(variable, idle string) {
	w.block("map $http_upgrade $"+variable, func() {
		w.line("default upgrade;")
		w.line(`"" "%s";`, idle)
	})
}

// host writes the Host header for instances: the client's own. Instances refuse a request without one, which HTTP/1.0
// permits; then the server block sets it.
func (w *writer) host() {
	w.block("map $http_host $mammoth_host", func() {
		w.line("default $http_host;")
		w.line(`"" $mammoth_named;`)
	})
}

// named writes the host of a request without one: that of the request line, or else the address that the client connected
// to. nginx's $host is the server_name of the server block then, which may be a pattern.
func (w *writer) named(host string) {
	w.line("set $mammoth_named $host;")
	if host != expose.AnyHost && !strings.HasPrefix(host, "*.") {
		return
	}
	w.line("set $mammoth_address $server_addr;")
	w.block("if ($server_addr ~ :)", func() { w.line(`set $mammoth_address "[$server_addr]";`) })
	w.block(`if ($host ~ "^(_$|\*)")`, func() { w.line(`set $mammoth_named "$mammoth_address:$server_port";`) })
}

// upstream writes a service's group of instances, and its sticky cookie.
func (w *writer) upstream(number int, service *balancer.Service) {
	cookie := service.Expose.GetHttp().GetStickyCookie()
	if cookie != "" {
		// A client without the cookie gets its request's id as one; the same value selects the instance.
		w.block(fmt.Sprintf("map $cookie_%s $mammoth_sticky_%d", cookie, number), func() {
			w.line(`"" $request_id;`)
			w.line("default $cookie_%s;", cookie)
		})
		w.block(fmt.Sprintf("map $cookie_%s $mammoth_set_%d", cookie, number), func() {
			w.line(`"" "%s=$request_id; Path=/; HttpOnly; SameSite=Lax";`, cookie)
			w.line(`default "";`)
		})
	}
	if len(service.HTTP) == 0 {
		return
	}
	w.block("upstream "+group(service.Name), func() {
		// Workers share the state of the groups, so that weights and failures count once. All groups are in one zone: nginx
		// needs longer to map a thousand zones than to read everything else. The first group sets the size.
		w.line("zone mammoth%s;", w.zone)
		w.zone = ""
		if cookie != "" {
			w.line("hash $mammoth_sticky_%d consistent;", number)
		} else {
			w.balance(service.Expose.GetBalance())
		}
		w.servers(service.HTTP)
		if service.Expose.GetRetry() == apiv1.Expose_IDEMPOTENT {
			w.line("keepalive 32;")
			// Shorter than the idle timeout of common programs: a request on a connection that is being closed may fail.
			w.line("keepalive_timeout 1s;")
		}
	})
}

func (w *writer) balance(balance apiv1.Expose_Balance) {
	switch balance {
	case apiv1.Expose_LEAST_CONNECTIONS:
		w.line("least_conn;")
	case apiv1.Expose_HASH:
		w.line("hash $remote_addr consistent;")
	}
}

// servers writes instances. max_fails is 0 because the zone decides which instances are healthy: nginx would count a slow
// request as a failure and stop using a healthy instance.
func (w *writer) servers(servers []balancer.Server) {
	for _, server := range servers {
		w.line("server %s:%d weight=%d max_fails=0; # %s", server.Address, server.Port, server.Weight, server.ID)
	}
}

// server writes one host name; requests to unknown hosts go to AnyHost's, and are answered 404 if no app has claimed it.
func (w *writer) server(s settings, host balancer.Host) {
	w.block("server", func() {
		suffix := ""
		if host.Name == expose.AnyHost {
			suffix = " default_server"
		}
		w.line("listen %s%s;", s.Listen, suffix)
		switch {
		case s.TLS == "":
		case host.Certificate != nil:
			w.line("listen %s ssl%s;", s.TLS, suffix)
			w.line("ssl_certificate %s;", host.Certificate.Chain)
			w.line("ssl_certificate_key %s; # %s", host.Certificate.Key, host.Certificate.Digest)
			w.line("ssl_protocols TLSv1.2 TLSv1.3;")
		case host.Name == expose.AnyHost:
			w.line("listen %s ssl default_server;", s.TLS)
			w.line("ssl_reject_handshake on;")
		}
		if host.Name == expose.AnyHost {
			w.line("server_name _;")
		} else {
			w.line("server_name %s;", host.Name)
		}
		w.line("access_log syslog:server=%s,nohostname,tag=%s mammoth_traffic;", s.TrafficAddress, requestTag(s.Mark))
		w.errors(s)
		if s.Attached {
			w.streaming()
		}
		w.line(`set $mammoth_service "-";`)
		w.named(host.Name)
		root := false
		for _, path := range host.Paths {
			number := w.numbers[path.Service]
			if path.Prefix == "/" {
				root = true
				w.location("location /", number, path.Service)
				continue
			}
			w.location("location = "+path.Prefix, number, path.Service)
			w.location("location "+path.Prefix+"/", number, path.Service)
		}
		if !root {
			w.block("location /", func() {
				w.line("default_type text/html;")
				w.line("return 404 %s;", page("Nothing is here", "No app of this zone is exposed under this address."))
			})
		}
	})
}

// errors writes where errors of requests are sent. Warnings are left out, since an unreachable companion causes one.
func (w *writer) errors(s settings) {
	w.line("error_log syslog:server=%s,nohostname,tag=%s error;", s.TrafficAddress, errorTag(s.Mark))
}

// location writes the routing of one prefix.
func (w *writer) location(head string, number int, service *balancer.Service) {
	w.block(head, func() {
		w.line(`set $mammoth_service "%s";`, service.Name)
		if len(service.HTTP) == 0 {
			w.line("default_type text/html;")
			w.line("add_header Retry-After 1 always;")
			w.line("return 503 %s;", page("Not available just now", "The app is known here, but none of its instances is ready. Try again in a moment."))
			return
		}
		h, e := service.Expose.GetHttp(), service.Expose
		w.line("client_max_body_size %d;", max(expose.Body(h), 0))
		w.timeouts(e)
		if e.GetRetry() == apiv1.Expose_OFF {
			w.line("proxy_next_upstream off;")
			w.line("proxy_set_header Connection $mammoth_close;")
		} else {
			w.retry(e)
			w.line("proxy_set_header Connection $mammoth_connection;")
		}
		for _, header := range []string{
			"Host $mammoth_host", "Upgrade $http_upgrade", "X-Real-IP $remote_addr",
			"X-Forwarded-For $proxy_add_x_forwarded_for", "X-Forwarded-Proto $scheme", "X-Forwarded-Host $http_host",
		} {
			w.line("proxy_set_header %s;", header)
		}
		if h.GetStickyCookie() != "" {
			w.line("add_header Set-Cookie $mammoth_set_%d always;", number)
		}
		w.line("proxy_pass http://%s;", group(service.Name))
	})
}

// streaming disables buffering in both directions: an event arrives when it is sent, and a large upload or answer needs no
// memory or disk. Only the headers of an answer, and one line of a request's, must fit into a buffer. In an attached nginx
// it applies to the companion's own servers only.
func (w *writer) streaming() {
	w.line("large_client_header_buffers 4 32k;")
	w.line("proxy_http_version 1.1;")
	w.line("proxy_request_buffering off;")
	w.line("proxy_buffering off;")
	w.line("proxy_buffer_size 32k;")
	w.line("proxy_buffers 4 32k;")
	w.line("proxy_max_temp_file_size 0;")
}

// timeouts writes the timeouts towards instances and clients.
func (w *writer) timeouts(e *apiv1.Expose) {
	idle := expose.Idle(e).Milliseconds()
	w.line("proxy_connect_timeout %dms;", expose.Connect(e).Milliseconds())
	w.line("proxy_read_timeout %dms;", idle)
	w.line("proxy_send_timeout %dms;", idle)
	clientIdle := expose.ClientIdle(e).Milliseconds()
	w.line("client_body_timeout %dms;", clientIdle)
	w.line("send_timeout %dms;", clientIdle)
}

// retry writes which requests are tried on another instance. nginx has one condition, timeout, for a failed connection,
// which may be retried, and for a missing answer, which may not. They differ in time: an answer is missing after the idle
// time at the earliest, and proxy_next_upstream_timeout permits no further attempt by then.
func (w *writer) retry(e *apiv1.Expose) {
	w.line("proxy_next_upstream error timeout;")
	w.line("proxy_next_upstream_tries 3;")
	w.line("proxy_next_upstream_timeout %dms;", min(expose.Idle(e), 10*time.Second).Milliseconds())
}

func (w *writer) stream(s settings, plan *balancer.Plan) {
	w.block("stream", func() {
		w.errors(s)
		for _, tcp := range plan.TCP {
			name := fmt.Sprintf("tcp_%d", tcp.Listen)
			if len(tcp.Servers) > 0 {
				w.block("upstream "+name, func() {
					w.line("zone %s %dk;", name, zoneSize(tcp.Servers))
					w.balance(tcp.Service.Expose.GetBalance())
					w.servers(tcp.Servers)
				})
			}
			w.block("server", func() {
				w.line("listen %s:%d; # %s", s.Host, tcp.Listen, tcp.Service.Name)
				if len(tcp.Servers) == 0 {
					w.line(`return "";`)
					return
				}
				w.line("proxy_connect_timeout %dms;", expose.Connect(tcp.Service.Expose).Milliseconds())
				w.line("proxy_timeout %dms;", expose.Idle(tcp.Service.Expose).Milliseconds())
				if tcp.Service.Expose.GetRetry() == apiv1.Expose_OFF {
					w.line("proxy_next_upstream off;")
				}
				w.line("proxy_pass %s;", name)
			})
		}
	})
}

// zoneSize is the shared memory of a group in KiB. nginx's minimum is 32.
func zoneSize(servers []balancer.Server) int { return max(32, 24+len(servers)) }

func group(service string) string { return "app_" + service }

func page(title, text string) string {
	return fmt.Sprintf(`'<!doctype html><title>%s</title><h1>%s</h1><p>%s</p>\n'`, title, title, text)
}
