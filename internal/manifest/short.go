package manifest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	_ "time/tzdata" // a zone name must be checkable on a machine without the database

	"github.com/mammoth-os/mammoth/internal/cron"
	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// ParsePort reads 8080 or NAME=8080. Without a name the first port is called "http", and a later one by its number, "port8081".
// index is its index among the role's ports.
func ParsePort(text string, index int) (*corev1.Port, error) {
	name, number, named := strings.Cut(text, "=")
	if !named {
		name, number = "", text
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 32) // the check of the whole spec checks the range
	if err != nil {
		return nil, fmt.Errorf("%q is not a port; write for example 8080 or http=8080", text)
	}
	switch {
	case !named && index == 0:
		name = "http"
	case !named:
		name = fmt.Sprintf("port%d", n)
	}
	if err := spec.CheckPortName(name); err != nil {
		return nil, err
	}
	return &corev1.Port{Name: name, ContainerPort: int32(n)}, nil
}

// ParseHealth reads the short form of a health check: http:/healthz, http:PORT/healthz, tcp, tcp:PORT,
// exec:/bin/check argument, or none, which gives nil. PORT is a port's name.
func ParseHealth(text string) (*corev1.HealthCheck, error) {
	if first, other := rightForm(text); first != "" {
		return nil, fmt.Errorf("%q is not a health check: a port goes by its name here, without host and number; write %q, or %q for another port than the first", text, first, other)
	}
	kind, rest, _ := strings.Cut(text, ":")
	check := defaults.Probe()
	switch kind {
	case "none":
		if rest == "" {
			return nil, nil
		}
	case "http":
		port, path, ok := strings.Cut(rest, "/")
		if ok && port != "" {
			if err := spec.CheckPortName(port); err != nil {
				return nil, err
			}
		}
		if ok {
			if err := spec.CheckPath("/" + path); err != nil {
				return nil, err
			}
			check.Probe = &corev1.HealthCheck_Http_{Http: &corev1.HealthCheck_Http{Path: "/" + path, Port: port}}
			return check, nil
		}
	case "tcp":
		if rest != "" {
			if err := spec.CheckPortName(rest); err != nil {
				return nil, err
			}
		}
		check.Probe = &corev1.HealthCheck_Tcp_{Tcp: &corev1.HealthCheck_Tcp{Port: rest}}
		return check, nil
	case "exec":
		if command := strings.Fields(rest); len(command) > 0 {
			check.Probe = &corev1.HealthCheck_Exec_{Exec: &corev1.HealthCheck_Exec{Command: command}}
			return check, nil
		}
	}
	return nil, fmt.Errorf("%q is not a health check; write for example http:/healthz, tcp:http, \"exec:/bin/check argument\" or none", text)
}

// rightForm suggests health checks for a text that is a URL, an address or a port's number; empty if it is none of these.
func rightForm(text string) (first, other string) {
	kind, rest, _ := strings.Cut(text, ":")
	kind = strings.ToLower(kind) // as in a URL
	if kind != "http" && kind != "https" && kind != "tcp" {
		return "", ""
	}
	address, slashes := strings.CutPrefix(rest, "//")
	port, path, _ := strings.Cut(address, "/")
	_, err := strconv.ParseUint(port, 10, 16)
	switch {
	case kind == "https", slashes, err == nil, strings.Contains(port, ":"):
	default:
		return "", ""
	}
	if kind == "tcp" {
		return "tcp", "tcp:NAME"
	}
	return "http:/" + path, "http:NAME/" + path
}

// ParseEnv reads NAME=VALUE.
func ParseEnv(text string) (name, value string, err error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return "", "", fmt.Errorf("%q is not a variable; write NAME=VALUE", text)
	}
	if err := spec.CheckEnvName(name); err != nil {
		return "", "", err
	}
	return name, value, spec.CheckEnvValue(name, value)
}

func checkTimezone(name string) error {
	if name == "" {
		return errors.New("\"\" is not a time zone, as in Asia/Shanghai; leave the key out for UTC")
	}
	_, err := cron.Location(name)
	return err
}

// ParseNetwork reads bridge or host.
func ParseNetwork(text string) (corev1.ContainerSpec_Network, error) {
	network, ok := networks[text]
	if !ok {
		return 0, fmt.Errorf("%q is not a network; it is bridge or host", text)
	}
	return network, nil
}

// ParsePolicy reads spread or pack.
func ParsePolicy(text string) (apiv1.Placement_Policy, error) {
	policy, ok := policies[text]
	if !ok {
		return 0, fmt.Errorf("%q is not a placement policy; it is spread or pack", text)
	}
	return policy, nil
}

// ParseStrategy reads the strategy of a rollout.
func ParseStrategy(text string) (apiv1.UpdatePolicy_Strategy, error) {
	strategy, ok := strategies[text]
	if !ok {
		return 0, fmt.Errorf("%q is not a way to update; it is rolling, canary or blue-green", text)
	}
	return strategy, nil
}
