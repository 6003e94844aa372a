package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/sentence"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func (c *cli) appCommand(client client) *cobra.Command {
	apps, rollouts := &appCommands{&changer{client}}, &rolloutCommands{&changer{client}}
	runs, logs := &runCommands{client, c.in}, &logCommands{client}
	execs, events := &execCommands{client, c.in, c.env}, &eventCommands{client}
	return group("app", "See and change apps",
		apps.appListCommand(), apps.appShowCommand(), apps.appScaleCommand(), apps.appRestartCommand(), apps.appStopCommand(),
		apps.appRemoveCommand(), rollouts.appRolloutCommand(), rollouts.appPauseCommand(), rollouts.appResumeCommand(), rollouts.appPromoteCommand(),
		runs.appRunCommand(),
		apps.appHistoryCommand(), apps.appRollbackCommand(), logs.appLogsCommand(), execs.appExecCommand(),
		events.appEventsCommand(), apps.appExplainCommand())
}

// appName requires an app's name, and refuses an invalid one before anything is sent.
func appName(more ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := names(append([]string{"the name of an app"}, more...)...)(cmd, args); err != nil {
			return err
		}
		if err := spec.CheckName("an app", args[0]); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// appCommands list apps, show them, and change how they run.
type appCommands struct{ *changer }

func (c *appCommands) appListCommand() *cobra.Command {
	request, watch := &apiv1.ListAppsRequest{}, &watching{}
	cmd := &cobra.Command{Use: "ls", Short: "List apps", Args: noArgs}
	state := newStateFlag(cmd, apiv1.App_State(0).Descriptor())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		number, err := state.number()
		if err != nil {
			return err
		}
		request.State = apiv1.App_State(number)
		if watch.watch {
			if err := watch.without(cmd, "state", "node", "sort"); err != nil {
				return err
			}
			asked := &apiv1.WatchRequest{
				Kinds: []apiv1.WatchRequest_Kind{apiv1.WatchRequest_APP}, Queue: request.GetQueue(), User: request.GetUser(), NamePrefix: request.GetNamePrefix(),
			}
			return c.with(cmd.Context(), func(z *zone) error {
				return (&changes{printer: c.printer, request: asked, table: func(w io.Writer, begun []*apiv1.WatchResponse_Change) error {
					return appTable(w, collectObjects(begun, (*apiv1.WatchResponse_Change).GetApp))
				}}).follow(cmd.Context(), z)
			})
		}
		return c.with(cmd.Context(), func(z *zone) error {
			answer, err := allApps(cmd.Context(), z, request)
			if err != nil {
				return err
			}
			c.warnOfLosses(cmd, z)
			return c.print(answer, func(w io.Writer) error { return appTable(w, answer.GetApps()) })
		})
	}
	cmd.Flags().StringVar(&request.Queue, "queue", "", "only those of this queue")
	cmd.Flags().StringVar(&request.User, "user", "", "only those of this user")
	cmd.Flags().StringVar(&request.Node, "node", "", "only those with an instance or the master on this node")
	cmd.Flags().StringVar(&request.NamePrefix, "prefix", "", "only those whose names begin with this")
	cmd.Flags().StringVar(&request.OrderBy, "sort", "", "name, created or state (default created)")
	must(cmd.RegisterFlagCompletionFunc("queue", c.completeQueues))
	must(cmd.RegisterFlagCompletionFunc("node", c.completeNodes))
	must(cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions([]string{"name", "created", "state"}, cobra.ShellCompDirectiveNoFileComp)))
	watch.flag(cmd)
	return cmd
}

