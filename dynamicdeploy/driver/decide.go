package driver

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

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
		return d.reportDeadline
	}
	var next time.Time
	earliest := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	answers := d.carryOutCommands(now)
	var rollouts []plan.Rollout
	for _, r := range d.inStartOrder() {
		r.plan.SetComesAfter(d.comesAfter(r.name))
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
			d.report(r, instance)
		}
		rollouts = append(rollouts, r.plan.Rollout(now))
		if r.plan.Empty() && roleOf(d.desired.GetSpec(), r.name) == nil {
			delete(d.roles, r.name)
		}
	}
	d.rollout = d.appRollout(rollouts)
	if status := d.status(d.rollout); !proto.Equal(status, d.reportedStatus) {
		d.reportedStatus = status
		d.out.ReportStatus(status)
	}
	if wants := d.evaluatesErrors(); wants != d.wantsTraffic {
		d.wantsTraffic = wants
		d.out.WantTraffic(wants)
	}
	switch d.rollout.GetState() {
	case dynamicdeployv1.Rollout_DONE, dynamicdeployv1.Rollout_REVERTED:
		d.note(&masterv1.VersionNote{Version: d.desired.GetVersion(), CameUp: true})
	case dynamicdeployv1.Rollout_FAILED:
		d.note(&masterv1.VersionNote{Version: d.desired.GetVersion(), Failure: d.rollout.GetReason()})
	}
	if state := d.rollout.GetState(); d.control.paused && (state == dynamicdeployv1.Rollout_DONE || state == dynamicdeployv1.Rollout_REVERTED) {
		// The next rollout is not paused because this one was.
		d.control.paused = false
		d.setDesired(d.desired, now)
	}
	if memo := d.writeMemo(); !bytes.Equal(memo, d.memo) {
		d.memo = memo
		d.out.SaveMemo(memo)
	}
	if d.reportedGeneration != d.desired.GetGeneration() {
		d.reportedGeneration = d.desired.GetGeneration()
		d.out.ReportGeneration(d.desired.GetGeneration())
	}
	for _, answer := range answers {
		d.answer(answer)
	}
	return next
}

// answer answers a command with what has become of the rollout.
func (d *Master) answer(answer *masterv1.CommandAnswer) {
	if answer.GetRefusal() == "" {
		var err error
		if answer.Answer, err = anypb.New(&dynamicdeployv1.Done{Status: d.reportedStatus}); err != nil {
			d.log.Error("cannot encode an answer", "error", err)
		}
	}
	d.out.Answer(answer)
}

// Starts takes what is to be started.
func (d *Master) Starts() []Start {
	starts := d.starts
	d.starts = nil
	return starts
}

// renewHelp updates the help of asks that wait.
func (d *Master) renewHelp(r *role, help func() string) {
	for _, name := range slices.Sorted(maps.Keys(r.asks)) {
		if ask := r.asks[name]; ask.GetHelp() != help() {
			ask = proto.CloneOf(ask)
			ask.Help = help()
			r.asks[name] = ask
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
		r.asks[action.ID] = ask
		d.out.SetAsk(ask)
	case plan.WithdrawAsk:
		delete(r.asks, action.ID)
		d.out.WithdrawAsk(action.ID)
	case plan.Start:
		if held, ok := d.containers[action.Container.String()]; ok {
			d.log.Info("starting an instance", "instance", action.Instance, "container", action.Container.String(), "version", action.Version)
			d.starts = append(d.starts, Start{held.allocation, containerOf(d.app, d.registry, r.spec(d.desired, action.Version), action)})
		}
	case plan.Withdraw:
		d.log.Info("taking an instance out of service", "instance", action.Instance)
		// A repeated report requests the confirmation again.
		delete(d.reported, action.Instance)
	case plan.Release:
		d.log.Info("releasing a container", "container", action.Container.String(), "reason", action.Reason)
		d.out.Release(action.Container.String(), action.Reason)
	case plan.Forget:
		delete(d.reported, action.Instance)
		d.out.ForgetInstance(action.Instance)
	case plan.Revert:
		d.log.Warn("a rollout has failed", "version", action.From, "reason", action.Reason)
		d.note(&masterv1.VersionNote{Version: action.From, Failure: action.Reason})
		d.out.Revise(&masterv1.Revise{
			Version: action.From, ToVersion: stableVersion(d.desired), Cause: fmt.Sprintf("revert of %d: %s", action.From, action.Reason),
		})
	}
}

var instanceStates = [...]apiv1.Instance_State{
	plan.InstancePending:     apiv1.Instance_PENDING,
	plan.InstanceDownloading: apiv1.Instance_DOWNLOADING,
	plan.InstanceLoading:     apiv1.Instance_LOADING,
	plan.InstanceStarting:    apiv1.Instance_STARTING,
	plan.InstanceRunning:     apiv1.Instance_RUNNING,
	plan.InstanceUnhealthy:   apiv1.Instance_UNHEALTHY,
	plan.InstanceDraining:    apiv1.Instance_DRAINING,
	plan.InstanceStopping:    apiv1.Instance_STOPPING,
	plan.InstanceBackoff:     apiv1.Instance_BACKOFF,
	plan.InstanceUnreachable: apiv1.Instance_UNREACHABLE,
}

func serviceRank(inService bool) int {
	if inService {
		return 1
	}
	return 0
}

// report reports an instance that has changed. Of an adopted instance whose node has not reported yet, the report of the
// earlier master remains.
func (d *Master) report(r *role, instance plan.Instance) {
	if instance.State == plan.InstanceUnknown {
		return
	}
	report := &masterv1.InstanceReport{
		Id: instance.Name, Role: r.name, Version: instance.Version, State: instanceStates[instance.State],
		InService: instance.InService, Weight: int32(instance.Weight), Restarts: int32(instance.Restarts), Reason: instance.Reason,
		Failures: int32(instance.Failures),
	}
	if !instance.Container.IsZero() {
		report.ContainerId = instance.Container.String()
	}
	if !instance.NextAttempt.IsZero() {
		report.NextAttemptAt = timestamppb.New(instance.NextAttempt)
	}
	switch report.GetState() {
	case apiv1.Instance_STARTING:
		report.CountsAfter = durationpb.New(r.minHealthy)
	case apiv1.Instance_DRAINING:
		if report.GetReason() == "" && r.drain > 0 {
			report.Reason = fmt.Sprintf("requests in flight may take another %s", r.drain)
		}
	}
	if proto.Equal(report, d.reported[instance.Name]) {
		return
	}
	d.reported[instance.Name] = report
	d.out.ReportInstance(report)
}

// note sends a note on a version for the history, unless it is the one that was sent last.
func (d *Master) note(note *masterv1.VersionNote) {
	if !proto.Equal(note, d.noted) {
		d.noted = note
		d.out.NoteVersion(note)
	}
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
