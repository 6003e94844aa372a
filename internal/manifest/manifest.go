// Package manifest reads the files that people write for a zone: manifests of apps, queue trees, lending contracts, framework
// packages and configuration files. It reports all mistakes of a file together, each as one sentence with its line.
//
// It owns the form of the files: their keys, the text of quantities and durations, and where a mistake is. What a spec may contain is
// decided by package spec.
package manifest

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/cron"
	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func checkAppName(name string) error { return spec.CheckName("an app", name) }

// CheckInstances returns why n cannot be a number of instances, one sentence; nil if it can.
func CheckInstances(n int64) error {
	switch {
	case n < 1:
		return fmt.Errorf("an app has at least 1 instance, not %d; `mammoth app stop` ends them all and keeps the app", n)
	case n > math.MaxInt32:
		return fmt.Errorf("%d instances are more than any zone can hold", n)
	case n > spec.MaxInstances:
		return spec.TooMany(n)
	}
	return nil
}

// App is a parsed manifest.
type App struct {
	// Spec is the spec of the app, with defaults for what the manifest leaves out. A role's image is as written: a file beside the
	// manifest, or a name in the zone's image store.
	Spec    *apiv1.AppSpec
	root    *yaml.Node
	decoder *decoder
}

// ParseApp parses an app's manifest. With an error, of type Errors, it also returns the part that could be parsed, nil if there is
// none.
func ParseApp(data []byte) (*App, error) {
	d := &decoder{}
	root := d.document(data, "a manifest")
	if root == nil || refuseOther(d, root, appFile) {
		return nil, d.err()
	}
	app := &apiv1.AppSpec{}
	readApp(d, root, app)
	return &App{app, root, d}, d.err()
}

// Fail adds faults that others have found in the spec as mistakes in the manifest, except where a value has a mistake already.
func (a *App) Fail(faults spec.Faults) { addFaults(a.decoder, a.root, faults) }

// Err returns all mistakes, of type Errors; nil if there are none.
func (a *App) Err() error { return a.decoder.err() }

// readKind reads an app's kind. A framework is what brings a master, so the kind does not have that name any more.
func readKind(d *decoder, into *apiv1.AppSpec_Kind) rule {
	read := choice(d, "kind", map[string]apiv1.AppSpec_Kind{"app": apiv1.AppSpec_APP, "companion": apiv1.AppSpec_COMPANION}, into)
	return func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && n.Value == "framework" {
			*into = apiv1.AppSpec_COMPANION // the rest of the manifest is checked as that of a companion app
			d.fail(n, "no kind is named framework any more; write kind: companion")
			return
		}
		read(n)
	}
}

func readApp(d *decoder, root *yaml.Node, app *apiv1.AppSpec) {
	single := defaults.Role()
	var roles *yaml.Node
	var runs companion
	fields := roleFields(d, single)
	fields["companion"] = readCompanion(d, &runs)
	roleKeys := keys(fields)
	fields["name"] = d.text("name", &app.Name, checkAppName)
	fields["queue"] = d.text("queue", &app.Queue)
	fields["priority"] = d.integer("priority", math.MinInt32, math.MaxInt32, func(n int64) { app.Priority = int32(n) })
	fields["kind"] = readKind(d, &app.Kind)
	fields["framework"] = d.text("framework", &app.Framework, func(name string) error { return spec.CheckName("a framework", name) })
	fields["options"] = readStructure(d, "options", &app.Options)
	fields["roles"] = func(n *yaml.Node) { roles = n }
	present := d.object(root, "a manifest", fields)

	d.require(root, present, "the manifest", "name")
	if named := present["framework"]; named != nil && named.Value != spec.DynamicDeploy {
		readFramework(d, present, roleKeys)
		checkApp(d, root, app)
		return
	}
	if roles == nil {
		readProgram(d, root, present, program{app.Kind, "the manifest", single, runs})
		app.Roles = []*apiv1.RoleSpec{single}
		checkApp(d, root, app)
		return
	}
	for _, key := range roleKeys {
		if n := present[key]; n != nil {
			d.fail(n, "%q must be inside each role, since the app has roles", key)
		}
	}
	d.entries(roles, "roles", func(name string, key, value *yaml.Node) {
		if err := spec.CheckName("a role", name); err != nil {
			d.fail(key, "%v", err)
		}
		role := defaults.Role()
		role.Name = name
		what := fmt.Sprintf("role %q", name)
		var runs companion
		fields := roleFields(d, role)
		fields["companion"] = readCompanion(d, &runs)
		present := d.object(value, what, fields)
		readProgram(d, value, present, program{app.Kind, what, role, runs})
		app.Roles = append(app.Roles, role)
	})
	if len(app.Roles) == 0 && roles.Kind == yaml.MappingNode {
		d.fail(roles, "roles is empty; an app has at least one")
	}
	checkApp(d, root, app)
}