func appTable(w io.Writer, apps []*apiv1.App) error {
	t := newTable(w, "NAME", "STATE", "RUNNING", "VERSION", "QUEUE", "IMAGE", "AGE", "REASON")
	for _, app := range apps {
		var images []string
		for _, role := range app.GetSpec().GetRoles() {
			images = append(images, whatRuns(role))
		}
		running := fmt.Sprintf("%d/%d%s", app.GetRunning(), desiredCount(app), bySpec(app))
		if !spec.HasRoles(app.GetSpec()) {
			images = []string{app.GetSpec().GetFramework()}
		}
		if foreign(app) {
			running = fmt.Sprint(app.GetRunning()) // how many there should be is its master's affair
		}
		t.row(app.GetName(), stateWord(app), running,
			app.GetVersion(), app.GetQueue(), strings.Join(images, ","), ago(app.GetCreatedAt()), shortReason(app))
	}
	return t.Flush()
}

// stateWord is an app's state for a person: an app with a master and without running instances is starting.
func stateWord(app *apiv1.App) string {
	if app.GetState() == apiv1.App_STOPPED && app.GetOutcome() != apiv1.App_OUTCOME_NONE {
		return word(app.GetOutcome())
	}
	if app.GetState() != apiv1.App_RUNNING || app.GetRunning() > 0 || app.GetWanted() == 0 {
		return word(app.GetState())
	}
	for _, instance := range app.GetInstances() {
		if instance.GetState() == apiv1.Instance_BACKOFF || instance.GetState() == apiv1.Instance_UNHEALTHY {
			return "failing"
		}
	}
	return "starting"
}

// shortReason is the reason of an app's state, in one cell of a table.
func shortReason(app *apiv1.App) string {
	waiting := app.GetWaiting()
	if state := stateWord(app); app.GetReason() == "" && len(waiting) == 0 && (state == "starting" || state == "failing") {
		for _, instance := range app.GetInstances() {
			if instance.GetReason() != "" {
				return instance.GetId() + ": " + instance.GetReason()
			}
		}
	}
	// What an app waits for whose master does not run yet says more than why it is in that state.
	if len(waiting) == 0 || app.GetReason() != "" && app.GetState() != apiv1.App_ACCEPTED {
		return app.GetReason()
	}
	text := waiting[0].GetText()
	if more := len(waiting) - 1; more > 0 {
		text += fmt.Sprintf(" (and %s more)", plural(more, "reason"))
	}
	return text
}

// waitingNote is a reason with its beginning, its end and advice.
func waitingNote(w *apiv1.Waiting) string {
	text := w.GetText()
	if until := time.Until(w.GetUntil().AsTime()); w.GetUntil() != nil && until > 0 {
		text += "; next try in " + short(until.Round(time.Second))
	}
	return sentence.Because(text, "", w.GetHelp())
}

// whatRuns is a role's image, or a companion app's program without its flags.
func whatRuns(role *apiv1.RoleSpec) string {
	if role.GetImage() != "" {
		return role.GetImage()
	}
	words := role.GetCommand()
	if flag := slices.IndexFunc(words, func(word string) bool { return strings.HasPrefix(word, "-") }); flag > 0 {
		words = words[:flag]
	}
	return strings.Join(words, " ")
}

func (c *appCommands) appShowCommand() *cobra.Command {
	var asManifest bool
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Show an app and its instances",
		Args:              appName(),
		ValidArgsFunction: firstArgument(c.completeApps),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				request := &apiv1.GetAppRequest{Name: args[0]}
				if asManifest {
					answer, err := z.apps.GetAppManifest(asSent(cmd.Context()), request)
					if err != nil {
						return err
					}
					_, err = io.WriteString(c.out, answer.GetManifest())
					return err
				}
				app, err := z.apps.GetApp(cmd.Context(), request)
				if err != nil {
					return err
				}
				return c.print(app, func(w io.Writer) error { return appText(w, app) })
			})
		},
	}
	cmd.Flags().BoolVar(&asManifest, "manifest", false, "print the manifest that \"mammoth deploy\" would make this app of")
	return cmd
}

