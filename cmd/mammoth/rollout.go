package main

import (
	"cmp"
	"context"
	"errors"
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

	"github.com/mammoth-os/mammoth/internal/sentence"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
)

// rolloutCommands watch rollouts and steer them.
type rolloutCommands struct{ *changer }

func (c *rolloutCommands) appRolloutCommand() *cobra.Command {
	var on bool
	var role string
	cmd := &cobra.Command{
		Use:   "rollout NAME",
		Short: "Watch the change to a new version",
		Long: `Rollout shows how the new version comes along and which share of the requests it is
given, until it is done, has failed, or waits for a person: a canary to be promoted,
a pause to be ended. With --follow it goes on watching while it waits. Of an app with
several roles it shows the rollout of each.`,
		Example:           "  mammoth app rollout web\n  mammoth app rollout shop --role front",
		Args:              appName(),
		ValidArgsFunction: firstArgument(c.completeApps),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error { return c.watchRollout(cmd.Context(), z, args[0], role, on) })
		},
	}
	cmd.Flags().BoolVarP(&on, "follow", "f", false, "keep watching while it waits for a person")
	roleFlag(c.completions, cmd, &role, "only of this role, of an app with several")
	return cmd
}

// watchRollout watches the rollout of an app or, unless it is empty, of one of its roles.
func (c *rolloutCommands) watchRollout(ctx context.Context, z *zone, name, role string, on bool) error {
	app, err := z.apps.GetApp(ctx, &apiv1.GetAppRequest{Name: name})
	if err != nil {
		return err
	}
	if err := checkRole(app, role); err != nil {
		return err
	}
	over := func(change change, now *apiv1.App) (bool, error) {
		if now.GetObservedGeneration() < change.app.GetGeneration() && now.GetState() != apiv1.App_STOPPED {
			return false, nil
		}
		switch stateOf(now.GetStatus(), role) {
		case apiv1.MasterStatus_WORKING:
			return now.GetState() == apiv1.App_STOPPED || now.GetState() == apiv1.App_DEGRADED, nil
		case apiv1.MasterStatus_WAITING:
			return !on, nil
		}
		return true, nil
	}
	show := c.newRolloutProgress(role)
	app, err = follow(ctx, z, change{app: app, what: "rollout", done: over}, show)
	show.end()
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	status := app.GetStatus()
	if c.printer.output != "table" {
		if err := c.print(status, nil); err != nil {
			return err
		}
	}
	if of := roleRollout(status, role); of != nil {
		switch of.GetState() {
		case dynamicdeployv1.Rollout_FAILED:
			return errors.New(because(fmt.Sprintf("the rollout of role %s failed", role), reasonOf(of.GetReason(), app)))
		case dynamicdeployv1.Rollout_REVERTED:
			return errors.New(because(fmt.Sprintf("role %s was reverted", role), reasonOf(of.GetReason(), app)))
		}
		return nil
	}
	switch {
	case status.GetState() == apiv1.MasterStatus_FAILED:
		return errors.New(failureOf(app))
	case wasReverted(app):
		return errors.New(because(status.GetText(), reasonOf(status.GetReason(), app)))
	}
	return nil
}

// checkRole refuses a role that an app does not have.
func checkRole(app *apiv1.App, role string) error {
	roles := app.GetSpec().GetRoles()
	switch {
	case role == "" || slices.ContainsFunc(roles, func(r *apiv1.RoleSpec) bool { return r.GetName() == role }):
		return nil
	case len(roles) == 0 || len(roles) == 1 && roles[0].GetName() == "":
		return usagef("%q has no roles with names; leave --role out", app.GetName())
	}
	return usagef("%q has no role named %q; it has %s", app.GetName(), role, sentence.Names(collect(roles, (*apiv1.RoleSpec).GetName)))
}

// roleRollout is the rollout of one role of an app with several; nil if it has none, or another master.
func roleRollout(status *apiv1.MasterStatus, role string) *dynamicdeployv1.RoleRollout {
	for _, r := range rolloutOf(status).GetRoles() {
		if r.GetRole() == role && role != "" {
			return r
		}
	}
	return nil
}

// stateOf is how far the work of a master is: on the whole app or, if the app has several roles and one is named, on that.
func stateOf(status *apiv1.MasterStatus, role string) apiv1.MasterStatus_State {
	of := roleRollout(status, role)
	if of == nil {
		return status.GetState()
	}
	switch of.GetState() {
	case dynamicdeployv1.Rollout_PROGRESSING:
		return apiv1.MasterStatus_WORKING
	case dynamicdeployv1.Rollout_PAUSED:
		return apiv1.MasterStatus_WAITING
	case dynamicdeployv1.Rollout_FAILED:
		return apiv1.MasterStatus_FAILED
	}
	return apiv1.MasterStatus_DONE
}

