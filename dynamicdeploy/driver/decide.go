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
	var rollouts []plan.Rollout
	for _, r := range d.roles.inStartOrder(d.desired.GetSpec()) {
		r.plan.SetComesAfter(d.roles.comesAfter(roleOf(d.desired.GetSpec(), r.name)))
		actions, at := r.plan.Next(now)
		earliest(at)
		help := sync.OnceValue(func() string { return d.roomHelp(r, now) })
		for _, action := range actions {
			d.perform(r, action, help)
		}
		d.renewHelp(r, help)
		// Instances in service are reported first: when a new version takes over, there is no moment without an instance.
		instances := r.plan.Instances(now)
		slices.SortStableFunc(instances, func(a, b plan.Instance) int { return serviceRank(b.InService) - serviceRank(a.InService) })
		for _, instance := range instances {
			// Of an adopted instance whose node has not reported yet, the report of the earlier master remains.
			if instance.State != plan.InstanceUnknown {
				d.sent.instance(r.name, instance)
			}
		}
		rollouts = append(rollouts, r.plan.Rollout(now))
		if r.plan.Empty() && roleOf(d.desired.GetSpec(), r.name) == nil {
			d.roles.forget(r.name)
		}
	}
	d.rollout = appRollout(rollouts, d.desired.GetVersion(), d.onTrial())
	status := d.status(d.rollout)
	d.sent.status(status)
	d.sent.wantTraffic(d.evaluatesErrors())
	switch d.rollout.GetState() {
	case dynamicdeployv1.Rollout_DONE, dynamicdeployv1.Rollout_REVERTED:
		d.sent.note(&masterv1.VersionNote{Version: d.desired.GetVersion(), CameUp: true})
	case dynamicdeployv1.Rollout_FAILED:
		d.sent.note(&masterv1.VersionNote{Version: d.desired.GetVersion(), Failure: d.rollout.GetReason()})
	}
	if state := d.rollout.GetState(); state == dynamicdeployv1.Rollout_DONE || state == dynamicdeployv1.Rollout_REVERTED {
		// The next rollout is not paused because this one was.
		if d.control.resume() {
			d.setDesired(d.desired, now)
		}
	}
	d.sent.memo(d.writeMemo())
	d.sent.generation(d.desired.GetGeneration())
	for _, answer := range answers {
		d.answer(answer, status)
	}
	return next
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
	case plan.Revert:
		d.log.Warn("a rollout has failed", "version", action.From, "reason", action.Reason)
		d.sent.note(&masterv1.VersionNote{Version: action.From, Failure: action.Reason})
		d.out.Revise(&masterv1.Revise{
			Version: action.From, ToVersion: stableVersion(d.desired), Cause: fmt.Sprintf("revert of %d: %s", action.From, action.Reason),
		})
	}
}

func serviceRank(inService bool) int {
	if inService {
		return 1
	}
	return 0
}

// stableVersion is the newest stable version before the desired one; zero if there is none.
func stableVersion(desired *masterv1.Wanted) int32 {
	for _, note := range slices.Backward(desired.GetNotes()) {
		if note.GetVersion() < desired.GetVersion() && specs.Stable(note) {
			return note.GetVersion()
		}
	}
	return 0
}

// evaluatesErrors reports whether a rollout is in progress that fails when too many requests fail.
func (d *Master) evaluatesErrors() bool {
	state := d.rollout.GetState()
	return (state == dynamicdeployv1.Rollout_PROGRESSING || state == dynamicdeployv1.Rollout_PAUSED) &&
		slices.ContainsFunc(d.desired.GetSpec().GetRoles(), func(role *apiv1.RoleSpec) bool { return role.GetUpdate().GetMaxErrorPercent() > 0 })
}