func roleFields(d *decoder, r *apiv1.RoleSpec) fields {
	return fields{
		"image":        d.text("image", &r.Image),
		"after":        d.texts("after", &r.After),
		"instances":    func(n *yaml.Node) { readInstances(d, n, r) },
		"schedule":     func(n *yaml.Node) { readSchedule(d, n, r) },
		"resources":    func(n *yaml.Node) { readResources(d, n, r) },
		"ports":        func(n *yaml.Node) { readPorts(d, n, r) },
		"env":          func(n *yaml.Node) { readEnv(d, n, r) },
		"health":       func(n *yaml.Node) { r.Health = readHealth(d, n) },
		"expose":       func(n *yaml.Node) { readExpose(d, n, r) },
		"placement":    func(n *yaml.Node) { readPlacement(d, n, r.Placement) },
		"update":       func(n *yaml.Node) { readUpdate(d, n, r.Update) },
		"restart":      func(n *yaml.Node) { readRestart(d, n, r.Restart) },
		"stop":         func(n *yaml.Node) { readStop(d, n, r.Stop) },
		"command":      func(n *yaml.Node) { readCommand(d, n, r) },
		"args":         func(n *yaml.Node) { readArgs(d, n, r) },
		"network":      choice(d, "network", networks, &r.Network),
		"readOnlyRoot": d.flag("readOnlyRoot", &r.ReadOnlyRoot),
		"workingDir":   d.text("workingDir", &r.WorkingDir),
		"user":         d.text("user", &r.User),
	}
}

func readCommand(d *decoder, n *yaml.Node, r *apiv1.RoleSpec) {
	d.texts("command", &r.Command)(n)
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.fail(n, "command is empty; leave the key out for the image's own entry point")
	}
}

// readArgs distinguishes an empty list from a missing one: the empty list removes the image's arguments.
func readArgs(d *decoder, n *yaml.Node, r *apiv1.RoleSpec) {
	var args []string
	d.texts("args", &args)(n)
	spec.SetArgs(r, args)
}

func readInstances(d *decoder, n *yaml.Node, r *apiv1.RoleSpec) {
	d.integer("instances", math.MinInt64, math.MaxInt64, func(count int64) {
		if err := CheckInstances(count); err != nil {
			d.fail(n, "%v", err)
			return
		}
		r.Instances = int32(count)
	})(n)
}

var networks = map[string]corev1.ContainerSpec_Network{"bridge": corev1.ContainerSpec_BRIDGE, "host": corev1.ContainerSpec_HOST}

var policies = map[string]apiv1.Placement_Policy{"spread": apiv1.Placement_SPREAD, "pack": apiv1.Placement_PACK}

var strategies = map[string]apiv1.UpdatePolicy_Strategy{
	"rolling": apiv1.UpdatePolicy_ROLLING, "canary": apiv1.UpdatePolicy_CANARY, "blue-green": apiv1.UpdatePolicy_BLUE_GREEN,
}

// checkApp checks the whole app. A fault of a value with a mistake is not reported.
func checkApp(d *decoder, root *yaml.Node, app *apiv1.AppSpec) {
	whole := proto.CloneOf(app)
	spec.Complete(whole)
	var faults spec.Faults
	if errors.As(spec.CheckDraft(whole), &faults) {
		addFaults(d, root, faults)
	}
}

func addFaults(d *decoder, root *yaml.Node, faults spec.Faults) {
	// Several faults may be of one value: the fault of a missing key is reported where the key is missing.
	type located struct {
		at *yaml.Node
		spec.Fault
	}
	var found []located
	for _, fault := range faults {
		if at := faulty(root, fault); d.mistakes()+len(found) <= maxErrors && !d.failedIn(at) {
			found = append(found, located{at, fault})
		}
	}
	for _, fault := range found {
		d.fail(fault.at, "%s", fault.Sentence)
	}
}

// faulty is the value with a fault, or the mapping in which it is missing.
func faulty(root *yaml.Node, fault spec.Fault) *yaml.Node {
	if fault.Role != "" {
		root = find(root, []string{"roles", fault.Role})
	}
	return find(root, fault.Key)
}