// newRolloutProgress shows a rollout, of one role unless that is empty: live on a terminal, a line for each change elsewhere, nothing with JSON and YAML.
func (c *rolloutCommands) newRolloutProgress(role string) progress {
	if c.printer.output != "table" {
		return silentProgress{}
	}
	if file, ok := c.out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return &liveRollout{role: role, liveProgress: liveProgress{out: file, columns: func() int {
			width, _, err := term.GetSize(int(file.Fd()))
			if err != nil {
				return 80
			}
			return width
		}}}
	}
	return &lineRollout{out: c.out, role: role}
}

type silentProgress struct{}

func (silentProgress) update(*apiv1.App) {}
func (silentProgress) away()             {}
func (silentProgress) end()              {}

// lineRollout writes a line whenever the rollout has progressed, of the app and of each of its roles, and whenever it waits for something else.
type lineRollout struct {
	out io.Writer
	// role is the role that is shown; empty: the whole app.
	role    string
	last    []string
	reasons lineProgress
}

func (p *lineRollout) update(app *apiv1.App) {
	lines := rolloutLines(app, p.role)
	for _, line := range lines {
		if !slices.Contains(p.last, line) {
			fmt.Fprintln(p.out, line)
		}
	}
	p.last = lines
	p.reasons.out = p.out
	p.reasons.judgement(app)
	p.reasons.waiting(app, func(w *apiv1.Waiting) bool { return isStatus(app, w) })
}

func (p *lineRollout) end() {}

func (p *lineRollout) away() { fmt.Fprintln(p.out, awayText) }

// rolloutLines are a line about an app's rollout and, if the app has several roles, one about that of each; or about that of one role.
func rolloutLines(app *apiv1.App, role string) (lines []string) {
	if one := roleRollout(app.GetStatus(), role); one != nil {
		return []string{roleLine(app, one)}
	}
	lines = []string{app.GetName() + ": " + workLine(app.GetStatus())}
	for _, r := range rolloutOf(app.GetStatus()).GetRoles() {
		lines = append(lines, roleLine(app, r))
	}
	return lines
}

// roleLine is how far the rollout of one role of several is, and why.
func roleLine(app *apiv1.App, r *dynamicdeployv1.RoleRollout) string {
	return fmt.Sprintf("%s, role %s: %s", app.GetName(), r.GetRole(), roleText(r))
}

func roleText(r *dynamicdeployv1.RoleRollout) string {
	return because(fmt.Sprintf("%s, %d of %d instances%s", word(r.GetState()), r.GetUpdated(), r.GetTotal(), shareOf(r)), r.GetReason())
}

// workLine is how far the work on a version is, why, and what a person could do.
func workLine(status *apiv1.MasterStatus) string {
	rollout := rolloutOf(status)
	if rollout == nil {
		return statusText(status)
	}
	return withWhy(fmt.Sprintf("version %d %s, %d of %d instances%s",
		status.GetVersion(), rolloutWord(rollout.GetState()), status.GetDone(), status.GetTotal(), shareOf(rollout)), status)
}

// statusText is what a master says of its work: in its own words, since only it knows what it is.
func statusText(status *apiv1.MasterStatus) string {
	return withWhy(because(word(status.GetState()), status.GetText()), status)
}

// withWhy adds to a text on a master's work its reason, and what a person could do.
func withWhy(text string, status *apiv1.MasterStatus) string {
	return sentence.Because(text, status.GetReason(), status.GetHelp())
}

// rolloutWord is the state of a rollout as a person reads it of its version.
func rolloutWord(state dynamicdeployv1.Rollout_State) string {
	switch state {
	case dynamicdeployv1.Rollout_NONE:
		return "is not rolled out"
	case dynamicdeployv1.Rollout_FAILED:
		return "has failed"
	case dynamicdeployv1.Rollout_REVERTED:
		return "brought an earlier version back"
	}
	return "is " + word(state)
}

// isStatus reports whether a reason repeats the master's status, which has a line of its own.
func isStatus(app *apiv1.App, w *apiv1.Waiting) bool {
	status := app.GetStatus()
	return w.GetInstances() == 0 && status.GetText() != "" && w.GetText() == because(status.GetText(), status.GetReason())
}

// shareOf is the new version's share of the requests, while it does not have all of them. An app with several roles has none as a whole.
func shareOf(rollout interface {
	GetState() dynamicdeployv1.Rollout_State
	GetPercent() int32
},
) string {
	if whole, ok := rollout.(*dynamicdeployv1.Rollout); ok && len(whole.GetRoles()) > 0 {
		return ""
	}
	switch rollout.GetState() {
	case dynamicdeployv1.Rollout_PROGRESSING, dynamicdeployv1.Rollout_PAUSED:
		return fmt.Sprintf(", %d %% of the requests", rollout.GetPercent())
	}
	return ""
}

// liveRollout redraws a bar for each version and a line for each instance.
type liveRollout struct {
	liveProgress
	// role is the role whose rollout is shown; empty: the whole app's.
	role string
}

const barWidth = 30

