package manifest

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// A setting is checked as a text; a list is checked item by item.
type setting struct {
	check func(string) error
	list  bool
}

var (
	aText     = setting{check: func(string) error { return nil }}
	anAddress = setting{check: checkAddress}
	aPath     = setting{check: spec.CheckPlainPath}
	aProgram  = setting{check: checkProgram}
	aDuration = setting{check: checkLength}
	aCount    = setting{check: checkCount}
	aLevel    = setting{check: checkLevel}
)

// companions are the settings of each companion that a companion app can run. They are those of its configuration file except what the
// node sets: its folder, its name and the ResourceManager.
var companions = map[string]map[string]setting{
	"nginx": {
		"listen": anAddress, "tlsListen": anAddress, "certificates": aPath, "program": aProgram, "workers": aCount, "lostAfter": aDuration,
		"keepOld": aDuration, "maxOld": aCount, "logLevel": aLevel, "attach": aPath, "include": aPath, "pid": aPath,
	},
	"haproxy": {
		"listen": anAddress, "tlsListen": anAddress, "certificates": aPath, "program": aProgram, "lostAfter": aDuration, "keepOld": aDuration,
		"maxOld": aCount, "logLevel": aLevel,
	},
	"zookeeper": {
		"zookeeper": {check: checkServer, list: true}, "chroot": aPath, "path": aPath, "zone": aText, "sessionTimeout": aDuration, "logLevel": aLevel,
	},
	"dns": {"listen": anAddress, "domain": aText, "ttl": aDuration, "logLevel": aLevel},
}

// ReadyMark is a file in the working directory of a balancer's companion. It exists while the proxy routes as the zone wants.
const ReadyMark = "ready"

// balancers are the companions that are balancers.
var balancers = []string{"nginx", "haproxy"}

// readyProbe is the health check of a balancer's companion. With a configuration that the proxy refuses, the rollout fails and is
// reverted.
func readyProbe() *corev1.HealthCheck {
	check := defaults.Probe()
	check.Interval = durationpb.New(5 * time.Second)
	check.Probe = &corev1.HealthCheck_Exec_{Exec: &corev1.HealthCheck_Exec{
		Command: []string{"test", "-e", ReadyMark},
	}}
	return check
}

// companion is what a manifest says of the companion of a role.
type companion struct {
	// command runs one that is part of Mammoth.
	command []string
	// packaged is one of a framework package.
	packaged *apiv1.Companion
}

// readCompanion reads {nginx: {listen: …}} into the command that runs it. Another name is that of a framework package, whose schema the zone
// has.
func readCompanion(d *decoder, into *companion) rule {
	return func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode { // as it is by itself
			oneCompanion(d, n, nil, into)
			return
		}
		count := 0
		d.entries(n, "companion", func(_ string, key, value *yaml.Node) {
			count++
			if value.Kind == yaml.ScalarNode && value.Tag == "!!null" {
				d.fail(key, "%s has no value; give it one or remove the key", key.Value)
				return
			}
			oneCompanion(d, key, value, into)
		})
		if n.Kind == yaml.MappingNode && count != 1 {
			d.fail(n, "companion must have exactly one of %s and the names of framework packages, but has %d", strings.Join(keys(companions), ", "), count)
		}
	}
}

// oneCompanion reads the companion of a name, with its settings; nil if it has none.
func oneCompanion(d *decoder, name, settings *yaml.Node, into *companion) {
	if known := companions[name.Value]; known != nil {
		into.command = []string{"mammoth", "companion", name.Value}
		if settings != nil {
			into.command = append(into.command, readSettings(d, settings, name.Value, known)...)
		}
		return
	}
	if err := spec.CheckName("a companion", name.Value); err != nil {
		d.fail(name, "%v", err)
		return
	}
	into.packaged = &apiv1.Companion{Package: name.Value}
	if settings != nil {
		readStructure(d, name.Value, &into.packaged.Options)(settings)
	}
}

