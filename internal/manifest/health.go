package manifest

import (
	"go.yaml.in/yaml/v3"

	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/spec"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// readHealth decodes a health check in its long or short form.
func readHealth(d *decoder, n *yaml.Node) *corev1.HealthCheck {
	if n.Kind == yaml.ScalarNode {
		check, err := ParseHealth(n.Value)
		if err != nil {
			d.fail(n, "%v", err)
		}
		return check
	}
	check := defaults.Probe()
	present := d.object(n, "health", fields{
		"http":        func(n *yaml.Node) { readHTTPProbe(d, n, check) },
		"tcp":         func(n *yaml.Node) { readTCPProbe(d, n, check) },
		"exec":        func(n *yaml.Node) { readExecProbe(d, n, check) },
		"interval":    d.duration("interval", &check.Interval),
		"timeout":     d.duration("timeout", &check.Timeout),
		"healthy":     d.integer("healthy", 1, 1000, func(n int64) { check.Healthy = int32(n) }),
		"unhealthy":   d.integer("unhealthy", 1, 1000, func(n int64) { check.Unhealthy = int32(n) }),
		"startPeriod": d.duration("startPeriod", &check.StartPeriod),
	})
	probes := 0
	for _, kind := range []string{"http", "tcp", "exec"} {
		if present[kind] != nil {
			probes++
		}
	}
	if probes != 1 && n.Kind == yaml.MappingNode {
		d.fail(n, "health must have exactly one of http, tcp and exec, but has %d", probes)
	}
	return check
}

func readHTTPProbe(d *decoder, n *yaml.Node, check *corev1.HealthCheck) {
	probe := &corev1.HealthCheck_Http{}
	present := d.object(n, "http", fields{
		"path": d.text("path", &probe.Path, spec.CheckPath),
		"port": d.text("port", &probe.Port),
	})
	d.require(n, present, "http", "path")
	check.Probe = &corev1.HealthCheck_Http_{Http: probe}
}

func readTCPProbe(d *decoder, n *yaml.Node, check *corev1.HealthCheck) {
	probe := &corev1.HealthCheck_Tcp{}
	d.object(n, "tcp", fields{"port": d.text("port", &probe.Port)})
	check.Probe = &corev1.HealthCheck_Tcp_{Tcp: probe}
}

func readExecProbe(d *decoder, n *yaml.Node, check *corev1.HealthCheck) {
	probe := &corev1.HealthCheck_Exec{}
	present := d.object(n, "exec", fields{"command": d.texts("command", &probe.Command)})
	d.require(n, present, "exec", "command")
	check.Probe = &corev1.HealthCheck_Exec_{Exec: probe}
}