func appText(w io.Writer, app *apiv1.App) error {
	t := newTable(w)
	t.row("name", app.GetName())
	t.row("state", because(stateWord(app), app.GetReason()))
	for _, w := range app.GetWaiting() {
		if app.GetReason() != "" && strings.Contains(w.GetText(), app.GetReason()) || isStatus(app, w) {
			continue
		}
		t.row("waiting", fmt.Sprintf("%s (for %s)", waitingNote(w), ago(w.GetSince())))
	}
	if app.GetSpec().GetKind() != apiv1.AppSpec_APP {
		t.row("kind", word(app.GetSpec().GetKind()))
	}
	if app.GetSpec().GetKind() != apiv1.AppSpec_EXTERNAL {
		t.row("framework", app.GetSpec().GetFramework())
	}
	instances := runningOf(app.GetRunning(), desiredCount(app), "")
	if app.GetState() == apiv1.App_STOPPED {
		instances += " (stopped)"
	}
	if foreign(app) {
		instances = fmt.Sprintf("%d run", app.GetRunning())
	}
	t.row("instances", instances+bySpec(app))
	for _, note := range calendarNotes(app) {
		t.row("calendar", note)
	}
	t.row("version", app.GetVersion())
	if app.GetState() != apiv1.App_STOPPED {
		workRows(t, app)
	}
	if options := app.GetSpec().GetOptions(); options != nil {
		t.row("options", optionsText(options))
	}
	t.row("queue", app.GetQueue())
	t.row("user", orDash(app.GetUser()))
	for _, role := range app.GetSpec().GetRoles() {
		label, what := "image", fmt.Sprintf("%s (%s)", role.GetImage(), orDash(shortDigest(role.GetImageDigest())))
		if role.GetImage() == "" {
			args, _ := spec.Args(role)
			label, what = "command", strings.Join(append(slices.Clone(role.GetCommand()), args...), " ")
		}
		if role.GetName() != "" {
			label = "role " + role.GetName()
		}
		r := role.GetResources()
		t.row(label, what)
		if companion := role.GetCompanion(); companion != nil {
			t.row("companion", strings.TrimSpace(companion.GetPackage()+" "+companion.GetVersion()))
		}
		t.row("quotas", fmt.Sprintf("cpu %s, memory %s, disk %s, pids %d", cores(r.GetCpuMillis()), size(r.GetMemoryBytes()), size(r.GetDiskBytes()), role.GetPids()))
	}
	if master := app.GetMaster(); master != nil {
		text := fmt.Sprintf("attempt %d, %s", master.GetAttempt(), word(master.GetState()))
		if master.GetNode() != "" {
			text += " on " + master.GetNode()
		}
		t.row("master", text)
	}
	t.row("age", ago(app.GetCreatedAt()))
	t.row("id", app.GetId())
	if err := t.Flush(); err != nil {
		return err
	}
	if len(app.GetInstances()) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t = newTable(w, "INSTANCE", "STATE", "NODE", "ADDRESS", "VERSION", "RESTARTS", "DOWNLOAD", "LOAD", "RUN", "AGE", "REASON")
	for _, instance := range app.GetInstances() {
		t.row(instance.GetId(), word(instance.GetState()), instance.GetNode(), address(instance), instance.GetVersion(),
			instance.GetRestarts(), phase(instance, "download"), phase(instance, "load"), phase(instance, "run"),
			ago(instance.GetStartedAt()), instance.GetReason())
	}
	return t.Flush()
}

func because(state, reason string) string {
	if reason == "" {
		return state
	}
	return state + ": " + reason
}

func address(instance *apiv1.Instance) string {
	if instance.GetPort() == 0 {
		return instance.GetAddress()
	}
	return net.JoinHostPort(instance.GetAddress(), strconv.Itoa(int(instance.GetPort())))
}

// phase is how long a phase took; "…" while it is in progress.
func phase(instance *apiv1.Instance, name string) string {
	for _, phase := range instance.GetPhases() {
		switch {
		case phase.GetName() != name:
		case phase.GetError() != "":
			return "failed"
		case phase.GetDurationMs() == 0 && instance.GetState() != apiv1.Instance_RUNNING && phase == instance.GetPhases()[len(instance.GetPhases())-1]:
			return "…"
		default:
			return millis(phase.GetDurationMs())
		}
	}
	return ""
}

