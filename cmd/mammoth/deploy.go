package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// deployFlags are the flags of deploy as they were typed.
type deployFlags struct {
	name, queue, health, network, policy string
	instances                            int64
	cpu, memory, disk                    string
	ports, env, constraints              []string
	strategy, canary                     string
	exclusive                            bool
	minHealthy                           string
	maxSurge, maxUnavailable             int64
	// counted: --instances was given.
	counted bool
	dryRun  bool
	file    string
	command []string
	// args are what stands behind --, nil without one.
	args []string
	wait waiting
}

func (c *cli) deployCommand() *cobra.Command {
	f := &deployFlags{}
	cmd := &cobra.Command{
		Use:   "deploy F.image|NAME:TAG|F.yaml|- [-- ARGUMENT...]",
		Short: "Deploy an image or a manifest as an app, or change an app",
		Long: `Deploy makes an app of an image, of a name in the zone's store, or of a manifest.

An image file (a "docker save" or OCI archive, or what "mammoth image pack" made) is
uploaded first. "-" is standard input, which may be either; a manifest is YAML or JSON. When the app is there already, only what is given
changes: a new image is a rollout, and quotas and counts stay as they were. A manifest
replaces all of the app; flags given with it win over it. --strategy, --canary and
--exclusive hold for this one change; what the manifest says of updates holds again after it.
What stands behind -- are the program's arguments in place of the image's; nothing there is none.`,
		Example: `  mammoth deploy hello.image --name web --instances 3 --cpu 0.5 --memory 64MiB --disk 64MiB \
      --port 8080 --health http:/healthz --wait
  mammoth deploy hello2.image --name web --wait
  mammoth deploy hello3.image --name web --canary 10%
  mammoth deploy web.yaml --dry-run`,
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
				update(r).Once = &apiv1.UpdatePolicy_Course{Strategy: strategy, Exclusive: f.exclusive}
			}, err
		}),
		edit("canary", func() (func(*apiv1.RoleSpec), error) {
			percent, err := parsePercent(f.canary)
			if err == nil && given("strategy") && f.strategy != "canary" {
				err = fmt.Errorf("it does not go with --strategy %s", f.strategy)
			}
			return func(r *apiv1.RoleSpec) {
				update(r).Once = &apiv1.UpdatePolicy_Course{Strategy: apiv1.UpdatePolicy_CANARY, CanaryPercent: percent}
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
		if len(app.GetRoles()) != 1 {
			return usagef("%q has the roles %s; change them in its manifest", app.GetName(), roleNames(app))
		}
		for _, edit := range edits {
			edit(app.Roles[0])
		}
		if u := app.GetRoles()[0].GetUpdate(); (given("max-surge") || given("max-unavailable")) && u.GetMaxSurge() == 0 && u.GetMaxUnavailable() == 0 {
			return usagef("--max-surge and --max-unavailable are both 0, which leaves a rollout no room; set one of them to 1 or more")
		}
		return checkSpec(app)
	}, nil
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

// deploy deploys what is named by source.
func (c *cli) deploy(ctx context.Context, named string, f *deployFlags, change func(*apiv1.AppSpec) error) error {
	source, err := c.openSource(named)
	if err != nil {
		return err
	}
	if f.file != "" && source.manifest == nil {
		if _, err := os.Stat(named); err != nil && named != "-" {
			return usageError{plainPathError(err)}
		}
		return usagef("%s is no manifest; an image is deployed by `mammoth deploy %s`, without -f", source.title(), named)
	}
	if source.manifest != nil {
		spec, err := source.app()
		if err != nil {
			return err
		}
		if f.name != "" {
			spec.Name = f.name
		}
		if err := change(spec); err != nil {
			return err
		}
		return c.with(ctx, func(z *zone) error {
			for _, role := range spec.GetRoles() {
				if role.GetImage() == "" {
					continue // a framework's program
				}
				beside := role.GetImage()
				if !filepath.IsAbs(beside) {
					beside = filepath.Join(source.folder, beside)
				}
				if role.Image, err = c.resolveImage(ctx, role.GetImage(), beside); err != nil {
					return err
				}
			}
			return c.send(ctx, z, &apiv1.DeployRequest{Spec: spec, DryRun: f.dryRun, IfGeneration: -1}, f)
		})
	}
	// Whatever is wrong with the flags alone is told before anything is uploaded.
	if err := change(&apiv1.AppSpec{Name: cmp.Or(f.name, "trial"), Roles: []*apiv1.RoleSpec{trial(f)}}); err != nil {
		return err
	}
	return c.with(ctx, func(z *zone) error {
		image, err := c.imageOf(ctx, source)
		if err != nil {
			return err
		}
		name := f.name
		if name == "" {
			name = nameOfImage(image)
			if err := spec.CheckName("an app", name); err != nil {
				return usagef("the image's name does not do for the app; give it one with --name (%w)", err)
			}
		}
		return c.deployImage(ctx, z, name, image, f, change)
	})
}

// trial is a role for a check of the flags; a port that is named may be one that the app has already.
func trial(f *deployFlags) *apiv1.RoleSpec {
	role := defaults.Role()
	role.Image = "trial"
	check, err := manifest.ParseHealth(f.health)
	if err != nil || len(f.ports) > 0 {
		return role
	}
	port := "http"
	if named := check.GetHttp().GetPort() + check.GetTcp().GetPort(); named != "" {
		port = named
	}
	role.Ports = []*corev1.Port{{Name: port, ContainerPort: 1}}
	return role
}

// attempts is how often a change is tried again when somebody else changed the app meanwhile.
const attempts = 5

// deployImage makes an app of an image, or changes what was given of the app that is there.
func (c *cli) deployImage(ctx context.Context, z *zone, name, image string, f *deployFlags, change func(*apiv1.AppSpec) error) error {
	for attempt := 1; ; attempt++ {
		app, err := z.apps.GetApp(asSent(ctx), &apiv1.GetAppRequest{Name: name})
		request := &apiv1.DeployRequest{DryRun: f.dryRun}
		switch {
		case err == nil:
			request.Spec = proto.Clone(app.GetSpec()).(*apiv1.AppSpec)
			request.IfGeneration = app.GetGeneration()
		case errdefs.IsNotFound(wire.Error(err)):
			request.Spec = &apiv1.AppSpec{Name: name, Roles: []*apiv1.RoleSpec{defaults.Role()}}
		default:
			return err
		}
		if len(request.GetSpec().GetRoles()) != 1 {
			return usagef("%q has the roles %s; deploy it by its manifest", name, roleNames(request.GetSpec()))
		}
		request.Spec.Roles[0].Image = image
		request.Spec.Roles[0].ImageDigest = ""
		if err := change(request.GetSpec()); err != nil {
			return err
		}
		if len(app.GetSpec().GetRoles()) == 1 && len(app.GetSpec().GetRoles()[0].GetSchedule()) > 0 && !f.counted {
			request.Spec.Roles[0].Instances = 0 // nobody said a number: the calendar's stands
		}
		err = c.send(ctx, z, request, f)
		if class := wire.Error(err); attempt < attempts && (errdefs.IsAborted(class) || errdefs.IsAlreadyExists(class)) {
			continue
		}
		return err
	}
}

// send deploys, tells what came of it, and waits if it was asked to.
func (c *cli) send(ctx context.Context, z *zone, request *apiv1.DeployRequest, f *deployFlags) error {
	answer, err := z.apps.Deploy(ctx, request)
	if err != nil {
		return err
	}
	c.sayPorts(request.GetSpec(), answer.GetApp().GetSpec())
	if request.GetDryRun() {
		return c.print(answer, func(w io.Writer) error { return dryRunTable(w, request.GetSpec(), answer) })
	}
	if f.canary != "" && answer.GetApp().GetVersion() == 1 {
		fmt.Fprintf(c.err, "%s is new: no version before takes the rest of the requests, so it is started whole\n", answer.GetApp().GetName())
	}
	return c.finish(ctx, z, change{app: answer.GetApp(), what: "deployment", done: rolledOut}, &f.wait)
}

// sayPorts tells on which ports an app listens because its image says so, and nobody else did.
func (c *cli) sayPorts(asked, taken *apiv1.AppSpec) {
	for i, role := range taken.GetRoles() {
		if len(role.GetPorts()) == 0 || i >= len(asked.GetRoles()) || len(asked.GetRoles()[i].GetPorts()) > 0 {
			continue
		}
		ports := make([]string, len(role.GetPorts()))
		for i, port := range role.GetPorts() {
			ports[i] = fmt.Sprintf("%s=%d", port.GetName(), port.GetContainerPort())
		}
		fmt.Fprintf(c.err, "no port was named; the app has those that the image %s exposes: %s\n", role.GetImage(), strings.Join(ports, ", "))
	}
}

func dryRunTable(w io.Writer, spec *apiv1.AppSpec, answer *apiv1.DeployResponse) error {
	if len(answer.GetPlacements()) > 0 {
		t := newTable(w, "INSTANCE", "NODE")
		for _, placed := range answer.GetPlacements() {
			t.row(placed.GetInstance(), placed.GetNode())
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, replaced := range answer.GetReplacements() {
		text := replaced.GetText()
		if replaced.GetRole() != "" {
			text = replaced.GetRole() + ": " + text
		}
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	if summary := answer.GetExplanation().GetSummary(); summary != "" || len(answer.GetExplanation().GetObstacles()) > 0 {
		return explanationText(w, answer.GetExplanation())
	}
	_, err := fmt.Fprintf(w, "%s: all %d instances would be placed; nothing was changed\n", spec.GetName(), len(answer.GetPlacements()))
	return err
}

// imageOf uploads the image that is deployed, or names that of the store.
func (c *cli) imageOf(ctx context.Context, s source) (string, error) {
	if s.archive != nil {
		return uploaded(s.named)(c.push(ctx, upload{path: s.named, content: s.archive}))
	}
	return c.resolveImage(ctx, s.named, s.named)
}

// inFile puts the file's name before each mistake.
func inFile(path string, err error) error {
	var mistakes manifest.Errors
	if !errors.As(err, &mistakes) {
		return fmt.Errorf("%s: %w", path, err)
	}
	lines := make([]string, len(mistakes))
	for i, mistake := range mistakes {
		lines[i] = path + ": " + mistake.Error()
	}
	return errors.New(strings.Join(lines, "\n"))
}

// plainPathError says "web.yaml: no such file or directory" without the name of the system call. A longer sentence stays.
func plainPathError(err error) error {
	var path *os.PathError
	if errors.As(err, &path) && err.Error() == path.Error() {
		return fmt.Errorf("%s: %w", path.Path, path.Err)
	}
	return err
}

// nameOfImage is the last word of an image's name, without its tag.
func nameOfImage(image string) string {
	name := image[strings.LastIndex(image, "/")+1:]
	name, _, _ = strings.Cut(name, "@")
	name, _, _ = strings.Cut(name, ":")
	return strings.ReplaceAll(strings.ToLower(name), "_", "-")
}

// defaultWait is how long --wait waits unless told otherwise: longer than a rollout may stand still.
const defaultWait = 10 * time.Minute
