// Package driver runs the plan of each role: one goroutine that feeds it with what the ResourceManager and the nodes report,
// and performs what it decides. It owns the connection to the zone (appmaster.Client) and the state of the last reports.
//
// Vocabulary: an instance, its container and the rollout are as in package plan; a report is what the driver sends to the
// ResourceManager about them; the memo is what the next attempt needs to know.
package driver

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

const (
	// reportTimeout is how long a new master waits for the nodes to report the containers that it took over.
	reportTimeout = 3 * time.Second
	// startTimeout is how long a start is repeated while a node does not answer.
	startTimeout = 10 * time.Second
)

// Config is the configuration of a driver.
type Config struct {
	// Master identifies the attempt and its ResourceManager.
	Master appmaster.Config
	// Log may be nil.
	Log *slog.Logger
}

// driver belongs to the goroutine of Run.
type driver struct {
	log    *slog.Logger
	app    string
	config Config
	client *appmaster.Client
	// registry is the MAMMOTH_REGISTRY variable of instances.
	registry string

	// desired is the newest desired state of the app.
	desired *masterv1.Wanted
	roles   map[string]*role
	nodes   map[id.Node]plan.NodeState
	// containers are those of the app that have not been seen gone.
	containers map[string]*container
	// unclaimed were granted to an earlier master and may not have been started.
	unclaimed []*masterv1.Allocation

	// reported, rollout, memo and reportedGeneration are what was last sent, so that only changes are.
	reported           map[string]*masterv1.InstanceReport
	rollout            *masterv1.RolloutReport
	memo               []byte
	reportedGeneration int64

	starts       sync.WaitGroup
	startResults chan startResult
}

type container struct {
	allocation *masterv1.Allocation
	id         id.Container
	// role is nil until it is known which role the container is for.
	role *role
	// sequence is the number of the newest status.
	sequence int64
	// gone is true once the container was seen gone. Its lease has not ended yet.
	gone bool
}

type startResult struct {
	container string
	status    *corev1.ContainerStatus
	err       error
}

// Run keeps an app running until ctx ends, the app was removed, or another attempt has taken over, which it returns as
// appmaster.ErrSuperseded. Instances keep running in any case.
func Run(ctx context.Context, config Config) error {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Master.Log == nil {
		config.Master.Log = config.Log
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &driver{
		log:          config.Log.With("app", config.Master.App, "attempt", config.Master.Attempt),
		app:          config.Master.App,
		config:       config,
		client:       appmaster.New(config.Master),
		roles:        map[string]*role{},
		nodes:        map[id.Node]plan.NodeState{},
		containers:   map[string]*container{},
		reported:     map[string]*masterv1.InstanceReport{},
		startResults: make(chan startResult),
	}
	defer d.starts.Wait()
	defer d.client.Close()
	defer cancel()

	registration, err := d.client.Register(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	d.log.Info("registered", "containers", len(registration.GetContainers()))
	d.registry = registration.GetRegistry()
	d.takeOver(registration)
	if done, err := d.awaitReports(ctx, registration.GetContainers()); done {
		return err
	}
	return d.run(ctx)
}

// takeOver continues from what the attempt before left.
func (d *driver) takeOver(registration *masterv1.RegisterResponse) {
	desired := registration.GetWanted()
	if desired.GetSpec() == nil && registration.GetSpec() != nil {
		desired = proto.CloneOf(desired)
		desired.Spec = registration.GetSpec()
	}
	now := time.Now()
	memo := d.readMemo(registration.GetMemo())
	for name := range memo {
		d.roleNamed(name)
	}
	for _, allocation := range registration.GetContainers() {
		if instance := allocation.GetLabels()[labelInstance]; instance != "" {
			d.roleNamed(allocation.GetLabels()[labelRole])
		}
	}
	d.setDesired(desired, now)
	for _, name := range slices.Sorted(maps.Keys(memo)) {
		r := d.roleNamed(name)
		r.plan.Restore(memo[name].plan)
	}
	d.setDesired(desired, now)
	containers := slices.Clone(registration.GetContainers())
	slices.SortFunc(containers, byAge)
	for _, allocation := range containers {
		d.track(allocation)
		if !d.adopt(allocation, allocation.GetLabels()) {
			d.unclaimed = append(d.unclaimed, allocation)
		}
	}
}

// awaitReports waits for the ResourceManager and the nodes to report the containers that were taken over: an instance must
// not be counted as failed, nor started again, because its report is late.
func (d *driver) awaitReports(ctx context.Context, containers []*masterv1.Allocation) (bool, error) {
	missing := map[string]bool{"": true}
	for _, allocation := range containers {
		missing[allocation.GetLease().GetNodeId()] = true
	}
	timer := time.NewTimer(reportTimeout)
	defer timer.Stop()
	for len(missing) > 0 {
		select {
		case event, ok := <-d.client.Events():
			if !ok {
				return true, nil
			}
			switch event := event.(type) {
			case appmaster.Connected:
				delete(missing, "")
			case appmaster.NodeSnapshot:
				delete(missing, event.Node)
			case appmaster.NodeChanged:
				if event.State == apiv1.NodeState_LOST {
					delete(missing, event.Node)
				}
			case appmaster.Allocated:
				d.unclaimed = append(d.unclaimed, event.Allocation)
				d.track(event.Allocation)
				continue
			}
			if err := d.handle(event); err != nil {
				return true, err
			}
		case <-timer.C:
			d.log.Warn("some nodes have not reported their containers", "nodes", len(missing))
			clear(missing)
		case <-ctx.Done():
			return true, nil
		}
	}
	for _, allocation := range d.unclaimed {
		if held, ok := d.containers[allocation.GetLease().GetContainerId()]; ok && held.role == nil && !held.gone {
			d.grant(allocation)
		}
	}
	d.unclaimed = nil
	return false, nil
}

// run is the loop: it decides, performs and waits for events.
func (d *driver) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := d.decide(ctx, time.Now())
		if d.desired.GetRemoving() && d.noInstances() {
			d.log.Info("every instance is gone, the app ends")
			if err := d.client.Finish(ctx, "removed"); err != nil && ctx.Err() == nil {
				return err
			}
			return nil
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case result := <-d.startResults:
			d.startDone(result)
		case event, ok := <-d.client.Events():
			if err := d.handleAll(event, ok); err != nil {
				return err
			}
		}
	}
}

