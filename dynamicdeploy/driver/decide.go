package driver

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// decide has every role's plan decide, performs and reports the outcome, and says when to decide again.
func (d *driver) decide(ctx context.Context, now time.Time) time.Time {
	var next time.Time
	sooner := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	var rollouts []plan.Rollout
	for _, name := range slices.Sorted(maps.Keys(d.roles)) {
		r := d.roles[name]
		actions, at := r.plan.Next(now)
		sooner(at)
		for _, action := range actions {
			d.perform(ctx, r, action)
		}
		// Those that serve are reported first: where a new version takes over, there is no moment without an instance.
		instances := r.plan.Instances(now)
		slices.SortStableFunc(instances, func(a, b plan.Instance) int { return serviceRank(b.InService) - serviceRank(a.InService) })
		for _, instance := range instances {
			d.report(r, instance)
		}
		rollouts = append(rollouts, r.plan.Rollout(now))
		if r.plan.Empty() && roleOf(d.desired.GetSpec(), name) == nil {
			delete(d.roles, name)
		}
	}
	if report := d.appRollout(rollouts); !proto.Equal(report, d.rollout) {
		d.rollout = report
		d.client.ReportRollout(report)
	}
	if memo := d.writeMemo(); !bytes.Equal(memo, d.memo) {
		d.memo = memo
		d.client.SaveMemo(memo)
	}
	if d.reportedGeneration != d.desired.GetGeneration() {
		d.reportedGeneration = d.desired.GetGeneration()
		d.client.Observe(d.desired.GetGeneration())
	}
	return next
}

func (d *driver) perform(ctx context.Context, r *role, action plan.Action) {
	switch action := action.(type) {
	case plan.Ask:
		spec := r.spec(d.desired, action.Version)
		d.client.SetAsk(askOf(d.desired.GetSpec(), spec, action, r.prefix))
	case plan.WithdrawAsk:
		d.client.WithdrawAsk(action.ID)
	case plan.Start:
		if held, ok := d.containers[action.Container.String()]; ok {
			d.log.Info("starting an instance", "instance", action.Instance, "container", action.Container.String(), "version", action.Version)
			d.start(ctx, held, containerOf(d.app, d.registry, r.spec(d.desired, action.Version), action))
		}
	case plan.Withdraw:
		d.log.Info("taking an instance out of service", "instance", action.Instance)
		// Reported anew even if that was done before: it asks for the confirmation again.
		delete(d.reported, action.Instance)
	case plan.Release:
		d.log.Info("releasing a container", "container", action.Container.String())
		d.client.Release(action.Container.String())
	case plan.Forget:
		delete(d.reported, action.Instance)
		d.client.ForgetInstance(action.Instance)
	case plan.Revert:
		d.log.Warn("a rollout has failed", "version", action.From, "reason", action.Reason)
		d.client.Revert(&masterv1.Revert{FromVersion: action.From, Reason: action.Reason})
	}
}

var instanceStates = [...]apiv1.Instance_State{
	plan.InstancePending:       apiv1.Instance_PENDING,
	plan.InstanceDownloading: apiv1.Instance_DOWNLOADING,
	plan.InstanceLoading:     apiv1.Instance_LOADING,
	plan.InstanceStarting:      apiv1.Instance_STARTING,
	plan.InstanceRunning:     apiv1.Instance_RUNNING,
	plan.InstanceUnhealthy:     apiv1.Instance_UNHEALTHY,
	plan.InstanceDraining:    apiv1.Instance_DRAINING,
	plan.InstanceStopping:      apiv1.Instance_STOPPING,
	plan.InstanceBackoff:       apiv1.Instance_BACKOFF,
	plan.InstanceUnreachable:   apiv1.Instance_UNREACHABLE,
}

func serviceRank(first bool) int {
	if first {
		return 1
	}
	return 0
}

// report tells the ResourceManager of an instance that has changed. Of one that no node has spoken of since the takeover
// there is nothing better to say than what the master before said.
func (d *driver) report(r *role, instance plan.Instance) {
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
	if proto.Equal(report, d.reported[instance.Name]) {
		return
	}
	d.reported[instance.Name] = report
	d.client.ReportInstance(report)
}

// judgement puts into a report by what a role's rollout would fail next.
func setOutlook(report *masterv1.RolloutReport, rollout plan.Rollout) {
	report.Failures, report.MaxFailures, report.Reverts = int32(rollout.Failures), int32(rollout.MaxFailures), rollout.Reverts
	report.FailsAt = nil
	if !rollout.FailsAt.IsZero() {
		report.FailsAt = timestamppb.New(rollout.FailsAt)
	}
}

// rolloutOf is the app's rollout out of its roles'.
func (d *driver) appRollout(rollouts []plan.Rollout) *masterv1.RolloutReport {
	states := map[plan.RolloutState]apiv1.Rollout_State{
		plan.Progressing: apiv1.Rollout_PROGRESSING, plan.Done: apiv1.Rollout_DONE,
		plan.Failed: apiv1.Rollout_FAILED, plan.Paused: apiv1.Rollout_PAUSED, plan.Reverted: apiv1.Rollout_REVERTED,
	}
	report := &masterv1.RolloutReport{Version: d.desired.GetVersion()}
	weight, percent := 0, 0
	for _, rollout := range rollouts {
		report.Updated += int32(rollout.Updated)
		report.Total += int32(rollout.Total)
		percent += rollout.Percent * rollout.Total
		// A role that failed speaks for the app, then one that has not got there yet.
		rank := slices.Index([]plan.RolloutState{plan.NoRollout, plan.Done, plan.Reverted, plan.Paused, plan.Progressing, plan.Failed}, rollout.State)
		// Of several roles on the way, the one that is nearest to failing speaks.
		nearer := rank == weight && rollout.Failures > int(report.GetFailures())
		if rank > weight || nearer {
			weight, report.State, report.Reason = rank, states[rollout.State], rollout.Reason
			setOutlook(report, rollout)
		}
	}
	if report.GetTotal() > 0 {
		report.Percent = int32(percent) / report.GetTotal()
	}
	return report
}
