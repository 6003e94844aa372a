package zone

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// appRollout is what is known of an app's rollout and not stored.
type appRollout struct {
	// reports counts the reports of the master. A report that waits for balancers is dropped if another one has come.
	reports int
}

// rolloutStep is a master's report of a step that is done. It counts once balancers have confirmed what the step has published.
type rolloutStep struct {
	rollout *apiv1.Rollout
	// number is the number of the report.
	number int
}

// rollouts are the versions of apps, and how one takes the place of another: strategies, canaries, reverts. They are DynamicDeploy's
// business, so nothing of them is known outside. The other parts have a spec changed (change, setVersion, setSpec, beginAnew,
// forgetVersions), pass on what a master reports (report, note, revise, confirmed), have what it is sent completed (complete), ask whether a
// rollout is under way (underWay, isProgressing), and ask for what people are shown (view, history, reason, obstacles,
// progress, helps, planReplacements).
//
// A version is a spec with which instances run. It succeeds when all of its instances have run and counted, and is stable as long as it
// does not fail after that.
type rollouts struct {
	*turn
	access    *access.Rules
	scheduler *scheduling
	units     *units
	apps      *apps
	damage    *damage
	desired   *desired
	endpoints *endpoints
	leases    *leases
	explainer *explainer
	views     *views
}

// change makes a spec the wanted one, as a new version if instances have to be replaced.
func (rs *rollouts) change(a *app, spec *apiv1.AppSpec, cause string) {
	if specs.NeedsNewInstances(a.record.GetSpec(), spec) {
		rs.setVersion(a, spec, cause)
		return
	}
	keepStrategy(a.record.GetSpec(), spec)
	rs.setSpec(a, spec)
}

// confirmed takes in a step once balancers have confirmed it.
func (rs *rollouts) confirmed(a *app, step rolloutStep) {
	if a.rollout.reports == step.number {
		rs.set(a, step.rollout)
	}
}

// underWay reports whether the rollout of an app's present version is not over.
func (a *app) underWay() bool {
	state := a.presentRollout().GetState()
	return state == apiv1.Rollout_PROGRESSING || state == apiv1.Rollout_PAUSED
}

func isProgressing(rollout *apiv1.Rollout) bool {
	return rollout.GetState() == apiv1.Rollout_PROGRESSING
}

// beginAnew forgets how the last rollout ended, for an app that is started after a stop.
func (rs *rollouts) beginAnew(a *app) {
	if a.attemptState() != lifecycle.AttemptRegistered {
		a.record.Rollout = nil
	}
}

// view is the rollout of an app that is to have so many instances, as people see it.
func (rs *rollouts) view(a *app, wanted int32) *apiv1.Rollout {
	rollout := a.presentRollout()
	if a.record.GetRollout().GetVersion() != a.record.GetVersion() {
		rollout.Total = wanted
	}
	return rollout
}

// complete adds the versions, and how one takes the place of another, to what a master is sent.
func (rs *rollouts) complete(a *app, wanted *masterv1.Wanted) {
	r := a.record
	for _, role := range wanted.GetSpec().GetRoles() {
		withStrategy(role.GetUpdate())
	}
	wanted.Version, wanted.Revised, wanted.FromVersion = r.GetVersion(), r.GetRevised(), r.GetFromVersion()
	wanted.Versions = make(map[int32]*apiv1.AppSpec, len(r.GetVersions()))
	for _, version := range r.GetVersions() {
		wanted.Versions[version.GetVersion()] = version.GetSpec()
		wanted.Notes = append(wanted.Notes, &masterv1.VersionNote{Version: version.GetVersion(), CameUp: version.GetCameUp(), Failure: version.GetFailure()})
	}
}

// report takes in what a master reports of the rollout of the present version.
func (rs *rollouts) report(a *app, report *masterv1.RolloutReport) {
	r := a.record
	before := r.GetRollout()
	after := &apiv1.Rollout{
		State: report.GetState(), Version: report.GetVersion(), Updated: report.GetUpdated(), Total: report.GetTotal(), Reason: report.GetReason(),
		Percent:  report.GetPercent(),
		Failures: report.GetFailures(), MaxFailures: report.GetMaxFailures(), FailsAt: report.GetFailsAt(), Reverts: report.GetReverts(),
	}
	a.rollout.reports++
	if proto.Equal(before, after) {
		return
	}
	if after.GetState() != apiv1.Rollout_PROGRESSING && before.GetState() != after.GetState() {
		// A step counts as done once balancers have confirmed it.
		rs.endpoints.onConfirmed(a, confirmation{step: &rolloutStep{after, a.rollout.reports}})
		return
	}
	rs.set(a, after)
}

// set makes a report what is known of the rollout.
func (rs *rollouts) set(a *app, after *apiv1.Rollout) {
	r := a.record
	before := r.GetRollout()
	r.Rollout = after
	if before.GetState() != after.GetState() || before.GetVersion() != after.GetVersion() {
		from := ""
		if before.GetVersion() == after.GetVersion() && before != nil {
			from = before.GetState().String()
		}
		rs.Emit(&apiv1.Event{
			Kind: "rollout", App: r.GetName(), From: from, To: after.GetState().String(),
			Message: because(fmt.Sprintf("version %d of %s: %d of %d instances, %s", after.GetVersion(), r.GetName(),
				after.GetUpdated(), after.GetTotal(), strings.ToLower(after.GetState().String())), after.GetReason()),
		})
	}
	rs.apps.changed(a)
}

// presentRollout is the rollout of the present version, as far as the master has reported it.
func (a *app) presentRollout() *apiv1.Rollout {
	if a.record.GetRollout().GetVersion() == a.record.GetVersion() {
		return a.record.GetRollout()
	}
	if a.external() {
		return &apiv1.Rollout{Version: a.record.GetVersion()} // its master has no rollouts unless it says so
	}
	return &apiv1.Rollout{
		State: apiv1.Rollout_PROGRESSING, Version: a.record.GetVersion(), Total: wantedInstances(a.record.GetSpec()),
		Reason: "its application master has not begun yet",
	}
}
