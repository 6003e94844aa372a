package driver

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// Decide puts the actions of every role's plan into the outbox, and returns when to decide again if no event comes before; zero is
// never. Starts returns what is to be started.
func (d *Master) Decide(now time.Time) time.Time {
	if d.awaitingReports(now) {
		return d.takeover.until()
	}
	var next time.Time
	earliest := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	answers := d.carryOutCommands(now)
	app := rollouts{version: d.desired.GetVersion(), several: len(d.desired.GetSpec().GetRoles()) > 1}
	var failed []failure
	for _, r := range d.roles.inStartOrder(d.desired.GetSpec()) {
		r.plan.SetComesAfter(d.roles.comesAfter(roleOf(d.desired.GetSpec(), r.name)))
		if !r.plan.Over() {
			r.plan.SetCanRevert(r.canRevert(d.desired))
		}
		actions, at := r.plan.Next(now)
		earliest(at)
		help := sync.OnceValue(func() string { return d.roomHelp(r, now) })
		for _, action := range actions {
			if revert, ok := action.(plan.Revert); ok {
				failed = append(failed, failure{r, revert})
				continue
			}
			d.perform(r, action, help)
		}
		d.renewHelp(r, help)
		// Instances in service are reported first: when a new version takes over, there is no moment without an instance.
		instances := r.plan.Instances(now)
		slices.SortStableFunc(instances, func(a, b plan.Instance) int { return serviceRank(b.InService) - serviceRank(a.InService) })
		for _, instance := range instances {
			// Of an adopted instance whose node has not reported yet, the report of the earlier master remains.
			if instance.State != plan.InstanceUnknown {
				d.sent.instance(r, instance)
			}
		}
		app.add(d.rolloutOf(r, now))
		if r.plan.Empty() && roleOf(d.desired.GetSpec(), r.name) == nil {
			d.roles.forget(r.name)
		}
	}
	// Nobody is to see a failure that is reverted as the end of the work, so the revert is sent before the status.
	d.revert(&app, failed)
	status := d.status(&app)
	d.sent.status(status)
	d.sent.wantTraffic(app.evaluateErrors())
	switch app.state() {
	case dynamicdeployv1.Rollout_DONE, dynamicdeployv1.Rollout_REVERTED:
		d.sent.note(&masterv1.VersionNote{Version: d.desired.GetVersion(), CameUp: true})
	case dynamicdeployv1.Rollout_FAILED:
		d.sent.note(&masterv1.VersionNote{Version: d.desired.GetVersion(), Failure: app.failure()})
	}
	for r := range d.roles.each() {
		// The next rollout is not paused because this one was.
		if r.plan.Over() && r.control.resume() {
			r.setDesired(d.desired, now)
		}
	}
	d.sent.memo(d.writeMemo())
	d.sent.generation(d.desired.GetGeneration())
	for _, answer := range answers {
		d.answer(answer, status)
	}
	return next
}

// failure is a role whose rollout has failed, and that is to be taken back.
type failure struct {
	role   *role
	revert plan.Revert
}

// revert has roles taken back, those together that go to the same version, and with them those that were to begin after them. A failed
// role that goes to another version waits: it begins anew with the version that this revert makes, and is taken back when it fails again.
func (d *Master) revert(app *rollouts, failed []failure) {
	var revise *masterv1.Revise
	var reasons []string
	whole := false
	for _, f := range failed {
		to, all := f.role.revertsTo(d.desired)
		if to == 0 {
			continue
		}
		if revise == nil {
			revise = &masterv1.Revise{Version: f.revert.From, ToVersion: to}
		}
		if to != revise.GetToVersion() {
			continue
		}
		d.log.Warn("a rollout has failed", "role", f.role.name, "version", f.revert.From, "reason", f.revert.Reason)
		whole = whole || all
		revise.Roles = append(revise.Roles, f.role.name)
		reasons = append(reasons, app.ofRole(f.role.name, f.revert.Reason))
	}
	if revise == nil {
		return
	}
	if whole {
		revise.Roles = nil
	} else {
		revise.Roles = d.withThoseAfter(revise.GetRoles(), revise.GetToVersion())
	}
	d.sent.note(&masterv1.VersionNote{Version: revise.GetVersion(), Failure: app.failure()})
	revise.Cause = fmt.Sprintf("revert of %d: %s", revise.GetVersion(), first3(reasons))
	d.out.Revise(revise)
}

// withThoseAfter adds to roles that are taken back to a version those that come after them and have not begun with the desired one.
func (d *Master) withThoseAfter(names []string, to int32) []string {
	for _, spec := range specs.StartOrder(d.desired.GetSpec().GetRoles()) {
		comesAfter := slices.ContainsFunc(spec.GetAfter(), func(name string) bool { return slices.Contains(names, name) })
		r, earlier := d.roles.named(spec.GetName()), roleOf(d.desired.GetVersions()[to], spec.GetName())
		if comesAfter && r.plan.Deferred() && earlier != nil && !slices.Contains(names, r.name) && !specs.SameContainers(earlier, spec) {
			names = append(names, r.name)
		}
	}
	return names
}

// answer answers a command with what has become of the rollout.
func (d *Master) answer(answer *masterv1.CommandAnswer, status *apiv1.MasterStatus) {
	if answer.GetRefusal() == "" {
		var err error
		if answer.Answer, err = anypb.New(&dynamicdeployv1.Done{Status: status}); err != nil {
			d.log.Error("cannot encode an answer", "error", err)
		}
	}
	d.sent.answer(answer)
}

// Starts takes what is to be started.
func (d *Master) Starts() []Start {
	starts := d.starts
	d.starts = nil
	return starts
}

// renewHelp updates the help of asks that wait.
func (d *Master) renewHelp(r *role, help func() string) {
	for _, ask := range r.waiting() {
		if ask.GetHelp() != help() {
			ask = proto.CloneOf(ask)
			ask.Help = help()
			r.ask(ask)
			d.out.SetAsk(ask)
		}
	}
}

// perform puts an action into the outbox, or appends it to the starts. help returns what a person can do if there is no room for a
// new instance.
func (d *Master) perform(r *role, action plan.Action, help func() string) {
	switch action := action.(type) {
	case plan.Ask:
		spec := r.spec(d.desired, action.Version)
		ask := askOf(d.desired.GetSpec(), spec, action, r.prefix)
		ask.Help = help()
		r.ask(ask)
		d.out.SetAsk(ask)
	case plan.WithdrawAsk:
		r.dropAsk(action.ID)
		d.out.WithdrawAsk(action.ID)
	case plan.Start:
		if held := d.containers.at(action.Container.String()); held != nil {
			d.log.Info("starting an instance", "instance", action.Instance, "container", action.Container.String(), "version", action.Version)
			d.starts = append(d.starts, Start{held.allocation, containerOf(d.app, d.registry, r.spec(d.desired, action.Version), action)})
		}
	case plan.Withdraw:
		d.log.Info("taking an instance out of service", "instance", action.Instance)
		// A repeated report requests the confirmation again.
		d.sent.repeatInstance(action.Instance)
	case plan.Release:
		d.log.Info("releasing a container", "container", action.Container.String(), "reason", action.Reason)
		d.out.Release(action.Container.String(), action.Reason)
	case plan.Forget:
		d.sent.forgetInstance(action.Instance)
	}
}

func serviceRank(inService bool) int {
	if inService {
		return 1
	}
	return 0
}
