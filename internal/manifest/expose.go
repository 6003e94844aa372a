package manifest

import (
	"go.yaml.in/yaml/v3"

	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

var balances = map[string]apiv1.Expose_Balance{
	"round-robin": apiv1.Expose_ROUND_ROBIN, "least-connections": apiv1.Expose_LEAST_CONNECTIONS, "hash": apiv1.Expose_HASH,
}

var retries = map[string]apiv1.Expose_Retry{"idempotent": apiv1.Expose_IDEMPOTENT, "off": apiv1.Expose_OFF}

// unlimited is the value of maxBody for a body of any size.
const unlimited = "unlimited"

// readExpose decodes how balancers reach the role. The check of the whole role follows later.
func readExpose(d *decoder, n *yaml.Node, r *apiv1.RoleSpec) {
	e := &apiv1.Expose{}
	d.object(n, "expose", fields{
		"http": func(n *yaml.Node) { e.Http = readHTTPExposure(d, n) },
		"tcp": func(n *yaml.Node) {
			d.list(n, "tcp", func(n *yaml.Node) { e.Tcp = append(e.Tcp, readTCPExposure(d, n)) })
		},
		"balance": choice(d, "balance", balances, &e.Balance),
		"retry":   choice(d, "retry", retries, &e.Retry),
		"timeouts": func(n *yaml.Node) {
			e.Timeouts = &apiv1.Expose_Timeouts{}
			d.object(n, "timeouts", fields{
				"connect": d.duration("connect", &e.Timeouts.Connect),
				"idle":    d.duration("idle", &e.Timeouts.Idle),
			})
		},
	})
	r.Expose = e
}

func readHTTPExposure(d *decoder, n *yaml.Node) *apiv1.Expose_Http {
	h := &apiv1.Expose_Http{}
	d.object(n, "http", fields{
		"host":         d.text("host", &h.Host),
		"hosts":        d.texts("hosts", &h.Hosts),
		"path":         d.text("path", &h.Path),
		"paths":        d.texts("paths", &h.Paths),
		"port":         d.text("port", &h.Port),
		"certificate":  d.text("certificate", &h.Certificate),
		"stickyCookie": d.text("stickyCookie", &h.StickyCookie),
		"maxBody": func(n *yaml.Node) {
			if n.Value == unlimited {
				h.MaxBodyBytes = -1
				return
			}
			d.quantity("maxBody", resource.ParseBytes, &h.MaxBodyBytes)(n)
		},
	})
	if h.Path == "" && len(h.Paths) == 0 {
		h.Path = "/"
	}
	return h
}

func readTCPExposure(d *decoder, n *yaml.Node) *apiv1.Expose_Tcp {
	t := &apiv1.Expose_Tcp{}
	present := d.object(n, "an entry of tcp", fields{
		"listen": d.integer("listen", 1, 65535, func(n int64) { t.Listen = int32(n) }),
		"port":   d.text("port", &t.Port),
	})
	d.require(n, present, "an entry of tcp", "listen")
	return t
}

func (m *mapping) expose(e *apiv1.Expose) {
	if e == nil {
		return
	}
	outer := &mapping{}
	if h := e.GetHttp(); h != nil {
		inner := &mapping{}
		inner.text("host", h.GetHost())
		inner.texts("hosts", h.GetHosts())
		inner.text("path", h.GetPath())
		inner.texts("paths", h.GetPaths())
		inner.text("port", h.GetPort())
		inner.text("certificate", h.GetCertificate())
		inner.text("stickyCookie", h.GetStickyCookie())
		if h.GetMaxBodyBytes() < 0 {
			inner.text("maxBody", unlimited)
		} else {
			inner.bytes("maxBody", h.GetMaxBodyBytes())
		}
		outer.object("http", inner)
	}
	var tcp []*mapping
	for _, t := range e.GetTcp() {
		one := &mapping{}
		one.always("listen", int64(t.GetListen()))
		one.text("port", t.GetPort())
		tcp = append(tcp, one)
	}
	outer.list("tcp", tcp)
	if e.GetBalance() != apiv1.Expose_ROUND_ROBIN {
		outer.text("balance", nameOf(balances, e.GetBalance()))
	}
	if e.GetRetry() != apiv1.Expose_IDEMPOTENT {
		outer.text("retry", nameOf(retries, e.GetRetry()))
	}
	if e.GetTimeouts() != nil {
		timeouts := &mapping{}
		timeouts.duration("connect", e.GetTimeouts().GetConnect())
		timeouts.duration("idle", e.GetTimeouts().GetIdle())
		outer.add("timeouts", timeouts.whole())
	}
	m.object("expose", outer)
}
