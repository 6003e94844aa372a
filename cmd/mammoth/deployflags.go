package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// deployFlags are the flags of deploy as they were typed.
type deployFlags struct {
	name, queue, health, network, policy string
	// role is the role that is changed; empty of an app that has only one.
	role                     string
	instances                int64
	cpu, memory, disk        string
	ports, env, constraints  []string
	strategy, canary         string
	exclusive                bool
	minHealthy               string
	maxSurge, maxUnavailable int64
	// counted: --instances was given. edited: something was that wins over a manifest.
	counted, edited bool
	dryRun, diff    bool
	file            string
	command         []string
	// args are what stands behind --, nil without one.
	args []string
	wait waiting
}

func (c *deploymentCommands) deployCommand() *cobra.Command {
	f := &deployFlags{}
	cmd := &cobra.Command{
		Use:   "deploy F.image|NAME:TAG|F.yaml|- [-- ARGUMENT...]",
		Short: "Deploy an image or a manifest as an app, or change an app",
		Long: `Deploy makes an app of an image, of a name in the zone's store, or of a manifest.

An image file (a "docker save" or OCI archive, or what "mammoth image pack" made) is
uploaded first. "-" is standard input, which may be either; a manifest is YAML or JSON.
When the app is there already, only what is given changes: a new image is a rollout, and
quotas and counts stay as they were. A manifest replaces all of the app; flags given with
it win over it. --strategy, --canary and
--exclusive hold for this one change; what the manifest says of updates holds again after it.
Arguments after -- replace the image's; a -- with nothing after it gives the program none.

--dry-run and --diff change nothing, but upload image files, whose layers they need to know.
--diff says what would change of the app, key by key, and which instances would be replaced.
Its exit code is 0 if nothing would change and 3 if something would; 1 and 2 are failures and
wrong usage, as they always are.`,
		Example: `  mammoth deploy hello.image --name web --instances 3 --cpu 0.5 --memory 64MiB --disk 64MiB \
      --port 8080 --health http:/healthz --wait
  mammoth deploy hello2.image --name web --wait
  mammoth deploy hello3.image --name web --canary 10%
  mammoth deploy front2.image --name shop --role front
  mammoth deploy web.yaml --dry-run
  mammoth deploy web.yaml --diff`,
		Args:              f.arguments,
		ValidArgsFunction: c.completeDeploy,
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := f.change(cmd.Flags().Changed)
			if err != nil {
				return err
			}
			if f.file != "" {
				return c.deploy(cmd.Context(), f.file, f, change)
			}
			return c.deploy(cmd.Context(), args[0], f, change)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "a manifest, - for standard input")
	flags.StringArrayVar(&f.command, "command", nil, "a word of what is run in place of the image's entry point; repeatable")
	flags.StringVar(&f.name, "name", "", "the app's name (default: the image's)")
	flags.StringVar(&f.role, "role", "", "the role that is given the image and the other flags, of an app with several")
	flags.Int64Var(&f.instances, "instances", 1, "how many instances to keep running")
	flags.StringVar(&f.cpu, "cpu", resource.FormatCPU(defaults.CPUMillis), "cpu of each, in cores or as in 500m")
	flags.StringVar(&f.memory, "memory", resource.FormatBytes(defaults.MemoryBytes), "memory of each, with its unit")
	flags.StringVar(&f.disk, "disk", resource.FormatBytes(defaults.DiskBytes), "disk of each, with its unit")
	flags.StringArrayVar(&f.ports, "port", nil, "a port that it listens on: 8080 or NAME=8080; repeatable")
	flags.StringVar(&f.queue, "queue", "", "the queue that pays for it (default: the zone's)")
	flags.StringArrayVar(&f.env, "env", nil, "an environment variable, NAME=VALUE; repeatable")
	flags.StringVar(&f.health, "health", "none", "how to probe it: http:/PATH, tcp:PORTNAME, \"exec:COMMAND ARGUMENT\" or none")
	flags.StringVar(&f.network, "network", "bridge", "bridge, or host where the operator allows it")
	flags.StringVar(&f.policy, "policy", "", "how to place: spread or pack (default: spread)")
	flags.StringArrayVar(&f.constraints, "constraint", nil, "a test of node attributes, as in \"disk_type == ssd\"; repeatable")
	flags.StringVar(&f.strategy, "strategy", "rolling", "how the new version takes the old one's place: rolling, canary or blue-green")
	flags.StringVar(&f.canary, "canary", "", "the share of the requests that the new version is given until it is promoted, as in 10%")
	flags.BoolVar(&f.exclusive, "exclusive", false, "with blue-green: the new version serves only once the old one is gone")
	flags.Int64Var(&f.maxSurge, "max-surge", 1, "how many instances there may be above the count while they are replaced")
	flags.Int64Var(&f.maxUnavailable, "max-unavailable", 0, "how many may be missing meanwhile: with 1 an old one goes first, where there is no room beside it")
	flags.StringVar(&f.minHealthy, "min-healthy", "10s", "how long an instance has to be healthy before it counts, as in 10s or 0s")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only say what would be placed where, or why not")
	flags.BoolVar(&f.diff, "diff", false, "only say what would change of the app that is there; exit code 3 if anything would")
	f.wait.flags(cmd)
	must(cmd.MarkFlagFilename("file", "yaml", "yml", "json"))
	must(cmd.RegisterFlagCompletionFunc("name", c.completeApps))
	must(cmd.RegisterFlagCompletionFunc("queue", c.completeQueues))
	must(cmd.RegisterFlagCompletionFunc("network", cobra.FixedCompletions([]string{"bridge", "host"}, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("strategy", cobra.FixedCompletions([]string{"rolling", "canary", "blue-green"}, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions([]string{"spread", "pack"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// arguments takes what is to be deployed, and behind -- what its program is told.
func (f *deployFlags) arguments(cmd *cobra.Command, args []string) error {
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		f.args, args = append([]string{}, args[dash:]...), args[:dash]
	}
	switch {
	case f.file != "" && len(args) > 0:
		return usagef("`%s` takes no %q beside -f %s; see `%s --help`", cmd.CommandPath(), args[0], f.file, cmd.CommandPath())
	case f.file != "":
		return nil
	}
	return names("an image file, a NAME:TAG or a manifest")(cmd, args)
}

// change checks what was typed and gives what applies the given flags to a spec, and tells whether there are any.
func (f *deployFlags) change(given func(string) bool) (func(*apiv1.AppSpec) error, error) {
	if given("name") {
		if err := spec.CheckName("an app", f.name); err != nil {
			return nil, usagef("--name: %w", err)
		}
	}
	var edits []func(*apiv1.RoleSpec)
	edit := func(flag string, parse func() (func(*apiv1.RoleSpec), error)) error {
		if !given(flag) {
			return nil
		}
		change, err := parse()
		if err != nil {
			return usagef("--%s: %w", flag, err)
		}
		edits = append(edits, change)
		return nil
	}
	if f.args != nil {
		edits = append(edits, func(r *apiv1.RoleSpec) { spec.SetArgs(r, f.args) })
	}
	err := errors.Join(
		edit("command", func() (func(*apiv1.RoleSpec), error) {
			return func(r *apiv1.RoleSpec) { r.Command = f.command }, nil
		}),
		edit("instances", func() (func(*apiv1.RoleSpec), error) {
			f.counted = true
			return func(r *apiv1.RoleSpec) { r.Instances = int32(f.instances) }, manifest.CheckInstances(f.instances)
		}),
		edit("cpu", func() (func(*apiv1.RoleSpec), error) {
			n, err := positive(resource.ParseCPU(f.cpu))
			return func(r *apiv1.RoleSpec) { quotas(r).CpuMillis = n }, err
		}),
		edit("memory", func() (func(*apiv1.RoleSpec), error) {
			n, err := positive(resource.ParseBytes(f.memory))
			return func(r *apiv1.RoleSpec) { quotas(r).MemoryBytes = n }, err
		}),
		edit("disk", func() (func(*apiv1.RoleSpec), error) {
			n, err := positive(resource.ParseBytes(f.disk))
			return func(r *apiv1.RoleSpec) { quotas(r).DiskBytes = n }, err
		}),
		edit("port", func() (func(*apiv1.RoleSpec), error) {
			var ports []*corev1.Port
			for i, text := range f.ports {
				port, err := manifest.ParsePort(text, i)
				if err != nil {
					return nil, err
				}
				ports = append(ports, port)
			}
			return func(r *apiv1.RoleSpec) { r.Ports = ports }, nil
		}),
		edit("env", func() (func(*apiv1.RoleSpec), error) {
			env := map[string]string{}
			for _, text := range f.env {
				name, value, err := manifest.ParseEnv(text)
				if err != nil {
					return nil, err
				}
				if _, twice := env[name]; twice {
					return nil, fmt.Errorf("%s is given twice", name)
				}
				env[name] = value
			}
			return func(r *apiv1.RoleSpec) {
				if r.Env == nil {
					r.Env = map[string]string{}
				}
				maps.Copy(r.Env, env)
			}, nil
		}),
		edit("health", func() (func(*apiv1.RoleSpec), error) {
			check, err := manifest.ParseHealth(f.health)
			return func(r *apiv1.RoleSpec) { r.Health = check }, err
		}),
		edit("network", func() (func(*apiv1.RoleSpec), error) {
			network, err := manifest.ParseNetwork(f.network)
			return func(r *apiv1.RoleSpec) { r.Network = network }, err
		}),
		edit("policy", func() (func(*apiv1.RoleSpec), error) {
			policy, err := manifest.ParsePolicy(f.policy)
			return func(r *apiv1.RoleSpec) { placement(r).Policy = policy }, err
		}),
		edit("strategy", func() (func(*apiv1.RoleSpec), error) {
			strategy, err := manifest.ParseStrategy(f.strategy)
			return func(r *apiv1.RoleSpec) {
				update(r).Once = &apiv1.UpdatePolicy_OneRollout{Strategy: strategy, Exclusive: f.exclusive}
			}, err
		}),
		edit("canary", func() (func(*apiv1.RoleSpec), error) {
			percent, err := parsePercent(f.canary)
			if err == nil && given("strategy") && f.strategy != "canary" {
				err = fmt.Errorf("it does not go with --strategy %s", f.strategy)
			}
			return func(r *apiv1.RoleSpec) {
				update(r).Once = &apiv1.UpdatePolicy_OneRollout{Strategy: apiv1.UpdatePolicy_CANARY, CanaryPercent: percent}
			}, err
		}),
		edit("max-surge", func() (func(*apiv1.RoleSpec), error) {
			return func(r *apiv1.RoleSpec) { update(r).MaxSurge = int32(f.maxSurge) }, checkShare(f.maxSurge)
		}),
		edit("max-unavailable", func() (func(*apiv1.RoleSpec), error) {
			return func(r *apiv1.RoleSpec) { update(r).MaxUnavailable = int32(f.maxUnavailable) }, checkShare(f.maxUnavailable)
		}),
		edit("min-healthy", func() (func(*apiv1.RoleSpec), error) {
			d, err := time.ParseDuration(f.minHealthy)
			if err != nil || d < 0 {
				err = fmt.Errorf("%q is not a duration as in 500ms, 10s or 5m", f.minHealthy)
			}
			return func(r *apiv1.RoleSpec) { update(r).MinHealthy = durationpb.New(d) }, err
		}),
		edit("exclusive", func() (func(*apiv1.RoleSpec), error) {
			var err error
			if f.exclusive && f.strategy != "blue-green" {
				err = errors.New("it needs --strategy blue-green")
			}
			return func(*apiv1.RoleSpec) {}, err // it is part of the strategy
		}),
		edit("constraint", func() (func(*apiv1.RoleSpec), error) {
			return func(r *apiv1.RoleSpec) { placement(r).Constraints = f.constraints }, nil
		}),
	)
	if err != nil {
		return nil, err
	}
	f.edited = len(edits) > 0 || given("queue") || given("name")
	return func(app *apiv1.AppSpec) error {
		if given("queue") {
			app.Queue = f.queue
		}
		for _, role := range app.GetRoles() {
			if role.GetUpdate() != nil {
				role.Update.Once = nil // that was the change before
			}
		}
		if len(edits) == 0 {
			return checkSpec(app)
		}
		role, err := f.pick(app)
		if err != nil {
			return err
		}
		for _, edit := range edits {
			edit(role)
		}
		if u := role.GetUpdate(); (given("max-surge") || given("max-unavailable")) && u.GetMaxSurge() == 0 && u.GetMaxUnavailable() == 0 {
			return usagef("--max-surge and --max-unavailable are both 0, which leaves a rollout no room; set one of them to 1 or more")
		}
		return checkSpec(app)
	}, nil
}

// pick is the role of an app that the flags are for.
func (f *deployFlags) pick(app *apiv1.AppSpec) (*apiv1.RoleSpec, error) {
	for _, role := range app.GetRoles() {
		if role.GetName() == f.role || f.role == "" && len(app.GetRoles()) == 1 {
			return role, nil
		}
	}
	switch {
	case app.GetKind() == apiv1.AppSpec_EXTERNAL:
		return nil, fmt.Errorf("the application master of %s is a program outside of the zone, and nothing is deployed over it; choose another name", app.GetName())
	case !spec.HasRoles(app):
		return nil, usagef("%s is an app of the framework %s, and has no image and no roles; change the options in its manifest, and deploy that", app.GetName(), app.GetFramework())
	case f.role == "":
		return nil, usagef("%q has the roles %s; name one with --role, or deploy it by its manifest", app.GetName(), roleNames(app))
	case roleNames(app) == "":
		return nil, usagef("%q has no roles with names; leave --role out", app.GetName())
	}
	return nil, usagef("%q has no role named %q; it has %s", app.GetName(), f.role, roleNames(app))
}

func quotas(r *apiv1.RoleSpec) *corev1.Resources {
	if r.Resources == nil {
		r.Resources = &corev1.Resources{}
	}
	return r.Resources
}

func placement(r *apiv1.RoleSpec) *apiv1.Placement {
	if r.Placement == nil {
		r.Placement = &apiv1.Placement{}
	}
	return r.Placement
}

func update(r *apiv1.RoleSpec) *apiv1.UpdatePolicy {
	if r.Update == nil {
		r.Update = &apiv1.UpdatePolicy{MaxSurge: 1, AutoRevert: true}
	}
	return r.Update
}

// parsePercent reads 10% or 10.
func parsePercent(text string) (int32, error) {
	n, err := strconv.ParseInt(strings.TrimSuffix(text, "%"), 10, 32)
	if err != nil || n < 1 || n > 100 {
		return 0, fmt.Errorf("%q is not a share of the requests; say 1%% to 100%%", text)
	}
	return int32(n), nil
}

// checkShare refuses what cannot be a number of instances.
func checkShare(n int64) error {
	if n < 0 || n > math.MaxInt32 {
		return fmt.Errorf("%d is not a number of instances from 0 to %d", n, math.MaxInt32)
	}
	return nil
}

func positive(n int64, err error) (int64, error) {
	if err == nil && n == 0 {
		return 0, errors.New("0 is not enough to run anything")
	}
	return n, err
}

// checkSpec tells before anything is sent what the zone would refuse.
func checkSpec(app *apiv1.AppSpec) error {
	whole := proto.CloneOf(app)
	spec.Complete(whole)
	if err := spec.CheckDraft(whole); err != nil {
		return usageError{err}
	}
	return nil
}

func roleNames(app *apiv1.AppSpec) string {
	var all []string
	for _, role := range app.GetRoles() {
		all = append(all, role.GetName())
	}
	return strings.Join(all, ", ")
}