// handleAll handles an event and all that are queued behind it.
func (d *driver) handleAll(event appmaster.Event, ok bool) error {
	for {
		if !ok {
			return errors.New("the connection to the ResourceManager was closed")
		}
		if err := d.handle(event); err != nil {
			return err
		}
		select {
		case event, ok = <-d.client.Events():
		default:
			return nil
		}
	}
}

func (d *driver) handle(event appmaster.Event) error {
	now := time.Now()
	switch event := event.(type) {
	case appmaster.Allocated:
		d.track(event.Allocation)
		d.grant(event.Allocation)
	case appmaster.Completed:
		d.ended(event.Status, now)
		delete(d.containers, event.Status.GetLease().GetContainerId())
	case appmaster.StatusChanged:
		d.observe(event.Status, now)
	case appmaster.NodeDisconnected:
		for _, r := range d.roles {
			r.plan.SetConnected(id.Node(event.Node), false)
		}
	case appmaster.NodeSnapshot:
		for _, r := range d.roles {
			r.plan.SetConnected(id.Node(event.Node), true)
		}
		for _, status := range event.Containers {
			if held, ok := d.containers[status.GetLease().GetContainerId()]; ok {
				held.sequence = 0
			}
			d.observe(status, now)
		}
	case appmaster.NodeChanged:
		d.nodeChanged(event)
	case appmaster.Preemption:
		if held, ok := d.containers[event.ContainerID]; ok && held.role != nil {
			if event.Deadline.IsZero() {
				d.log.Info("a preemption was cancelled", "container", event.ContainerID)
			} else {
				d.log.Info("a container is to be preempted", "container", event.ContainerID, "deadline", event.Deadline, "reason", event.Reason)
			}
			held.role.plan.SetPreemption(held.id, event.Deadline)
		}
	case appmaster.DesiredChanged:
		d.setDesired(event.Desired, now)
	case appmaster.Withdrawn:
		for _, r := range d.roles {
			r.plan.Withdrawn(event.Instance, now)
		}
	case appmaster.Traffic:
		for _, r := range d.roles {
			r.plan.AddTraffic(event.Instance, event.Requests, event.Errors, now)
		}
	case appmaster.WaitingChanged:
		for _, r := range d.roles {
			r.plan.SetWaiting(waitReason(r.name, event.Waiting))
		}
	case appmaster.Superseded:
		d.log.Warn("another attempt has taken over", "reason", event.Reason)
		return appmaster.ErrSuperseded
	}
	return nil
}

func (d *driver) nodeChanged(event appmaster.NodeChanged) {
	states := map[apiv1.NodeState]plan.NodeState{
		apiv1.NodeState_READY: plan.NodeReady, apiv1.NodeState_UNHEALTHY: plan.NodeUnhealthy, apiv1.NodeState_LOST: plan.NodeLost,
		apiv1.NodeState_DRAINING: plan.NodeDraining, apiv1.NodeState_DRAINED: plan.NodeDraining,
	}
	state, ok := states[event.State]
	if !ok {
		return
	}
	d.nodes[id.Node(event.Node)] = state
	for _, r := range d.roles {
		r.plan.SetNode(id.Node(event.Node), state)
	}
	d.log.Info("a node has changed", "node", event.Node, "state", event.State.String(), "reason", event.Reason)
}

