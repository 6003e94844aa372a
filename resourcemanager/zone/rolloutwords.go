package zone

import (
	"fmt"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// rolloutReason adds a rollout that is paused or failed, or that is in progress where no other reason is known.
func (rs *rollouts) reason(a *app, r *reasons) {
	name, rollout := a.record.GetName(), a.presentRollout()
	switch rollout.GetState() {
	case apiv1.Rollout_PAUSED:
		c := cause{detail: because(fmt.Sprintf("the rollout of version %d is paused", rollout.GetVersion()), rollout.GetReason())}
		switch {
		case canaryPercent(a.record.GetSpec()) > 0:
			c.help = fmt.Sprintf("\"mammoth app promote %s\" gives it the whole app, \"mammoth app rollback %s\" takes it back", name, name)
		default:
			c.help = fmt.Sprintf("\"mammoth app resume %s\" lets it go on, \"mammoth app rollback %s\" takes it back", name, name)
		}
		r.about(c)
	case apiv1.Rollout_FAILED:
		c := cause{detail: because(fmt.Sprintf("the rollout of version %d failed", rollout.GetVersion()), rollout.GetReason())}
		if _, err := a.earlier(); err == nil {
			c.help = fmt.Sprintf("\"mammoth app rollback %s\" goes back to the version before", name)
		}
		r.about(c)
	case apiv1.Rollout_PROGRESSING:
		if len(r.all) == 0 {
			r.about(cause{routine: true, detail: fmt.Sprintf("%d of %s are at version %d", rollout.GetUpdated(), countWord(int(rollout.GetTotal()), "instance"), rollout.GetVersion())})
		}
	}
}

// verdict is how many failures of a version count so far and how soon its rollout fails, as the end of a sentence; empty if neither.
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

// steady reports whether an earlier version goes on serving, because the rollout of the present one failed.
func (a *app) keepsServing(version int) bool {
	state := a.record.GetRollout().GetState()
	return (state == apiv1.Rollout_FAILED || state == apiv1.Rollout_REVERTED) && int32(version) < a.record.GetVersion()
}

// helpOfRollout proposes maxUnavailable where a new instance finds no room beside the one that it is to replace; empty otherwise.
func (rs *rollouts) help(a *app, role string) string {
	spec, ok := a.role(role)
	if !ok || spec.GetUpdate().GetMaxUnavailable() > 0 || a.presentRollout().GetState() != apiv1.Rollout_PROGRESSING {
		return ""
	}
	needs, err := wire.Vector(rs.units.schema, roleResources(spec))
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

// replaces reports whether there is an instance of a role to be replaced that holds as much as the new one needs.
func (rs *rollouts) replaces(a *app, role string, needs resource.Vector) bool {
	before := a.record.GetRestartBefore()
	for _, other := range a.instances {
		report := other.GetReport()
		if report.GetRole() != role {
			continue
		}
		cid, err := id.ParseContainer(report.GetContainerId())
		c := a.containers[cid]
		if err != nil || c == nil || !c.held() {
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

// holdsAsMuch reports whether an instance of a role holds as much as is needed.
func (rs *rollouts) covers(a *app, role string, needs resource.Vector) bool {
	for _, instance := range a.instances {
		cid, err := id.ParseContainer(instance.GetReport().GetContainerId())
		if c := a.containers[cid]; err == nil && c != nil && c.held() && instance.GetReport().GetRole() == role && rs.leases.covers(c, needs) {
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