func (p *liveRollout) update(app *apiv1.App) {
	var text strings.Builder
	for _, line := range rolloutLines(app, p.role) {
		fmt.Fprintln(&text, line)
	}
	reasonLines(&text, app, p.columns(), func(w *apiv1.Waiting) bool { return isStatus(app, w) })
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

// command hands a command to an app's DynamicDeploy, and returns the app and what has become of the rollout.
func command(ctx context.Context, z *zone, name string, what proto.Message) (*apiv1.App, *apiv1.MasterStatus, error) {
	command, err := anypb.New(what)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a command: %w", err)
	}
	response, err := z.apps.CommandApp(ctx, &apiv1.CommandAppRequest{Name: name, Command: command})
	if err != nil {
		return nil, nil, err
	}
	done := &dynamicdeployv1.Done{}
	if err := response.GetAnswer().UnmarshalTo(done); err != nil {
		return nil, nil, fmt.Errorf("the application master of %s has given an answer that is not DynamicDeploy's: %w", name, err)
	}
	visibleMessage(done)
	return response.GetApp(), done.GetStatus(), nil
}

func (c *rolloutCommands) appPauseCommand() *cobra.Command {
	var role string
	cmd := c.appChangeCommand("pause NAME", "Hold the rollout that is under way where it is",
		func(ctx context.Context, z *zone, name string) (change, error) {
			app, status, err := command(ctx, z, name, &dynamicdeployv1.Pause{Role: role})
			return change{app: app, what: "pause", role: role, done: actedOn, accepted: func(*apiv1.App) string { return workLine(status) }}, err
		})
	roleFlag(c.completions, cmd, &role, "only of this role, of an app with several")
	return cmd
}

// rolloutOf is a status in DynamicDeploy's own terms; nil if it is another master's, or the master has not begun with the version.
func rolloutOf(status *apiv1.MasterStatus) *dynamicdeployv1.Rollout {
	rollout := &dynamicdeployv1.Rollout{}
	if !status.GetDetail().MessageIs(rollout) || status.GetDetail().UnmarshalTo(rollout) != nil {
		return nil
	}
	return rollout
}

// wasReverted reports whether an earlier version of an app was brought back, because the one that it replaces failed.
func wasReverted(app *apiv1.App) bool {
	return rolloutOf(app.GetStatus()).GetState() == dynamicdeployv1.Rollout_REVERTED
}

// failureOf is why a master's work has failed, and what a person could do.
func failureOf(app *apiv1.App) string {
	status := proto.CloneOf(app.GetStatus())
	status.Reason = reasonOf(status.GetReason(), app)
	return withWhy(cmp.Or(status.GetText(), "its work has failed"), status)
}

// workRows are what an app's master says of its work.
func workRows(t table, app *apiv1.App) {
	status, rollout := app.GetStatus(), rolloutOf(app.GetStatus())
	switch {
	case status.GetState() == apiv1.MasterStatus_NONE:
	case rollout == nil:
		t.row("status", statusText(status))
	default:
		t.row("rollout", withWhy(fmt.Sprintf("%s, %d of %d at version %d%s",
			word(rollout.GetState()), status.GetDone(), status.GetTotal(), status.GetVersion(), shareOf(rollout)), status))
	}
	for _, r := range rollout.GetRoles() {
		if r.GetState() != dynamicdeployv1.Rollout_NONE && r.GetState() != dynamicdeployv1.Rollout_DONE {
			t.row("rollout of "+r.GetRole(), roleText(r))
		}
	}
	if text := outlookText(app); text != "" {
		t.row("outlook", text)
	}
}

// actedOn is done when the app's master acts on the command.
func actedOn(c change, now *apiv1.App) (bool, error) {
	return heeded(c, now), nil
}

func (c *rolloutCommands) appResumeCommand() *cobra.Command {
	var role string
	cmd := c.appChangeCommand("resume NAME", "Resume a paused rollout",
		func(ctx context.Context, z *zone, name string) (change, error) {
			app, _, err := command(ctx, z, name, &dynamicdeployv1.Resume{Role: role})
			return change{app: app, what: "rollout", role: role, done: rolledOut}, err
		})
	roleFlag(c.completions, cmd, &role, "only of this role, of an app with several")
	return cmd
}

func (c *rolloutCommands) appPromoteCommand() *cobra.Command {
	var to, role string
	cmd := c.appChangeCommand("promote NAME", "Give a canary more of the requests, or the whole app",
		func(ctx context.Context, z *zone, name string) (change, error) {
			percent, err := parsePercent(to)
			if err != nil {
				return change{}, usagef("--to: %w", err)
			}
			app, _, err := command(ctx, z, name, &dynamicdeployv1.Promote{Percent: percent, Role: role})
			return change{app: app, what: "promotion", role: role, done: rolledOut}, err
		})
	cmd.Flags().StringVar(&to, "to", "100%", "the share of the requests that it is given; with 100% it replaces the version before")
	roleFlag(c.completions, cmd, &role, "only of this role, of an app with several; otherwise every canary is promoted")
	return cmd
}
