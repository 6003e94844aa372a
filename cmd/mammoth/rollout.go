package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
)

func (c *cli) appRolloutCommand() *cobra.Command {
	var on bool
	cmd := &cobra.Command{
		Use:   "rollout NAME",
		Short: "Watch the change to a new version",
		Long: `Rollout shows how the new version comes along and which share of the requests it is
given, until it is done, has failed, or waits for a person: a canary to be promoted,
a pause to be ended. With --follow it goes on watching while it waits.`,
		Args:              appName(),
		ValidArgsFunction: firstArgument(c.completeApps),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error { return c.watchRollout(cmd.Context(), z, args[0], on) })
		},
	}
	cmd.Flags().BoolVarP(&on, "follow", "f", false, "keep watching while it waits for a person")
	return cmd
}

func (c *cli) watchRollout(ctx context.Context, z *zone, name string, on bool) error {
	app, err := z.apps.GetApp(ctx, &apiv1.GetAppRequest{Name: name})
	if err != nil {
		return err
	}
	over := func(change change, now *apiv1.App) (bool, error) {
		if now.GetObservedGeneration() < change.app.GetGeneration() && now.GetState() != apiv1.App_STOPPED {
			return false, nil
		}
		switch rolloutOf(now).GetState() {
		case dynamicdeployv1.Rollout_PROGRESSING:
			return now.GetState() == apiv1.App_STOPPED || now.GetState() == apiv1.App_DEGRADED, nil
		case dynamicdeployv1.Rollout_PAUSED:
			return !on, nil
		}
		return true, nil
	}
	show := c.newRolloutProgress()
	app, err = c.follow(ctx, z, change{app: app, what: "rollout", done: over}, show)
	show.end()
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	rollout := rolloutOf(app)
	if c.output != "table" {
		if err := c.print(rollout, nil); err != nil {
			return err
		}
	}
	switch rollout.GetState() {
	case dynamicdeployv1.Rollout_FAILED:
		return fmt.Errorf("the rollout of version %d failed: %s", rollout.GetVersion(), reasonOf(rollout.GetReason(), app))
	case dynamicdeployv1.Rollout_REVERTED:
		return fmt.Errorf("the version before was brought back: %s", reasonOf(rollout.GetReason(), app))
	}
	return nil
}

// newRolloutProgress shows a rollout: live on a terminal, a line for each change elsewhere, nothing with JSON and YAML.
func (c *cli) newRolloutProgress() progress {
	if c.output != "table" {
		return silentProgress{}
	}
	if file, ok := c.out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return &liveRollout{liveProgress{out: file, columns: func() int {
			width, _, err := term.GetSize(int(file.Fd()))
			if err != nil {
				return 80
			}
			return width
		}}}
	}
	return &lineRollout{out: c.out}
}

type silentProgress struct{}

func (silentProgress) update(*apiv1.App) {}
func (silentProgress) away()             {}
func (silentProgress) end()              {}

// lineRollout writes a line whenever the rollout has progressed, and whenever it waits for something else.
type lineRollout struct {
	out     io.Writer
	last    string
	reasons lineProgress
}

func (p *lineRollout) update(app *apiv1.App) {
	if line := rolloutLine(app); line != p.last {
		p.last = line
		fmt.Fprintln(p.out, line)
	}
	p.reasons.out = p.out
	p.reasons.judgement(app)
	p.reasons.waiting(app, func(w *apiv1.Waiting) bool { return isPause(app, w) })
}

func (p *lineRollout) end() {}

func (p *lineRollout) away() { fmt.Fprintln(p.out, awayText) }

func rolloutLine(app *apiv1.App) string {
	rollout := rolloutOf(app)
	if app.GetSpec().GetKind() == apiv1.AppSpec_EXTERNAL {
		return app.GetName() + ": " + statusText(app.GetStatus())
	}
	return fmt.Sprintf("%s: version %d %s", app.GetName(), rollout.GetVersion(), rolloutStatus(app,
		fmt.Sprintf("%s, %d of %d instances%s", rolloutWord(rollout.GetState()), rollout.GetUpdated(), rollout.GetTotal(), shareOf(rollout))))
}