// find follows keys and indexes, and returns the last value that exists.
func find(n *yaml.Node, keys []string) *yaml.Node {
	for _, key := range keys {
		var next *yaml.Node
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == key {
					next = n.Content[i+1]
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(n.Content) {
				next = n.Content[i]
			}
		}
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

func readSchedule(d *decoder, n *yaml.Node, r *apiv1.RoleSpec) {
	d.list(n, "schedule", func(n *yaml.Node) {
		entry := &apiv1.ScheduleEntry{}
		present := d.object(n, "an entry of schedule", fields{
			"cron":     d.text("cron", &entry.Cron, cron.Check),
			"timezone": d.text("timezone", &entry.Timezone, checkTimezone),
			// Unlike the count itself, a schedule may have 0, for example at night.
			"instances": d.integer("instances", math.MinInt32, math.MaxInt32, func(n int64) { entry.Instances = int32(n) }),
		})
		d.require(n, present, "an entry of schedule", "cron", "instances")
		r.Schedule = append(r.Schedule, entry)
	})
}

func readResources(d *decoder, n *yaml.Node, r *apiv1.RoleSpec) {
	d.object(n, "resources", fields{
		"cpu":      d.quantity("cpu", resource.ParseCPU, &r.Resources.CpuMillis),
		"memory":   d.quantity("memory", resource.ParseBytes, &r.Resources.MemoryBytes),
		"disk":     d.quantity("disk", resource.ParseBytes, &r.Resources.DiskBytes),
		"pids":     d.integer("pids", 1, spec.MaxPids, func(n int64) { r.Pids = n }),
		"extended": readExtended(d, r.Resources),
	})
}

func readExtended(d *decoder, r *corev1.Resources) rule {
	return func(n *yaml.Node) {
		d.entries(n, "extended", func(name string, _, value *yaml.Node) {
			d.integer(name, math.MinInt64, math.MaxInt64, func(n int64) {
				if r.Extended == nil {
					r.Extended = map[string]int64{}
				}
				r.Extended[name] = n
			})(value)
		})
	}
}

func readPorts(d *decoder, n *yaml.Node, r *apiv1.RoleSpec) {
	d.list(n, "ports", func(n *yaml.Node) {
		port := &corev1.Port{}
		if n.Kind == yaml.ScalarNode {
			parsed, err := ParsePort(n.Value, len(r.Ports))
			if err != nil {
				d.fail(n, "%v", err)
				return
			}
			r.Ports = append(r.Ports, parsed)
			return
		}
		present := d.object(n, "a port", fields{
			"name":      d.text("name", &port.Name, spec.CheckPortName),
			"container": d.integer("container", math.MinInt32, math.MaxInt32, func(n int64) { port.ContainerPort = int32(n) }),
		})
		d.require(n, present, "a port", "name")
		r.Ports = append(r.Ports, port)
	})
}

func readEnv(d *decoder, n *yaml.Node, r *apiv1.RoleSpec) {
	d.entries(n, "env", func(name string, key, value *yaml.Node) {
		if err := spec.CheckEnvName(name); err != nil {
			d.fail(key, "%v", err)
			return
		}
		if value.Kind != yaml.ScalarNode {
			d.fail(value, "%s in env must be a text, not %s", name, kindOf(value))
			return
		}
		if r.Env == nil {
			r.Env = map[string]string{}
		}
		// Take the text as written: DEBUG: true is the word true, and VERSION: 1.10 keeps its zero.
		if value.Tag != "!!null" {
			r.Env[name] = value.Value
		} else {
			r.Env[name] = ""
		}
	})
}

func readPlacement(d *decoder, n *yaml.Node, p *apiv1.Placement) {
	d.object(n, "placement", fields{
		"policy":       choice(d, "policy", policies, &p.Policy),
		"constraints":  d.texts("constraints", &p.Constraints),
		"maxPerNode":   d.integer("maxPerNode", math.MinInt32, math.MaxInt32, func(n int64) { p.MaxPerNode = int32(n) }),
		"spreadOver":   d.text("spreadOver", &p.SpreadOver),
		"affinity":     d.texts("affinity", &p.Affinity),
		"antiAffinity": d.texts("antiAffinity", &p.AntiAffinity),
	})
}

func readUpdate(d *decoder, n *yaml.Node, u *apiv1.UpdatePolicy) {
	d.object(n, "update", fields{
		"strategy":       choice(d, "strategy", strategies, &u.Strategy),
		"maxSurge":       d.integer("maxSurge", math.MinInt32, math.MaxInt32, func(n int64) { u.MaxSurge = int32(n) }),
		"maxUnavailable": d.integer("maxUnavailable", math.MinInt32, math.MaxInt32, func(n int64) { u.MaxUnavailable = int32(n) }),
		"autoRevert":     d.flag("autoRevert", &u.AutoRevert),
		"minHealthy":     d.duration("minHealthy", &u.MinHealthy),
		"deadline":       d.duration("deadline", &u.Deadline),
		// The share 0 would mean a canary with all requests.
		"canaryPercent":   d.integer("canaryPercent", 1, 100, func(n int64) { u.CanaryPercent = int32(n) }),
		"exclusive":       d.flag("exclusive", &u.Exclusive),
		"maxErrorPercent": d.number("maxErrorPercent", 0, 100, &u.MaxErrorPercent),
	})
	if u.MaxSurge == 0 && u.MaxUnavailable == 0 && !d.failedIn(n) {
		d.fail(n, "maxSurge and maxUnavailable are both 0, which leaves a rollout no room; set one of them to 1 or more")
	}
}

func readRestart(d *decoder, n *yaml.Node, r *apiv1.RestartPolicy) {
	d.object(n, "restart", fields{
		"window":      d.duration("window", &r.Window),
		"maxFailures": d.integer("maxFailures", 1, 1_000_000, func(n int64) { r.MaxFailures = int32(n) }),
		"backoff":     d.duration("backoff", &r.Backoff),
		"maxBackoff":  d.duration("maxBackoff", &r.MaxBackoff),
	})
}

func readStop(d *decoder, n *yaml.Node, s *apiv1.StopPolicy) {
	d.object(n, "stop", fields{
		"grace":  d.duration("grace", &s.Grace),
		"drain":  d.duration("drain", &s.Drain),
		"signal": d.text("signal", &s.Signal),
	})
}