func (c *appCommands) appScaleCommand() *cobra.Command {
	var role string
	w := &waiting{}
	cmd := &cobra.Command{
		Use:               "scale NAME INSTANCES",
		Short:             "Change how many instances are kept running",
		Example:           "  mammoth app scale web 5 --wait",
		Args:              appName("the number of instances"),
		ValidArgsFunction: firstArgument(c.completeApps),
		RunE: func(cmd *cobra.Command, args []string) error {
			count, err := strconv.ParseInt(args[1], 10, 64)
			if err != nil {
				return usagef("%q is not a number of instances", args[1])
			}
			if count == 0 {
				return usagef("an app has at least 1 instance; `mammoth app stop %s` ends them all and keeps the app", args[0])
			}
			if err := manifest.CheckInstances(count); err != nil {
				return usageError{err}
			}
			return c.change(cmd.Context(), w, func(ctx context.Context, z *zone) (change, error) {
				app, err := z.apps.ScaleApp(ctx, &apiv1.ScaleAppRequest{Name: args[0], Instances: int32(count), Role: role})
				return change{app: app, what: "scaling", done: scaled}, err
			})
		},
	}
	roleFlag(c.completions, cmd, &role, "the role, of an app with several")
	w.flags(cmd)
	return cmd
}

// change changes an app and reports the result.
func (c *changer) change(ctx context.Context, w *waiting, do func(context.Context, *zone) (change, error)) error {
	return c.with(ctx, func(z *zone) error {
		change, err := do(ctx, z)
		if err != nil {
			return err
		}
		return c.finish(ctx, z, change, w)
	})
}

func (c *appCommands) appRestartCommand() *cobra.Command {
	return c.appChangeCommand("restart NAME", "Replace every instance, a few at a time; start a stopped app again",
		func(ctx context.Context, z *zone, name string) (change, error) {
			before := map[string]bool{}
			app, err := z.apps.GetApp(ctx, &apiv1.GetAppRequest{Name: name})
			if err != nil {
				return change{}, err
			}
			for _, instance := range app.GetInstances() {
				before[instance.GetContainerId()] = instance.GetContainerId() != ""
			}
			app, err = z.apps.RestartApp(ctx, &apiv1.RestartAppRequest{Name: name})
			return change{app: app, what: "restart", done: restarted, before: before}, err
		})
}

func (c *appCommands) appStopCommand() *cobra.Command {
	return c.appChangeCommand("stop NAME", "End every instance and keep the app",
		func(ctx context.Context, z *zone, name string) (change, error) {
			app, err := z.apps.StopApp(ctx, &apiv1.StopAppRequest{Name: name})
			return change{app: app, what: "stop", done: stopped}, err
		})
}

func (c *appCommands) appRemoveCommand() *cobra.Command {
	return c.appChangeCommand("rm NAME", "End every instance and forget the app",
		func(ctx context.Context, z *zone, name string) (change, error) {
			app, err := z.apps.RemoveApp(ctx, &apiv1.RemoveAppRequest{Name: name})
			return change{app: app, what: "removal", done: removed, gone: true}, err
		})
}

func (c *changer) appChangeCommand(use, short string, do func(context.Context, *zone, string) (change, error)) *cobra.Command {
	w := &waiting{}
	cmd := &cobra.Command{
		Use:               use,
		Short:             short,
		Args:              appName(),
		ValidArgsFunction: firstArgument(c.completeApps),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.change(cmd.Context(), w, func(ctx context.Context, z *zone) (change, error) {
				return do(ctx, z, args[0])
			})
		},
	}
	w.flags(cmd)
	return cmd
}

