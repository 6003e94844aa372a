package zone

import (
	"fmt"

	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/waiting"
)

// reason adds a rollout that is paused or failed, or that is in progress where no other reason is known.
func (rs *rollouts) reason(a *app, r *waiting.Reasons) {
	name, rollout := a.record.GetName(), a.presentRollout()
	switch rollout.GetState() {
	case apiv1.Rollout_PAUSED:
		c := waiting.Cause{Detail: because(fmt.Sprintf("the rollout of version %d is paused", rollout.GetVersion()), rollout.GetReason())}
		switch {
		case canaryPercent(a.record.GetSpec()) > 0:
			c.Help = fmt.Sprintf("\"mammoth app promote %s\" gives it the whole app, \"mammoth app rollback %s\" takes it back", name, name)
		default:
			c.Help = fmt.Sprintf("\"mammoth app resume %s\" lets it go on, \"mammoth app rollback %s\" takes it back", name, name)
		}
		r.About(c)
	case apiv1.Rollout_FAILED:
		c := waiting.Cause{Detail: because(fmt.Sprintf("the rollout of version %d failed", rollout.GetVersion()), rollout.GetReason())}
		if _, err := a.earlier(); err == nil {
			c.Help = fmt.Sprintf("\"mammoth app rollback %s\" goes back to the version before", name)
		}
		r.About(c)
	case apiv1.Rollout_PROGRESSING:
		if len(r.All) == 0 {
			r.About(waiting.Cause{Routine: true, Detail: fmt.Sprintf("%d of %s are at version %d", rollout.GetUpdated(), countWord(int(rollout.GetTotal()), "instance"), rollout.GetVersion())})
		}
	}
}

// obstacles is what an explanation says of a rollout that has failed or was reverted.
func (rs *rollouts) obstacles(rollout *apiv1.Rollout) []*apiv1.Obstacle {
	if rollout.GetState() != apiv1.Rollout_FAILED && rollout.GetState() != apiv1.Rollout_REVERTED {
		return nil
	}
	outcome := "its rollout failed"
	if rollout.GetState() == apiv1.Rollout_REVERTED {
		outcome = "it was reverted"
	}
	return []*apiv1.Obstacle{{
		Subject: fmt.Sprintf("version %d", rollout.GetVersion()), Count: rollout.GetTotal() - rollout.GetUpdated(),
		Reason: because(outcome, rollout.GetReason()),
	}}
}

// progress is how far a rollout is, as the end of a sentence; empty if there is nothing to say.
func (rs *rollouts) progress(rollout *apiv1.Rollout) string {
	text := ""
	if isProgressing(rollout) && rollout.GetVersion() > 1 {
		text = fmt.Sprintf("; %d of %d run version %d", rollout.GetUpdated(), rollout.GetTotal(), rollout.GetVersion())
	}
	return text + rs.verdict(rollout)
}

// verdict is how often a version has failed so far and how soon its rollout fails, as the end of a sentence; empty if neither.
func (rs *rollouts) verdict(rollout *apiv1.Rollout) string {
	text, fate := "", "its rollout fails"
	if rollout.GetReverts() {
		fate = "it is reverted"
	}
	if failures := rollout.GetFailures(); failures > 0 {
		text = fmt.Sprintf("; version %d failed %d of %d times", rollout.GetVersion(), failures, rollout.GetMaxFailures())
	}
	if rollout.GetFailsAt() == nil {
		return text
	}
	soon := durationWords(max(0, rollout.GetFailsAt().AsTime().Sub(rs.now)))
	if rollout.GetFailures() > 0 && rollout.GetFailures() >= rollout.GetMaxFailures() {
		return fmt.Sprintf("%s; %s in %s unless a node turns out to be to blame", text, fate, soon)
	}
	return fmt.Sprintf("%s; %s in %s without progress", text, fate, soon)
}

// help proposes maxUnavailable where a new instance finds no room beside the one that it is to replace; empty otherwise.
func (rs *rollouts) help(a *app, role string) string {
	spec, ok := a.role(role)
	if !ok || spec.GetUpdate().GetMaxUnavailable() > 0 || a.presentRollout().GetState() != apiv1.Rollout_PROGRESSING {
		return ""
	}
	needs, err := rs.units.read(roleResources(spec))
	if err != nil || !rs.replaces(a, role, needs) {
		return ""
	}
	if strategyOf(spec.GetUpdate()).GetStrategy() != apiv1.UpdatePolicy_ROLLING {
		return "a rolling update with `maxUnavailable: 1` would do: an old instance then goes first and makes room for a new one"
	}
	return oldFirst
}

// oldFirst is the help where a new instance finds no room beside the one that it is to replace.
const oldFirst = "`maxUnavailable: 1` in its update policy (`--max-unavailable 1`) would do: an old instance then goes first and makes room for a new one"

// replaces reports whether an instance of a role is to be replaced whose container holds as much as a new one needs.
func (rs *rollouts) replaces(a *app, role string, needs resource.Vector) bool {
	before := a.record.GetRestartBefore()
	for _, other := range a.instances {
		report := other.GetReport()
		if report.GetRole() != role {
			continue
		}
		c := a.container(report.GetContainerId())
		if c == nil || !c.held() {
			continue
		}
		restarts := before != nil && c.record.GetLease().GetGrantedAt().AsTime().Before(before.AsTime())
		if report.GetVersion() == a.record.GetVersion() && !restarts {
			continue
		}
		if rs.leases.covers(c, needs) {
			return true
		}
	}
	return false
}

// anyCovers reports whether the container of an instance of a role holds as much as a new one needs.
func (rs *rollouts) anyCovers(a *app, role string, needs resource.Vector) bool {
	for _, instance := range a.instances {
		c := a.container(instance.GetReport().GetContainerId())
		if c != nil && c.held() && instance.GetReport().GetRole() == role && rs.leases.covers(c, needs) {
			return true
		}
	}
	return false
}

// rolloutHelps keeps what help finds out for the roles of an app.
type rolloutHelps struct {
	rollouts *rollouts
	app      *app
	known    map[string]string
}

func (rs *rollouts) helps(a *app) rolloutHelps { return rolloutHelps{rs, a, map[string]string{}} }

func (h rolloutHelps) of(role string) string {
	help, known := h.known[role]
	if !known {
		help = h.rollouts.help(h.app, role)
		h.known[role] = help
	}
	return help
}