// track records a container of the app.
func (d *driver) track(allocation *masterv1.Allocation) {
	name := allocation.GetLease().GetContainerId()
	parsed, err := id.ParseContainer(name)
	if err != nil {
		d.log.Error("a container has an invalid id", "container", name, "error", err)
		return
	}
	d.containers[name] = &container{allocation: allocation, id: parsed}
}

// adopt takes over a container whose labels name its instance, and reports whether they do.
func (d *driver) adopt(allocation *masterv1.Allocation, labels map[string]string) bool {
	held, ok := d.containers[allocation.GetLease().GetContainerId()]
	if !ok || labels[labelInstance] == "" {
		return false
	}
	r := d.roleNamed(labels[labelRole])
	number := r.plan.Number(labels[labelInstance])
	if number == 0 {
		return false
	}
	held.role = r
	r.plan.Adopt(plan.Adopted{
		Container: held.id, Number: number, Version: r.equivalentVersion(d.desired, labelledVersion(labels)),
		Node: id.Node(allocation.GetLease().GetNodeId()), GrantedAt: allocation.GetLease().GetGrantedAt().AsTime(),
	})
	return true
}

// grant gives a container that was not started to the role that asked for it.
func (d *driver) grant(allocation *masterv1.Allocation) {
	lease := allocation.GetLease()
	held, ok := d.containers[lease.GetContainerId()]
	if !ok {
		return
	}
	for _, r := range d.roles {
		if !r.ownsAsk(lease.GetAskId()) {
			continue
		}
		held.role = r
		r.plan.Granted(plan.Grant{
			Container: held.id, Node: id.Node(lease.GetNodeId()), Ask: lease.GetAskId(),
			Version: r.versionWithResources(d.desired, lease.GetResources()), At: lease.GetGrantedAt().AsTime(),
		})
		return
	}
	d.log.Warn("a container was granted for an unknown ask", "container", lease.GetContainerId())
	d.client.Release(lease.GetContainerId())
}

// observe hands a node's status to the plan, unless a newer one is known.
func (d *driver) observe(status *corev1.ContainerStatus, now time.Time) {
	held, ok := d.containers[status.GetLease().GetContainerId()]
	if !ok || status.GetSequence() < held.sequence {
		return
	}
	held.sequence = status.GetSequence()
	held.gone = status.GetState() == corev1.ContainerStatus_DONE
	if held.role == nil && held.gone {
		return
	}
	if held.role == nil && !d.adopt(held.allocation, status.GetLabels()) {
		return
	}
	if held.gone {
		d.ended(status, now)
		return
	}
	held.role.plan.Observe(statusOf(held.id, status), now)
}

func (d *driver) ended(status *corev1.ContainerStatus, now time.Time) {
	if held, ok := d.containers[status.GetLease().GetContainerId()]; ok && held.role != nil {
		held.role.plan.Ended(held.id, exitOf(status.GetExit()), now)
	}
}

// noInstances reports whether no role has an instance.
func (d *driver) noInstances() bool {
	for _, r := range d.roles {
		if !r.plan.Empty() {
			return false
		}
	}
	return true
}

// start sends a start and delivers the answer to startResults.
func (d *driver) start(ctx context.Context, held *container, spec *corev1.ContainerSpec) {
	d.starts.Go(func() {
		name := held.allocation.GetLease().GetContainerId()
		limit, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		policy := backoff.Policy{Min: 20 * time.Millisecond, Max: time.Second}
		var status *corev1.ContainerStatus
		var err error
		for failures := 1; ; failures++ {
			status, err = d.client.Start(limit, held.allocation, spec)
			if !mayHaveStarted(err) || backoff.Sleep(limit, policy.After(failures)) != nil {
				break
			}
		}
		select {
		case d.startResults <- startResult{container: name, status: status, err: err}:
		case <-ctx.Done():
		}
	})
}

// mayHaveStarted reports whether the node may have run the container although the start failed.
func mayHaveStarted(err error) bool {
	return errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, context.Canceled) // of a call whose connection was closed because the node's address changed
}

// startError classifies a refused start. Only an error about the spec counts against the version: after any other error
// another version might fail the same way.
func startError(err error) plan.StartError {
	switch {
	case mayHaveStarted(err):
		return plan.StartUnanswered
	case errors.Is(err, errdefs.ErrInvalidArgument), errors.Is(err, errdefs.ErrNotImplemented), errors.Is(err, errdefs.ErrPermissionDenied):
		return plan.StartInvalid
	}
	return plan.StartRefused
}

func (d *driver) startDone(result startResult) {
	held, ok := d.containers[result.container]
	if !ok || held.role == nil {
		return
	}
	if result.err != nil {
		d.log.Warn("a start was not accepted", "container", result.container, "error", result.err)
		reason := "the node did not accept it: " + wire.Sentence(result.err)
		held.role.plan.StartFailed(held.id, reason, startError(result.err), time.Now())
		return
	}
	if held.sequence == 0 {
		d.observe(result.status, time.Now())
	}
}