func (c *appCommands) appRollbackCommand() *cobra.Command {
	var to int32
	var role string
	cmd := c.appChangeCommand("rollback NAME", "Make an earlier version the desired one again, of an app or of one of its roles",
		func(ctx context.Context, z *zone, name string) (change, error) {
			if to < 0 {
				return change{}, usagef("--to: %d is not a version; `mammoth app history %s` lists them", to, name)
			}
			app, err := z.apps.RollbackApp(ctx, &apiv1.RollbackAppRequest{Name: name, Version: to, Role: role})
			return change{app: app, what: "rollback", role: role, done: rolledOut}, err
		})
	roleFlag(c.completions, cmd, &role, "only this role, of an app with several: the others stay as they are")
	cmd.Flags().Int32Var(&to, "to", 0, "the version to go back to (default: the newest before that came up)")
	return cmd
}

func (c *appCommands) appHistoryCommand() *cobra.Command {
	var attempts bool
	cmd := &cobra.Command{
		Use:               "history NAME",
		Short:             "List the versions of an app, or the attempts of its master",
		Example:           "  mammoth app history web\n  mammoth app history web --attempts",
		Args:              appName(),
		ValidArgsFunction: firstArgument(c.completeApps),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				history, err := z.apps.GetAppHistory(cmd.Context(), &apiv1.GetAppRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return c.print(history, func(w io.Writer) error {
					if attempts {
						return attemptTable(w, history.GetAttempts())
					}
					return historyTable(w, history)
				})
			})
		},
	}
	cmd.Flags().BoolVar(&attempts, "attempts", false, "the last 20 attempts of its master, and why they ended")
	return cmd
}

func attemptTable(w io.Writer, attempts []*apiv1.AppHistory_Attempt) error {
	t := newTable(w, "ATTEMPT", "STATE", "NODE", "LAUNCHED", "RAN", "REASON")
	for _, attempt := range attempts {
		t.row(attempt.GetNumber(), word(attempt.GetState()), orDash(attempt.GetNode()), ago(attempt.GetLaunchedAt()), ran(attempt), attempt.GetReason())
	}
	return t.Flush()
}

// ran is how long an attempt has been at work, or was.
func ran(attempt *apiv1.AppHistory_Attempt) string {
	if attempt.GetRegisteredAt() == nil {
		return "-"
	}
	end := time.Now()
	if attempt.GetEndedAt() != nil {
		end = attempt.GetEndedAt().AsTime()
	}
	return short(end.Sub(attempt.GetRegisteredAt().AsTime()).Round(time.Second))
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return ""
}

// cameUp is whether a version came up, and whether it failed later.
func cameUp(version *apiv1.AppHistory_Version) string {
	switch {
	case version.GetFailure() == "":
		return yes(version.GetCameUp())
	case version.GetCameUp():
		return "did not hold"
	}
	return "failed"
}

func historyTable(w io.Writer, history *apiv1.AppHistory) error {
	t := newTable(w, "VERSION", "CURRENT", "CAME UP", "AGE", "IMAGE", "CAUSE")
	for _, version := range history.GetVersions() {
		var images []string
		for _, role := range version.GetSpec().GetRoles() {
			if role.GetImage() == "" {
				images = append(images, whatRuns(role))
				continue
			}
			images = append(images, role.GetImage()+" ("+orDash(shortDigest(role.GetImageDigest()))+")")
		}
		if !spec.HasRoles(version.GetSpec()) {
			images = []string{version.GetSpec().GetFramework()}
		}
		t.row(version.GetVersion(), yes(version.GetCurrent()), cameUp(version), ago(version.GetCreatedAt()), strings.Join(images, ", "), version.GetCause())
	}
	return t.Flush()
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// clock is a time of day for lines that scroll by, with the date when it is not today's.
func clock(at time.Time) string {
	local := at.Local()
	if time.Since(at) > 20*time.Hour {
		return local.Format("2006-01-02 15:04:05.000")
	}
	return local.Format("15:04:05.000")
}
