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

// presentRollout is the rollout of the app as it is now.
func (d *Master) presentRollout(now time.Time) *dynamicdeployv1.Rollout {
	var rollouts []plan.Rollout
	for _, r := range d.roles.inStartOrder(d.desired.GetSpec()) {
		rollouts = append(rollouts, r.plan.Rollout(now))
	}
	return appRollout(rollouts, d.desired.GetVersion(), d.onTrial())
}

// onTrial reports whether the desired version is a canary that is not promoted.
func (d *Master) onTrial() bool {
	return canaryPercent(d.desired) > 0 && d.control.share(d.desired) < 100
}

// appRollout is the rollout of the app to a version: the sums over its roles, with the state and reason of the role in the worst state.
func appRollout(rollouts []plan.Rollout, version int32, canary bool) *dynamicdeployv1.Rollout {
	whole := &dynamicdeployv1.Rollout{Version: version, Canary: canary}
	weight, percent := 0, 0
	for _, rollout := range rollouts {
		whole.Updated += int32(rollout.Updated)
		whole.Total += int32(rollout.Total)
		percent += rollout.Percent * rollout.Total
		// A failed role decides the state, else one that is in progress.
		rank := slices.Index([]plan.RolloutState{plan.NoRollout, plan.Done, plan.Reverted, plan.Paused, plan.Progressing, plan.Failed}, rollout.State)
		// Of several roles in progress, the one that is nearest to failing decides.
		closer := rank == weight && rollout.Failures > int(whole.GetFailures())
		if rank > weight || closer {
			weight, whole.State, whole.Reason = rank, rolloutStates[rollout.State], rollout.Reason
			whole.Failures, whole.MaxFailures, whole.Reverts = int32(rollout.Failures), int32(rollout.MaxFailures), rollout.Reverts
			whole.FailsAt = nil
			if !rollout.FailsAt.IsZero() {
				whole.FailsAt = timestamppb.New(rollout.FailsAt)
			}
		}
	}
	if whole.GetTotal() > 0 {
		whole.Percent = int32(percent) / whole.GetTotal()
	}
	return whole
}

// status is the master's status: the rollout in sentences for people.
func (d *Master) status(rollout *dynamicdeployv1.Rollout) *apiv1.MasterStatus {
	detail, err := anypb.New(rollout)
	if err != nil {
		d.log.Error("cannot encode the rollout", "error", err)
	}
	status := &apiv1.MasterStatus{
		Version: rollout.GetVersion(), Reason: rollout.GetReason(), Done: rollout.GetUpdated(), Total: rollout.GetTotal(),
		Outlook: outlook(rollout), Help: d.help(rollout), Detail: detail,
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
		status.State, status.Text = apiv1.MasterStatus_DONE, "an earlier version was brought back"
		if from := d.desired.GetFromVersion(); from > 0 {
			status.Text = fmt.Sprintf("version %d was brought back", from)
		}
	case dynamicdeployv1.Rollout_FAILED:
		status.State, status.Text = apiv1.MasterStatus_FAILED, fmt.Sprintf("the rollout of version %d failed", rollout.GetVersion())
	default:
		status.Text = ""
	}
	return status
}

// help is what a person can do about a rollout; empty if nothing is to be done.
func (d *Master) help(rollout *dynamicdeployv1.Rollout) string {
	var ways []string
	way := func(verb, effect string) {
		ways = append(ways, fmt.Sprintf("\"mammoth app %s %s\" %s", verb, d.app, effect))
	}
	byHand := d.control.pauses(d.desired)
	switch rollout.GetState() {
	case dynamicdeployv1.Rollout_FAILED:
		if earlier := specs.Earlier(versionsOf(d.desired)); earlier != nil {
			way("rollback", fmt.Sprintf("goes back to version %d", earlier.GetVersion()))
		}
	case dynamicdeployv1.Rollout_PROGRESSING:
		if byHand {
			way("resume", "has it judged again") // a canary whose instances are still starting
		}
	case dynamicdeployv1.Rollout_PAUSED:
		if rollout.GetCanary() {
			way("promote", "gives it the whole app")
		} else {
			way("resume", "lets it go on")
		}
		if specs.Earlier(versionsOf(d.desired)) != nil {
			way("rollback", "takes it back")
		}
		if rollout.GetCanary() && byHand {
			way("resume", "has it judged again")
		}
	}
	return strings.Join(ways, ", ")
}

// versionsOf are the versions that there were, with what became of them, the present one last.
func versionsOf(desired *masterv1.Wanted) []*apiv1.AppHistory_Version {
	var versions []*apiv1.AppHistory_Version
	for _, note := range desired.GetNotes() {
		versions = append(versions, &apiv1.AppHistory_Version{
			Version: note.GetVersion(), Spec: desired.GetVersions()[note.GetVersion()], CameUp: note.GetCameUp(), Failure: note.GetFailure(),
		})
	}
	return versions
}

// outlook is how many failures of a version, and how much time without progress, fail its rollout; nil if nothing does.
func outlook(rollout *dynamicdeployv1.Rollout) *apiv1.Outlook {
	failures, most, at := rollout.GetFailures(), rollout.GetMaxFailures(), rollout.GetFailsAt()
	if most == 0 {
		return nil
	}
	if failures >= most {
		return &apiv1.Outlook{
			Text: fmt.Sprintf("version %d failed %d of %d times; %s", rollout.GetVersion(), failures, most, fate(rollout, "it", "its rollout")),
			At:   at, Unless: "a node turns out to be to blame",
		}
	}
	version := fmt.Sprintf("version %d", rollout.GetVersion())
	text := fmt.Sprintf("%s after %d %s", fate(rollout, version, "the rollout of "+version), most, plural(int(most), "failure"))
	if failures > 0 {
		text = fmt.Sprintf("%s failed %d of %d times; %s after %d", version, failures, most, fate(rollout, "it", "its rollout"), most)
	}
	if at != nil {
		text += ", or without progress"
	}
	return &apiv1.Outlook{Text: text, At: at}
}

// fate is what happens to a version or else to its rollout.
func fate(rollout *dynamicdeployv1.Rollout, version, itsRollout string) string {
	if rollout.GetReverts() {
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