// statusText is what a master says of its work: in its own words, since only it knows what it is.
func statusText(status *apiv1.MasterStatus) string {
	text := because(because(word(status.GetState()), status.GetText()), status.GetReason())
	if status.GetHelp() != "" {
		text += "; " + status.GetHelp()
	}
	return text
}

// rolloutWord is a rollout's state as what is said of its version.
func rolloutWord(state dynamicdeployv1.Rollout_State) string {
	switch state {
	case dynamicdeployv1.Rollout_NONE:
		return "is not rolled out"
	case dynamicdeployv1.Rollout_FAILED:
		return "has failed"
	case dynamicdeployv1.Rollout_REVERTED:
		return "was reverted"
	}
	return "is " + word(state)
}

// rolloutStatus is the state of a rollout, its reason, and the next steps if it waits for a person.
func rolloutStatus(app *apiv1.App, where string) string {
	text := because(where, rolloutOf(app).GetReason())
	if rolloutOf(app).GetState() == dynamicdeployv1.Rollout_PAUSED {
		text += "; " + nextSteps(app, !isCanary(app))
	}
	return text
}

// isPause reports whether a reason is that the rollout is paused, which the rollout's own line shows with the next steps.
func isPause(app *apiv1.App, w *apiv1.Waiting) bool {
	rollout := rolloutOf(app)
	return rollout.GetState() == dynamicdeployv1.Rollout_PAUSED && w.GetInstances() == 0 && rollout.GetReason() != "" && strings.HasSuffix(w.GetText(), rollout.GetReason())
}

// shareOf is the new version's share of the requests, while it does not have all of them.
func shareOf(rollout *dynamicdeployv1.Rollout) string {
	switch rollout.GetState() {
	case dynamicdeployv1.Rollout_PROGRESSING, dynamicdeployv1.Rollout_PAUSED:
		return fmt.Sprintf(", %d %% of the requests", rollout.GetPercent())
	}
	return ""
}

// liveRollout redraws a bar for each version and a line for each instance.
type liveRollout struct{ liveProgress }

const barWidth = 30

func (p *liveRollout) update(app *apiv1.App) {
	var text strings.Builder
	fmt.Fprintln(&text, rolloutLine(app))
	reasonLines(&text, app, p.columns(), func(w *apiv1.Waiting) bool { return isPause(app, w) })
	running, all := map[int32]int{}, map[int32]int{}
	var versions []int32
	for _, instance := range app.GetInstances() {
		version := instance.GetVersion()
		if all[version]++; all[version] == 1 {
			versions = append(versions, version)
		}
		if instance.GetState() == apiv1.Instance_RUNNING {
			running[version]++
		}
	}
	slices.Sort(versions)
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, version := range versions {
		fmt.Fprintf(t, "  version %d\t%s\t%d of %d run\n", version, strings.Repeat("█", barWidth*running[version]/max(1, len(app.GetInstances()))), running[version], all[version])
	}
	_ = t.Flush()
	instanceLines(&text, app)
	p.draw(text.String())
}

// command hands a command to an app's DynamicDeploy.
func command(ctx context.Context, z *zone, name string, what proto.Message) (*apiv1.App, error) {
	command, err := anypb.New(what)
	if err != nil {
		return nil, fmt.Errorf("encode a command: %w", err)
	}
	response, err := z.apps.CommandApp(ctx, &apiv1.CommandAppRequest{Name: name, Command: command})
	return response.GetApp(), err
}

func (c *cli) appPauseCommand() *cobra.Command {
	return c.appChangeCommand("pause NAME", "Hold the rollout that is under way where it is",
		func(ctx context.Context, z *zone, name string) (change, error) {
			app, err := command(ctx, z, name, &dynamicdeployv1.Pause{})
			return change{app: app, what: "pause", done: actedOn, accepted: pausedText}, err
		})
}

// pausedText is what is paused, and how it continues.
func pausedText(app *apiv1.App) string {
	rollout := rolloutOf(app)
	return fmt.Sprintf("version %d is paused, %d of %d instances, %d %% of the requests; %s",
		app.GetVersion(), rollout.GetUpdated(), rollout.GetTotal(), rollout.GetPercent(), nextSteps(app, true))
}