// readSettings reads a companion's settings into its flags: tlsListen is --tls-listen.
func readSettings(d *decoder, n *yaml.Node, companion string, known map[string]setting) []string {
	values := map[string][]string{}
	rules := fields{}
	for name, one := range known {
		read := func(n *yaml.Node) {
			var value string
			before := d.mistakes()
			d.text(name, &value, func(text string) error {
				if err := one.check(text); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				return nil
			})(n)
			if d.mistakes() == before {
				values[name] = append(values[name], value)
			}
		}
		rules[name] = read
		if one.list {
			rules[name] = func(n *yaml.Node) {
				if n.Kind == yaml.ScalarNode {
					read(n)
					return
				}
				d.list(n, name, read)
			}
		}
	}
	present := d.object(n, companion, rules)
	if present["tlsListen"] != nil && present["certificates"] == nil {
		d.fail(present["tlsListen"], "tlsListen needs certificates, a folder of NAME.crt and NAME.key on the node")
	}
	var flags []string
	for _, name := range keys(values) {
		flags = append(flags, spec.Flag(name, values[name]...))
	}
	return flags
}

// program has what a manifest says about the program of a role.
type program struct {
	kind      apiv1.AppSpec_Kind
	what      string
	role      *apiv1.RoleSpec
	companion companion
}

// readProgram checks that a role has a program: in an app an image; in a companion app an image, a program of the node, or a companion.
func readProgram(d *decoder, n *yaml.Node, present map[string]*yaml.Node, p program) {
	image, command, named := present["image"], present["command"], present["companion"]
	switch {
	case n.Kind != yaml.MappingNode:
	case named != nil && p.kind != apiv1.AppSpec_COMPANION:
		d.fail(named, "only a companion app can have a companion; set kind: companion")
	case named != nil:
		for _, other := range []string{"image", "command", "args"} {
			if present[other] != nil {
				d.fail(present[other], "%s cannot be set beside companion: the companion is the program", other)
			}
		}
		p.role.Command, p.role.Companion = p.companion.command, p.companion.packaged
		if present["health"] == nil && len(p.role.GetCommand()) > 2 && slices.Contains(balancers, p.role.GetCommand()[2]) {
			p.role.Health = readyProbe()
		}
		if p.role.GetCompanion() != nil && present["resources"] == nil {
			p.role.Resources = nil // as the package says
		}
	case image == nil && p.kind == apiv1.AppSpec_COMPANION && command == nil:
		d.fail(n, "%s has no image, no companion and no command", p.what)
	case image == nil && p.kind != apiv1.AppSpec_COMPANION && command != nil:
		d.fail(command, "%s has no image; only a companion app may run a program of the node", p.what)
	case image == nil && p.kind != apiv1.AppSpec_COMPANION:
		d.require(n, present, p.what, "image")
	}
}

func checkAddress(text string) error {
	host, port, err := net.SplitHostPort(text)
	number, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || number == 0 || net.ParseIP(host) == nil {
		return fmt.Errorf("%q is not an address as in 127.0.0.1:8080", text)
	}
	return nil
}

var programName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+-]*$`)

func checkProgram(text string) error {
	if programName.MatchString(text) {
		return nil
	}
	return spec.CheckPlainPath(text)
}

func checkLength(text string) error {
	if value, err := time.ParseDuration(text); err != nil || value < 0 {
		return fmt.Errorf("%q is not a duration as in 500ms, 10s or 5m", text)
	}
	return nil
}

func checkCount(text string) error {
	if n, err := strconv.Atoi(text); err != nil || n < 1 || n > 1024 {
		return fmt.Errorf("%q is not a number between 1 and 1024", text)
	}
	return nil
}

func checkLevel(text string) error {
	switch text {
	case "debug", "info", "warn", "error":
		return nil
	}
	return fmt.Errorf("%q is none of debug, info, warn and error", text)
}

func checkServer(text string) error {
	if host, port, err := net.SplitHostPort(text); err != nil || host == "" || port == "" || strings.Contains(text, ",") {
		return fmt.Errorf("%q is not a server as in 127.0.0.1:2181", text)
	}
	return nil
}
