package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
)

// waiting are the flags of commands that start long work.
type waiting struct {
	wait    bool
	timeout time.Duration
}

func (w *waiting) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.wait, "wait", false, "wait until it is done, and show how it comes along")
	w.timeout = defaultWait
	lengthVar(cmd.Flags(), &w.timeout, "timeout", "how long --wait waits")
}

// change is long work on an app.
type change struct {
	// app as the zone answered, with the change's generation and version.
	app *apiv1.App
	// The name for people: "deployment".
	what string
	// role is the role that it is about; empty: the whole app.
	role string
	// done examines a newer state of the app: finished, still in progress, or why it never finishes.
	done func(change, *apiv1.App) (bool, error)
	// before are the containers that a restart replaces.
	before map[string]bool
	// gone is true if the app itself ends.
	gone bool
	// accepted, if set, is printed without --wait.
	accepted func(*apiv1.App) string
}

// errReplaced means that another version has replaced the awaited one.
var errReplaced = errors.New("replaced by a newer version")

// rolledOut is done when all desired instances run the deployed version.
func rolledOut(c change, now *apiv1.App) (bool, error) {
	if foreign(now) {
		return worked(c, now)
	}
	status := now.GetStatus()
	if role := roleRollout(status, c.role); role != nil {
		return roleRolledOut(c, now, role)
	}
	// A revert makes a newer version: what was reverted before this change is not its affair.
	if status.GetVersion() > c.app.GetVersion() && wasReverted(now) {
		return false, fmt.Errorf("version %d did not come up and was reverted: %s", c.app.GetVersion(), reasonOf(status.GetReason(), now))
	}
	if status.GetVersion() >= c.app.GetVersion() && status.GetState() == apiv1.MasterStatus_FAILED {
		return false, errors.New(failureOf(now))
	}
	if status.GetVersion() == c.app.GetVersion() && status.GetState() == apiv1.MasterStatus_WAITING {
		return heeded(c, now), nil
	}
	if now.GetVersion() > c.app.GetVersion() {
		return false, errReplaced
	}
	for _, instance := range now.GetInstances() {
		if instance.GetVersion() != c.app.GetVersion() {
			return false, nil
		}
	}
	return scaled(c, now)
}

// roleRolledOut is done when the rollout of one role is over, or waits for a person. What becomes of the other roles does not matter.
func roleRolledOut(c change, now *apiv1.App, role *dynamicdeployv1.RoleRollout) (bool, error) {
	if err := withoutFuture(c, now); err != nil {
		return false, err
	}
	if now.GetStatus().GetVersion() < c.app.GetVersion() || !heeded(c, now) {
		return false, nil
	}
	switch role.GetState() {
	case dynamicdeployv1.Rollout_FAILED:
		return false, fmt.Errorf("the rollout of role %s failed: %s", c.role, reasonOf(role.GetReason(), now))
	case dynamicdeployv1.Rollout_REVERTED:
		if now.GetStatus().GetVersion() > c.app.GetVersion() {
			return false, fmt.Errorf("role %s did not come up and was reverted: %s", c.role, reasonOf(role.GetReason(), now))
		}
	case dynamicdeployv1.Rollout_PROGRESSING:
		return false, nil
	}
	return true, nil
}

// withoutFuture is why nothing more becomes of a change: the app has no master any more, or ends.
func withoutFuture(c change, now *apiv1.App) error {
	if now.GetState() == apiv1.App_DEGRADED {
		return fmt.Errorf("it has no application master: %s", reasonOf(now.GetReason(), now))
	}
	if ends(now) || now.GetState() == apiv1.App_STOPPED && c.app.GetState() != apiv1.App_STOPPED {
		return errors.New(because("it is "+word(now.GetState())+" meanwhile", now.GetReason()))
	}
	return nil
}

// scaled is done when exactly the desired number of instances runs.
func scaled(c change, now *apiv1.App) (bool, error) {
	if err := withoutFuture(c, now); err != nil {
		return false, err
	}
	if failedSince(c, now) {
		return false, fmt.Errorf("its rollout of version %d has failed: %s", now.GetVersion(), reasonOf(now.GetStatus().GetReason(), now))
	}
	if now.GetState() == apiv1.App_STOPPED && c.app.GetState() == apiv1.App_STOPPED {
		return false, fmt.Errorf("it is stopped; `mammoth app restart %s` starts it with %s", now.GetName(), plural(int(spec.Instances(now.GetSpec())), "instance"))
	}
	for _, instance := range now.GetInstances() {
		// A rollout in progress ends by itself.
		limit, judged := maxFailures(now, instance), now.GetStatus().GetState() != apiv1.MasterStatus_WORKING
		if judged && instance.GetState() == apiv1.Instance_BACKOFF && limit > 0 && instance.GetFailures() >= limit && heeded(c, now) {
			return false, fmt.Errorf("%s %s", instance.GetId(), reasonOf(instance.GetReason(), now))
		}
		if instance.GetPort() == 0 && hasPorts(now, instance) {
			return false, nil // its node has not reported its address yet
		}
	}
	if now.GetStatus().GetState() == apiv1.MasterStatus_WAITING {
		// Two versions serve side by side: there may be more instances than the count of one.
		return heeded(c, now) && now.GetRunning() >= now.GetWanted() &&
			int(now.GetRunning()) == len(now.GetInstances()), nil
	}
	return heeded(c, now) && now.GetState() == apiv1.App_RUNNING &&
		now.GetStatus().GetState() != apiv1.MasterStatus_WORKING &&
		now.GetRunning() == now.GetWanted() && len(now.GetInstances()) == int(now.GetWanted()), nil
}

