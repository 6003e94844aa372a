package driver

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

var rolloutStates = map[plan.RolloutState]dynamicdeployv1.Rollout_State{
	plan.Progressing: dynamicdeployv1.Rollout_PROGRESSING, plan.Done: dynamicdeployv1.Rollout_DONE,
	plan.Failed: dynamicdeployv1.Rollout_FAILED, plan.Paused: dynamicdeployv1.Rollout_PAUSED, plan.Reverted: dynamicdeployv1.Rollout_REVERTED,
}

// presentRollouts are the rollouts of the roles that the app has, as they are now.
func (d *Master) presentRollouts(now time.Time) []roleRollout {
	var list []roleRollout
	for _, spec := range d.desired.GetSpec().GetRoles() {
		list = append(list, d.rolloutOf(d.roles.named(spec.GetName()), now))
	}
	return list
}

// rolloutOf is the rollout of a role.
func (d *Master) rolloutOf(r *role, now time.Time) roleRollout {
	present, spec := r.plan.Rollout(now), roleOf(d.desired.GetSpec(), r.name)
	shown := roleRollout{
		RoleRollout: &dynamicdeployv1.RoleRollout{
			Role: r.name, State: rolloutStates[present.State], Updated: int32(present.Updated), Total: int32(present.Total), Reason: present.Reason,
			Percent: int32(present.Percent), Failures: int32(present.Failures), MaxFailures: int32(present.MaxFailures), Reverts: present.Reverts,
			Canary: r.control.promotable() && !r.plan.Over(),
		},
		byHand: r.control.pauses(), share: r.control.share(), errors: spec.GetUpdate().GetMaxErrorPercent() > 0, removed: spec == nil,
	}
	shown.from, shown.reverts = r.control.brings()
	if !present.FailsAt.IsZero() {
		shown.FailsAt = timestamppb.New(present.FailsAt)
	}
	return shown
}

// status is the master's status: the rollouts in sentences for people.
func (d *Master) status(app *rollouts) *apiv1.MasterStatus {
	rollout := app.whole()
	detail, err := anypb.New(rollout)
	if err != nil {
		d.log.Error("cannot encode the rollout", "error", err)
	}
	status := &apiv1.MasterStatus{
		Version: rollout.GetVersion(), Reason: rollout.GetReason(), Done: rollout.GetUpdated(), Total: rollout.GetTotal(),
		Outlook: app.outlook(), Help: d.help(app), Detail: detail,
	}
	status.Text = fmt.Sprintf("%d of %s at version %d", rollout.GetUpdated(), areInstances(rollout.GetTotal()), rollout.GetVersion())
	switch rollout.GetState() {
	case dynamicdeployv1.Rollout_PROGRESSING:
		status.State = apiv1.MasterStatus_WORKING
	case dynamicdeployv1.Rollout_PAUSED:
		status.State, status.Text = apiv1.MasterStatus_WAITING, fmt.Sprintf("the rollout of version %d is paused", rollout.GetVersion())
	case dynamicdeployv1.Rollout_DONE:
		status.State = apiv1.MasterStatus_DONE
	case dynamicdeployv1.Rollout_REVERTED:
		status.State, status.Text = apiv1.MasterStatus_DONE, app.revertText()
	case dynamicdeployv1.Rollout_FAILED:
		status.State, status.Text = apiv1.MasterStatus_FAILED, fmt.Sprintf("the rollout of version %d failed", rollout.GetVersion())
	default:
		status.Text = ""
	}
	return status
}

// revertText says which version was brought back.
func (l *rollouts) revertText() string {
	from := l.decisive().from
	switch {
	case l.several:
		return "a rollout was reverted" // the reason names the role and the version
	case from > 0:
		return fmt.Sprintf("version %d was brought back", from)
	}
	return "an earlier version was brought back"
}

