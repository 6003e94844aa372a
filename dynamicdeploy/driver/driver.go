// Package driver is the shell around plan: one goroutine that feeds it with what the ResourceManager and the nodes say,
// and performs what it decides.
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
	// lookAround is how long a new master waits for the nodes' word on what it took over before it judges.
	reportTimeout = 3 * time.Second
	// persistence is how long a start is tried on a node that does not answer.
	startTimeout = 10 * time.Second
)

// Config is what the driver of an app is run with.
type Config struct {
	// Master says which attempt this is and whom to talk to.
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
	// registry is what instances are told as MAMMOTH_REGISTRY.
	registry string

	desired *masterv1.Wanted
	roles  map[string]*role
	nodes  map[id.Node]plan.NodeState
	// held are the containers of the app that have not been seen gone.
	containers map[string]*container
	// unclaimed were granted to an earlier master and are not known to have been started.
	unclaimed []*masterv1.Allocation

	reported map[string]*masterv1.InstanceReport
	rollout  *masterv1.RolloutReport
	memo     []byte
	reportedGeneration int64

	starts  sync.WaitGroup
	startResults chan startResult
}

type container struct {
	allocation *masterv1.Allocation
	id         id.Container
	role       *role
	// sequence is that of the newest status.
	sequence int64
	// over: it was seen gone, and its lease has not ended yet.
	gone bool
}

type startResult struct {
	container string
	status    *corev1.ContainerStatus
	err       error
}

// Run keeps an app running until ctx ends, the app was removed, or another attempt has taken over, which it reports as
// appmaster.ErrSuperseded. Instances go on running in any case.
func Run(ctx context.Context, config Config) error {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Master.Log == nil {
		config.Master.Log = config.Log
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &driver{
		log:      config.Log.With("app", config.Master.App, "attempt", config.Master.Attempt),
		app:      config.Master.App,
		config:   config,
		client:   appmaster.New(config.Master),
		roles:    map[string]*role{},
		nodes:    map[id.Node]plan.NodeState{},
		containers:     map[string]*container{},
		reported: map[string]*masterv1.InstanceReport{},
		startResults:  make(chan startResult),
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

// takeOver starts from what the attempt before left.
func (d *driver) takeOver(registration *masterv1.RegisterResponse) {
	wanted := registration.GetWanted()
	if wanted.GetSpec() == nil && registration.GetSpec() != nil {
		wanted = proto.CloneOf(wanted)
		wanted.Spec = registration.GetSpec()
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
	d.setDesired(wanted, now)
	for _, name := range slices.Sorted(maps.Keys(memo)) {
		r := d.roleNamed(name)
		r.plan.Restore(memo[name].plan)
	}
	d.setDesired(wanted, now)
	containers := slices.Clone(registration.GetContainers())
	slices.SortFunc(containers, byAge)
	for _, allocation := range containers {
		d.track(allocation)
		if !d.adopt(allocation, allocation.GetLabels()) {
			d.unclaimed = append(d.unclaimed, allocation)
		}
	}
}

// lookAround takes in what the ResourceManager and the nodes say of the containers that were taken over, for a while:
// an instance must not be judged, nor a start repeated, for lack of news.
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
			d.log.Warn("not every node has told what it runs", "nodes", len(missing))
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

// run is the loop: hear everything that is to be heard, decide, perform, wait.
func (d *driver) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := d.decide(ctx, time.Now())
		if d.desired.GetRemoving() && d.noInstances() {
			d.log.Info("every instance is gone, the app can be forgotten")
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

// hear takes an event and all that wait behind it.
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
	case appmaster.NodeUnseen:
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
	case appmaster.Preempted:
		if held, ok := d.containers[event.ContainerID]; ok && held.role != nil {
			if event.Deadline.IsZero() {
				d.log.Info("a container may stay after all", "container", event.ContainerID)
			} else {
				d.log.Info("a container will be taken away", "container", event.ContainerID, "deadline", event.Deadline, "reason", event.Reason)
			}
			held.role.plan.SetPreemption(held.id, event.Deadline)
		}
	case appmaster.WantedChanged:
		d.setDesired(event.Wanted, now)
	case appmaster.Withdrawn:
		for _, r := range d.roles {
			r.plan.Withdrawn(event.Instance, now)
		}
	case appmaster.Traffic:
		for _, r := range d.roles {
			r.plan.AddTraffic(event.Instance, event.Requests, event.Errors, now)
		}
	case appmaster.Waits:
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

// hold remembers a container that the app has.
func (d *driver) track(allocation *masterv1.Allocation) {
	name := allocation.GetLease().GetContainerId()
	parsed, err := id.ParseContainer(name)
	if err != nil {
		d.log.Error("a container has no proper id", "container", name, "error", err)
		return
	}
	d.containers[name] = &container{allocation: allocation, id: parsed}
}

// adopt takes over a container whose labels say what it runs, and reports whether they do.
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

// grant gives a container that nobody has started to the role that asked for it.
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
	d.log.Warn("a container answers no ask of this app", "container", lease.GetContainerId())
	d.client.Release(lease.GetContainerId())
}

// observe takes a node's word, unless it is older than what is known.
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

// idle reports whether no role has an instance.
func (d *driver) noInstances() bool {
	for _, r := range d.roles {
		if !r.plan.Empty() {
			return false
		}
	}
	return true
}

// start sends a start and comes back with the answer by d.started.
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

// unanswered reports whether a start may have been heeded for all that is known.
func mayHaveStarted(err error) bool {
	return errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, context.Canceled) // which a call says whose connection was closed because the node has moved
}

// refusal says what a start that was not accepted means. A node that refuses what it was asked to run has seen the version;
// of every other error nobody knows that the next version would fare better.
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