// failedSince reports whether the master's work has failed since the change was made.
func failedSince(c change, now *apiv1.App) bool {
	return now.GetStatus().GetState() == apiv1.MasterStatus_FAILED && c.app.GetStatus().GetState() != apiv1.MasterStatus_FAILED &&
		now.GetStatus().GetVersion() >= c.app.GetVersion() && heeded(c, now)
}

// heeded reports whether the app's master acts on the change.
func heeded(c change, now *apiv1.App) bool {
	return now.GetObservedGeneration() >= c.app.GetGeneration()
}

// maxFailures is the number of failures within the window with which a rollout fails.
func maxFailures(app *apiv1.App, instance *apiv1.Instance) int32 {
	for _, role := range app.GetSpec().GetRoles() {
		if role.GetName() == instance.GetRole() {
			return role.GetRestart().GetMaxFailures()
		}
	}
	return 0
}

// desiredCount is the count that running instances are compared with; for an app that is down, the count that it would have.
func desiredCount(app *apiv1.App) int32 {
	if app.GetState() == apiv1.App_STOPPED || ends(app) {
		return spec.Instances(app.GetSpec())
	}
	return app.GetWanted()
}

func hasPorts(app *apiv1.App, instance *apiv1.Instance) bool {
	for _, role := range app.GetSpec().GetRoles() {
		if role.GetName() == instance.GetRole() {
			return len(role.GetPorts()) > 0
		}
	}
	return false
}

// restarted is done when all instances run and none of the earlier containers is left.
func restarted(c change, now *apiv1.App) (bool, error) {
	if foreign(now) {
		return worked(c, now)
	}
	for _, instance := range now.GetInstances() {
		if c.before[instance.GetContainerId()] {
			return false, nil
		}
	}
	return scaled(c, now)
}

func stopped(c change, now *apiv1.App) (bool, error) {
	if !ends(now) && now.GetState() != apiv1.App_STOPPED && now.GetGeneration() > c.app.GetGeneration() {
		return false, errors.New("it was started again meanwhile")
	}
	return now.GetState() == apiv1.App_STOPPED, nil
}

func removed(_ change, now *apiv1.App) (bool, error) {
	return now.GetState() == apiv1.App_REMOVED, nil
}

// reasonOf is the given reason, or else the last reason of an instance.
func reasonOf(reason string, now *apiv1.App) string {
	if strings.Contains(reason, "exited with code") {
		return fmt.Sprintf("%s; `mammoth app logs %s --previous` shows what it wrote last", reason, now.GetName())
	}
	if reason != "" {
		return reason
	}
	for _, instance := range now.GetInstances() {
		if instance.GetReason() != "" {
			return instance.GetId() + ": " + instance.GetReason()
		}
	}
	return fmt.Sprintf("`mammoth app explain %s` may show why", now.GetName())
}

// changer changes apps, and follows a change to its end.
type changer struct{ client }