// help is what a person can do about the rollouts, those first that are in the worst state; empty if nothing is to be done.
func (d *Master) help(app *rollouts) string {
	var ways []string
	roles := 0
	for _, state := range slices.Backward(ranks) {
		for i := range app.roles {
			r := &app.roles[i]
			if r.GetState() != state || r.removed || roles == maxNamedRoles {
				continue
			}
			if of := d.helpFor(r, app.several); len(of) > 0 {
				ways, roles = append(ways, of...), roles+1
			}
		}
	}
	return strings.Join(ways, ", ")
}

// helpFor is what a person can do about the rollout of a role.
func (d *Master) helpFor(r *roleRollout, several bool) (ways []string) {
	way := func(verb, effect string) {
		ways = append(ways, fmt.Sprintf("\"mammoth app %s %s\" %s", verb, d.argument(r.GetRole(), several), effect))
	}
	earlier, all := specs.Earlier(versionsOf(d.desired)), "the whole app"
	if several {
		earlier, all = specs.EarlierOf(r.GetRole(), versionsOf(d.desired)), "the whole role"
	}
	switch r.GetState() {
	case dynamicdeployv1.Rollout_FAILED:
		if earlier != nil {
			way("rollback", fmt.Sprintf("goes back to version %d", earlier.GetVersion()))
		}
	case dynamicdeployv1.Rollout_PROGRESSING:
		if r.byHand {
			way("resume", "lets it fail or be reverted again") // a canary whose instances are still starting
		}
	case dynamicdeployv1.Rollout_PAUSED:
		if r.GetCanary() {
			way("promote", "gives it "+all)
		} else {
			way("resume", "lets it go on")
		}
		if earlier != nil {
			way("rollback", "takes it back")
		}
		if r.GetCanary() && r.byHand {
			way("resume", "lets it fail or be reverted again")
		}
	}
	return ways
}

// argument is what the command line calls a role of the app, or the app if it has only one.
func (d *Master) argument(role string, several bool) string {
	if several {
		return d.app + " --role " + role
	}
	return d.app
}

// versionsOf are the versions that there were, with what became of them, the present one last.
func versionsOf(desired *masterv1.DesiredState) []*apiv1.AppHistory_Version {
	var versions []*apiv1.AppHistory_Version
	for _, note := range desired.GetNotes() {
		versions = append(versions, &apiv1.AppHistory_Version{
			Version: note.GetVersion(), Spec: desired.GetVersions()[note.GetVersion()], CameUp: note.GetCameUp(), Failure: note.GetFailure(),
		})
	}
	return versions
}

// outlook is how many failures of the version, and how much time without progress, fail the decisive rollout; nil if nothing does.
func (l *rollouts) outlook() *apiv1.Outlook {
	r := l.decisive()
	failures, most, at := r.GetFailures(), r.GetMaxFailures(), r.GetFailsAt()
	if most == 0 {
		return nil
	}
	version := fmt.Sprintf("version %d", l.version)
	if l.several {
		version += " of " + r.GetRole()
	}
	if failures >= most {
		return &apiv1.Outlook{
			Text: fmt.Sprintf("%s failed %s, which is too often; %s", version, howOften(failures, most), r.fate("it", "its rollout")),
			At:   at, Unless: "a node turns out to be to blame",
		}
	}
	text := fmt.Sprintf("%s after %d %s", r.fate(version, "the rollout of "+version), most, plural(int(most), "failure"))
	if failures > 0 {
		text = fmt.Sprintf("%s failed %s; %s after %d failures", version, howOften(failures, most), r.fate("it", "its rollout"), most)
	}
	if at != nil {
		text += ", or without progress"
	}
	return &apiv1.Outlook{Text: text, At: at}
}

// howOften is how often a version has failed. Failures above the most are not all counted.
func howOften(failures, most int32) string {
	if failures > most {
		return "more than " + plan.InWords(int(most))
	}
	return plan.InWords(int(failures))
}

// fate is what happens to a version or else to its rollout.
func (r *roleRollout) fate(version, itsRollout string) string {
	if r.GetReverts() {
		return version + " is reverted"
	}
	return itsRollout + " fails"
}

// areInstances is a count with its verb: "3 instances are".
func areInstances(count int32) string {
	if count == 1 {
		return "1 instance is"
	}
	return fmt.Sprintf("%d instances are", count)
}
