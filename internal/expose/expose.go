// Package expose has the rules of how apps are exposed: what an Expose may contain, and when two apps conflict. Balancers
// write values that passed Check into configuration files, so Check admits nothing that is special there.
//
// Vocabulary: a claim is a host with a path, or a port, that one app takes for itself.
package expose

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// AnyHost is the host of requests for hosts that no app has.
const AnyHost = "*"

// Defaults of what an Expose leaves out.
const (
	DefaultConnect = time.Second
	DefaultIdle    = time.Minute
	DefaultBody    = 1 << 20
)

const (
	maxNames    = 64
	maxPath     = 256
	maxHost     = 253
	maxBody     = 1 << 50
	lowestPort  = 1024
	highestPort = 65535
)

// Hosts is every host name of h, sorted, each once.
func Hosts(h *apiv1.Expose_Http) []string { return names(h.GetHost(), h.GetHosts()) }

// Paths is every path prefix of h without a closing "/", sorted, each once; "/" if it names none.
func Paths(h *apiv1.Expose_Http) []string {
	var list []string
	for _, path := range names(h.GetPath(), h.GetPaths()) {
		if path != "/" {
			path = strings.TrimSuffix(path, "/")
		}
		list = append(list, path)
	}
	if len(list) == 0 {
		return []string{"/"}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Connect is the time to reach an instance: at most half of Idle, so that a failed connection is distinguished from a
// missing answer.
func Connect(e *apiv1.Expose) time.Duration {
	return min(orDefault(e.GetTimeouts().GetConnect(), DefaultConnect), Idle(e)/2)
}

// Idle is the time between two reads or writes.
func Idle(e *apiv1.Expose) time.Duration { return orDefault(e.GetTimeouts().GetIdle(), DefaultIdle) }

// ClientIdle is the time between two reads or writes of a client: Idle, and no less than a slow network needs.
func ClientIdle(e *apiv1.Expose) time.Duration { return max(Idle(e), DefaultIdle) }

// Body is the largest request body; negative is no limit.
func Body(h *apiv1.Expose_Http) int64 {
	if h.GetMaxBodyBytes() == 0 {
		return DefaultBody
	}
	return h.GetMaxBodyBytes()
}

// Check returns what is wrong with an Expose, one sentence, as errdefs.ErrInvalidArgument. Nil is valid: the service is not
// exposed. ports are the names of the role's ports.
func Check(e *apiv1.Expose, ports []string) error {
	if e == nil {
		return nil
	}
	if why := problem(e, ports); why != "" {
		return fmt.Errorf("expose: %s: %w", why, errdefs.ErrInvalidArgument)
	}
	return nil
}

func problem(e *apiv1.Expose, ports []string) string {
	if e.GetHttp() == nil && len(e.GetTcp()) == 0 {
		return "names neither http nor tcp"
	}
	if _, known := apiv1.Expose_Balance_name[int32(e.GetBalance())]; !known {
		return "balance must be round robin, least connections or hash"
	}
	if _, known := apiv1.Expose_Retry_name[int32(e.GetRetry())]; !known {
		return "retry must be idempotent or off"
	}
	if connect := orDefault(e.GetTimeouts().GetConnect(), DefaultConnect); connect < 10*time.Millisecond || connect > time.Minute {
		return fmt.Sprintf("the connect timeout must be between 10ms and 1m, but is %s", connect)
	}
	if idle := Idle(e); idle < time.Second || idle > 24*time.Hour {
		return fmt.Sprintf("the idle timeout must be between 1s and 24h, but is %s", idle)
	}
	if len(e.GetTcp()) > maxNames {
		return fmt.Sprintf("has %d tcp ports, at most %d are allowed", len(e.GetTcp()), maxNames)
	}
	for _, tcp := range e.GetTcp() {
		if tcp.GetListen() < lowestPort || tcp.GetListen() > highestPort {
			return fmt.Sprintf("a tcp port must be between %d and %d, but is %d", lowestPort, highestPort, tcp.GetListen())
		}
		if why := portProblem(tcp.GetPort(), ports); why != "" {
			return why
		}
	}
	if e.GetHttp() == nil {
		return ""
	}
	return httpProblem(e.GetHttp(), ports)
}

func httpProblem(h *apiv1.Expose_Http, ports []string) string {
	hosts, paths := Hosts(h), Paths(h)
	if len(hosts) == 0 {
		return `http needs a host; "*" takes the requests that no other app claims`
	}
	if len(hosts) > maxNames || len(paths) > maxNames {
		return fmt.Sprintf("has %d hosts and %d paths, at most %d of each are allowed", len(hosts), len(paths), maxNames)
	}
	for _, host := range hosts {
		if why := hostProblem(host); why != "" {
			return fmt.Sprintf("the host %s %s", quote(host), why)
		}
	}
	for _, path := range paths {
		if why := pathProblem(path); why != "" {
			return fmt.Sprintf("the path %s %s", quote(path), why)
		}
	}
	if why := portProblem(h.GetPort(), ports); why != "" {
		return why
	}
	if name := h.GetCertificate(); name != "" && (!only(name, "abcdefghijklmnopqrstuvwxyz0123456789-._") || name[0] == '.' || len(name) > maxNames) {
		return fmt.Sprintf("the certificate %s must be a name of lower-case letters, digits, \"-\", \"_\" and \".\", at most %d", quote(name), maxNames)
	}
	if name := h.GetStickyCookie(); name != "" && (!only(name, letters+digits+"_") || len(name) > maxNames) {
		return fmt.Sprintf("the cookie %s must be a name of letters, digits and \"_\", at most %d", quote(name), maxNames)
	}
	if h.GetMaxBodyBytes() > maxBody {
		return fmt.Sprintf("the largest body is %d bytes, at most %d are allowed; negative is no limit", h.GetMaxBodyBytes(), int64(maxBody))
	}
	return ""
}

const (
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func hostProblem(host string) string {
	if host == AnyHost {
		return ""
	}
	if len(host) > maxHost {
		return fmt.Sprintf("is longer than %d characters", maxHost)
	}
	name := strings.TrimPrefix(host, "*.")
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case strings.ToLower(label) != label:
			return "must be in lower case"
		case label == "" || len(label) > 63 || !only(label, "abcdefghijklmnopqrstuvwxyz0123456789-"),
			label[0] == '-', label[len(label)-1] == '-':
			return `is not a DNS name (letters, digits and "-" between dots; "*." may stand before it)`
		}
	}
	return ""
}

func pathProblem(path string) string {
	switch {
	case len(path) > maxPath:
		return fmt.Sprintf("is longer than %d characters", maxPath)
	case !strings.HasPrefix(path, "/"):
		return `must start with "/"`
	case path == "/":
		return ""
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if segment == "" || segment == "." || segment == ".." || !only(segment, letters+digits+"-._~") {
			return `is not a plain prefix (letters, digits, "-", ".", "_" and "~" between single slashes; no patterns)`
		}
	}
	return ""
}

func portProblem(port string, ports []string) string {
	switch {
	case port == "" && len(ports) == 0:
		return "the role has no port to route to"
	case port == "" || slices.Contains(ports, port):
		return ""
	}
	return fmt.Sprintf("the role has no port named %s, only %s", quote(port), strings.Join(ports, ", "))
}

// Conflict returns which of the others already has what name claims, one sentence, as errdefs.ErrAlreadyExists. Everything
// must have passed Check.
func Conflict(name string, e *apiv1.Expose, others map[string]*apiv1.Expose) error {
	taken := Claims{}
	for _, other := range slices.Sorted(maps.Keys(others)) {
		if other != name {
			taken.add(other, others[other])
		}
	}
	return taken.conflict(e)
}

// Claims maps hosts with paths, and TCP ports, to the apps that have them.
type Claims map[claim]string

// Take gives an app all that it claims, or nothing and the error of Conflict.
func (c Claims) Take(name string, e *apiv1.Expose) error {
	if err := c.conflict(e); err != nil {
		return err
	}
	c.add(name, e)
	return nil
}

func (c Claims) add(name string, e *apiv1.Expose) {
	for _, claim := range claims(e) {
		if _, earlier := c[claim]; !earlier {
			c[claim] = name
		}
	}
}

func (c Claims) conflict(e *apiv1.Expose) error {
	for _, claim := range claims(e) {
		if other, ok := c[claim]; ok {
			return fmt.Errorf("%s is already routed to app %q; choose another one, or remove it there first: %w", claim, other, errdefs.ErrAlreadyExists)
		}
	}
	return nil
}

// claim is a host with a path, or a TCP port.
type claim struct {
	host, path string
	port       int32
}

func (c claim) String() string {
	if c.port != 0 {
		return fmt.Sprintf("tcp port %d", c.port)
	}
	return fmt.Sprintf("host %q with path %q", c.host, c.path)
}

// claims lists what an app claims.
func claims(e *apiv1.Expose) []claim {
	var list []claim
	if h := e.GetHttp(); h != nil {
		for _, host := range Hosts(h) {
			for _, path := range Paths(h) {
				list = append(list, claim{host: host, path: path})
			}
		}
	}
	for _, tcp := range e.GetTcp() {
		list = append(list, claim{port: tcp.GetListen()})
	}
	return list
}

func names(one string, more []string) []string {
	list := slices.Clone(more)
	if one != "" {
		list = append(list, one)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func only(text, allowed string) bool { return text != "" && strings.Trim(text, allowed) == "" }

// quote quotes a person's text, truncated for a message.
func quote(text string) string {
	if len(text) > 80 {
		return fmt.Sprintf("%q…", text[:80])
	}
	return fmt.Sprintf("%q", text)
}

func orDefault(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}