// nextSteps are a person's commands for a rollout that waits; byHand is set when a person paused it.
func nextSteps(app *apiv1.App, byHand bool) string {
	var ways []string
	way := func(verb, does string) {
		ways = append(ways, fmt.Sprintf("`mammoth app %s %s` %s", verb, app.GetName(), does))
	}
	canary := isCanary(app)
	if canary {
		way("promote", "gives it the whole app")
	}
	way("rollback", "takes it back")
	switch {
	case byHand && canary:
		way("resume", "has it judged again")
	case byHand:
		way("resume", "lets it continue")
	}
	return strings.Join(ways, ", ")
}

func isCanary(app *apiv1.App) bool { return rolloutOf(app).GetCanary() }

// rolloutOf is the rollout of an app. That of another master than DynamicDeploy, or of a version that its master has not begun with, has
// what the app's status says.
func rolloutOf(app *apiv1.App) *dynamicdeployv1.Rollout {
	status, rollout := app.GetStatus(), &dynamicdeployv1.Rollout{}
	if status.GetDetail().MessageIs(rollout) && status.GetDetail().UnmarshalTo(rollout) == nil {
		rollout.Reason = status.GetReason() // the detail still has what a terminal must not be sent
		return rollout
	}
	return &dynamicdeployv1.Rollout{
		State: rolloutStates[status.GetState()], Version: status.GetVersion(), Updated: status.GetDone(), Total: status.GetTotal(),
		Reason: status.GetReason(),
	}
}

var rolloutStates = map[apiv1.MasterStatus_State]dynamicdeployv1.Rollout_State{
	apiv1.MasterStatus_WORKING: dynamicdeployv1.Rollout_PROGRESSING, apiv1.MasterStatus_WAITING: dynamicdeployv1.Rollout_PAUSED,
	apiv1.MasterStatus_DONE: dynamicdeployv1.Rollout_DONE, apiv1.MasterStatus_FAILED: dynamicdeployv1.Rollout_FAILED,
}

// workRows are what an app's master says of its work.
func workRows(t table, app *apiv1.App) {
	rollout := rolloutOf(app)
	status := app.GetStatus()
	switch {
	case rollout.GetState() == dynamicdeployv1.Rollout_NONE:
	case foreign(app):
		t.row("status", statusText(status))
		if outlook := status.GetOutlook(); outlook != nil {
			t.row("outlook", outlookText(outlook))
		}
	default:
		t.row("rollout", rolloutStatus(app, fmt.Sprintf("%s, %d of %d at version %d%s", word(rollout.GetState()), rollout.GetUpdated(),
			rollout.GetTotal(), rollout.GetVersion(), shareOf(rollout))))
		if text := failureOutlook(app); text != "" {
			t.row("verdict", text)
		}
	}
}

// actedOn is done when the app's master acts on the command.
func actedOn(c change, now *apiv1.App) (bool, error) {
	return heeded(c, now), nil
}

func (c *cli) appResumeCommand() *cobra.Command {
	return c.appChangeCommand("resume NAME", "Resume a paused rollout",
		func(ctx context.Context, z *zone, name string) (change, error) {
			app, err := command(ctx, z, name, &dynamicdeployv1.Resume{})
			return change{app: app, what: "rollout", done: rolledOut}, err
		})
}

func (c *cli) appPromoteCommand() *cobra.Command {
	var to string
	cmd := c.appChangeCommand("promote NAME", "Give a canary more of the requests, or the whole app",
		func(ctx context.Context, z *zone, name string) (change, error) {
			percent, err := parsePercent(to)
			if err != nil {
				return change{}, usagef("--to: %w", err)
			}
			app, err := command(ctx, z, name, &dynamicdeployv1.Promote{Percent: percent})
			return change{app: app, what: "promotion", done: rolledOut}, err
		})
	cmd.Flags().StringVar(&to, "to", "100%", "the share of the requests that it is given; with 100% it replaces the version before")
	return cmd
}
