package driver

import (
	"fmt"
	"slices"
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

// appRollout is the rollout of the app to a version: the sums of its roles', with the state and reason of the role that is worst.
func appRollout(rollouts []plan.Rollout, version int32, canary bool) *dynamicdeployv1.Rollout {
	whole := &dynamicdeployv1.Rollout{Version: version, Canary: canary}
	weight, percent := 0, 0
	for _, rollout := range rollouts {
		whole.Updated += int32(rollout.Updated)
		whole.Total += int32(rollout.Total)
		percent += rollout.Percent * rollout.Total
		// A failed role decides, then one that is in progress.
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

// status is what the ResourceManager is told of a rollout, in words for people.
func (d *Master) status(rollout *dynamicdeployv1.Rollout) *apiv1.MasterStatus {
	detail, err := anypb.New(rollout)
	if err != nil {
		d.log.Error("cannot encode the rollout", "error", err)
	}
	status := &apiv1.MasterStatus{
		Version: rollout.GetVersion(), Reason: rollout.GetReason(), Done: rollout.GetUpdated(), Total: rollout.GetTotal(),
		Outlook: outlook(rollout), Detail: detail,
	}
	status.Text = fmt.Sprintf("%d of %s at version %d", rollout.GetUpdated(), areInstances(rollout.GetTotal()), rollout.GetVersion())
	switch rollout.GetState() {
	case dynamicdeployv1.Rollout_PROGRESSING:
		status.State = apiv1.MasterStatus_WORKING
	case dynamicdeployv1.Rollout_PAUSED:
		status.State, status.Text = apiv1.MasterStatus_WAITING, fmt.Sprintf("the rollout of version %d is paused", rollout.GetVersion())
		verb, effect := "resume", "lets it go on"
		if rollout.GetCanary() {
			verb, effect = "promote", "gives it the whole app"
		}
		status.Help = fmt.Sprintf("\"mammoth app %s %s\" %s, \"mammoth app rollback %s\" takes it back", verb, d.app, effect, d.app)
		if rollout.GetCanary() && d.control.pauses(d.desired) {
			status.Help += fmt.Sprintf(", \"mammoth app resume %s\" has it judged again", d.app)
		}
	case dynamicdeployv1.Rollout_DONE:
		status.State = apiv1.MasterStatus_DONE
	case dynamicdeployv1.Rollout_REVERTED:
		status.State, status.Text = apiv1.MasterStatus_DONE, "an earlier version was brought back"
		if from := d.desired.GetFromVersion(); from > 0 {
			status.Text = fmt.Sprintf("version %d was brought back", from)
		}
	case dynamicdeployv1.Rollout_FAILED:
		status.State, status.Text = apiv1.MasterStatus_FAILED, fmt.Sprintf("the rollout of version %d failed", rollout.GetVersion())
		if hasEarlier(d.desired) {
			status.Help = fmt.Sprintf("\"mammoth app rollback %s\" goes back to the version before", d.app)
		}
	default:
		status.Text = ""
	}
	return status
}

// outlook is how soon a rollout fails; nil if it cannot.
func outlook(rollout *dynamicdeployv1.Rollout) *apiv1.Outlook {
	failures, most := rollout.GetFailures(), rollout.GetMaxFailures()
	fate := "its rollout fails"
	if rollout.GetReverts() {
		fate = "it is reverted"
	}
	failed := fmt.Sprintf("version %d failed %d of %d times", rollout.GetVersion(), failures, most)
	switch {
	case rollout.GetFailsAt() == nil && failures == 0:
		return nil
	case rollout.GetFailsAt() == nil:
		return &apiv1.Outlook{Text: fmt.Sprintf("%s; with %d %s", failed, most, fate)}
	case failures == 0 && rollout.GetReverts():
		return &apiv1.Outlook{Text: fmt.Sprintf("version %d is reverted", rollout.GetVersion()), At: rollout.GetFailsAt(), Unless: "it makes progress"}
	case failures == 0:
		return &apiv1.Outlook{Text: fmt.Sprintf("the rollout of version %d fails", rollout.GetVersion()), At: rollout.GetFailsAt(), Unless: "it makes progress"}
	case failures < most:
		return &apiv1.Outlook{Text: failed + "; " + fate, At: rollout.GetFailsAt(), Unless: "it makes progress"}
	}
	return &apiv1.Outlook{Text: failed + "; " + fate, At: rollout.GetFailsAt(), Unless: "a node turns out to be to blame"}
}

// hasEarlier reports whether a rollback finds a version: one that came up, did not fail, and needs other instances.
func hasEarlier(desired *masterv1.Wanted) bool {
	for _, note := range desired.GetNotes() {
		earlier := desired.GetVersions()[note.GetVersion()]
		if note.GetVersion() < desired.GetVersion() && note.GetCameUp() && note.GetFailure() == "" && earlier != nil &&
			specs.NeedsNewInstances(desired.GetSpec(), earlier) {
			return true
		}
	}
	return false
}

// areInstances is a count with its verb: "3 instances are".
func areInstances(count int32) string {
	if count == 1 {
		return "1 instance is"
	}
	return fmt.Sprintf("%d instances are", count)
}