// finish prints that a change was accepted or, with --wait, follows it to its end.
func (c *changer) finish(ctx context.Context, z *zone, change change, w *waiting) error {
	name := change.app.GetName()
	if !w.wait {
		return c.print(change.app, func(out io.Writer) error {
			text := fmt.Sprintf("%s accepted; `mammoth app show %s` shows how it comes along", change.what, name)
			if change.accepted != nil {
				text = change.accepted(change.app)
			}
			for _, note := range calendarNotes(change.app) {
				text += "; " + note
			}
			_, err := fmt.Fprintf(out, "%s: %s\n", name, text)
			return err
		})
	}
	limit, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	show := newProgress(c.err)
	app, err := follow(limit, z, change, show)
	show.end()
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		return fmt.Errorf("stopped waiting; the %s of %q continues, `mammoth app show %s` shows its progress", change.what, name, name)
	case err != nil && (limit.Err() != nil || status.Code(err) == codes.DeadlineExceeded):
		return fmt.Errorf("the %s of %q is not done after %s: %s", change.what, name, short(w.timeout), c.why(ctx, z, name))
	case errors.Is(err, errReplaced):
		return fmt.Errorf("the %s of %q failed: %s", change.what, name, cause(ctx, z, change, app))
	case err != nil && app != nil:
		return fmt.Errorf("the %s of %q failed: %w", change.what, name, err)
	case err != nil:
		return err
	}
	if app == nil {
		app = change.app
	}
	return c.print(app, func(out io.Writer) error {
		if foreign(app) && !change.gone && change.what != "stop" {
			_, err := fmt.Fprintf(out, "%s: %s\n", name, workText(app))
			return err
		}
		if change.gone || app.GetState() == apiv1.App_STOPPED {
			_, err := fmt.Fprintf(out, "%s: %s done\n", name, change.what)
			return err
		}
		version := fmt.Sprintf("version %d", app.GetVersion())
		if s := app.GetStatus(); change.what == "pause" && s.GetVersion() == app.GetVersion() && s.GetDone() < s.GetTotal() {
			version = fmt.Sprintf("%d of %d at version %d", s.GetDone(), s.GetTotal(), app.GetVersion())
		}
		fmt.Fprintf(out, "%s: %s, %s\n", name, runningOf(app.GetRunning(), app.GetWanted(), " instances"), version)
		for _, note := range calendarNotes(app) {
			fmt.Fprintf(out, "%s: %s\n", name, note)
		}
		if s := app.GetStatus(); s.GetState() == apiv1.MasterStatus_WAITING {
			fmt.Fprintf(out, "%s: %s\n", name, withWhy(s.GetText(), s))
		}
		return nil
	})
}

// maxMissed is the number of failed attempts, of about a second each, after which a zone is reported away.
const maxMissed = 4

// follow watches the app until the change is done, and waits for a zone that does not answer. It returns the last known app,
// nil if it is gone or was never seen.
func follow(ctx context.Context, z *zone, change change, show progress) (*apiv1.App, error) {
	var last *apiv1.App
	retry := backoff.Policy{Min: 100 * time.Millisecond, Max: 2 * time.Second}
	for failures := 0; ; {
		stream, err := z.apps.WatchApp(ctx, &apiv1.GetAppRequest{Name: change.app.GetName()})
		for err == nil {
			var now *apiv1.App
			if now, err = stream.Recv(); err != nil {
				break
			}
			// An app of the same name that was installed since is a different one.
			if now.GetId() != change.app.GetId() && change.gone {
				return nil, nil
			}
			failures, last = 0, now
			show.update(now)
			if done, err := change.done(change, now); done || err != nil {
				return now, err
			}
		}
		if change.gone && (errdefs.IsNotFound(wire.Error(err)) || errors.Is(err, io.EOF)) {
			return nil, nil
		}
		if code := status.Code(err); code != codes.Unavailable && code != codes.Aborted && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if failures++; failures == maxMissed {
			show.away()
		}
		if err := backoff.Sleep(ctx, retry.After(failures)); err != nil {
			return last, err
		}
	}
}

// why asks the zone what the app waits for.
func (c *changer) why(ctx context.Context, z *zone, name string) string {
	explanation, err := z.apps.ExplainApp(ctx, &apiv1.GetAppRequest{Name: name})
	if err != nil {
		return wire.Sentence(c.remote(ctx, z, err))
	}
	text := strings.TrimSuffix(explanation.GetSummary(), ".")
	if obstacles := explanation.GetObstacles(); len(obstacles) > 0 {
		text += fmt.Sprintf("; %s: %s", obstacles[0].GetSubject(), strings.TrimSuffix(obstacles[0].GetReason(), "."))
		if help := obstacles[0].GetHelp(); help != "" {
			text += "; " + help
		}
	}
	return text
}

// cause is why the app is at a newer version than the deployed one.
func cause(ctx context.Context, z *zone, deployed change, now *apiv1.App) string {
	sentence := fmt.Sprintf("version %d took its place", now.GetVersion())
	history, err := z.apps.GetAppHistory(ctx, &apiv1.GetAppRequest{Name: now.GetName()})
	if err != nil {
		return sentence
	}
	for _, version := range history.GetVersions() {
		revert := fmt.Sprintf("revert of %d: ", deployed.app.GetVersion())
		if reason, ok := strings.CutPrefix(version.GetCause(), revert); ok {
			return fmt.Sprintf("version %d did not come up and was reverted: %s", deployed.app.GetVersion(), reasonOf(reason, now))
		}
		if version.GetCurrent() && version.GetCause() != "" {
			sentence += " (" + version.GetCause() + ")"
		}
	}
	return sentence
}
