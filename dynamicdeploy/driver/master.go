package driver

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// Master is an app's master without its connections. It receives events with the time, puts what is to be sent to the
// ResourceManager into an outbox, and returns what is to be started. It belongs to one goroutine and does not wait.
type Master struct {
	log *slog.Logger
	app string
	out *appmaster.Outbox
	// registry is the MAMMOTH_REGISTRY variable of instances.
	registry string

	// desired is the newest desired state of the app.
	desired    *masterv1.DesiredState
	roles      roles
	containers containers
	takeover   takeover
	previews   previews
	sent       sent
	// commands were received and are not carried out yet.
	commands []*masterv1.Command
	// starts are the starts that were decided since Starts was last called.
	starts []Start
}

// Start is a container to be started. Its answer is StartEnded.
type Start struct {
	Allocation *masterv1.Allocation
	Spec       *corev1.ContainerSpec
}

// NewMaster returns a master that has not registered yet.
func NewMaster(config appmaster.Config, out *appmaster.Outbox, log *slog.Logger) *Master {
	return &Master{
		log: log, app: config.App, out: out, roles: newRoles(config.App, config.Attempt),
		containers: containers{byID: map[string]*container{}}, previews: previews{open: map[string]*preview{}},
		sent: sent{out: out, instances: map[string]*masterv1.InstanceReport{}},
	}
}

// Finished reports whether the app is to be removed, and no instance is left.
func (d *Master) Finished() bool {
	return !d.takeover.underWay() && d.desired.GetRemoving() && d.roles.empty()
}

// TakeOver continues from what the attempt before left.
func (d *Master) TakeOver(registration *masterv1.RegisterResponse, now time.Time) {
	d.registry = registration.GetRegistry()
	d.takeover.begin(now)
	desired := registration.GetDesired()
	if desired.GetSpec() == nil && registration.GetSpec() != nil {
		desired = proto.CloneOf(desired)
		desired.Spec = registration.GetSpec()
	}
	memos := d.readMemo(registration.GetMemo())
	for name, memo := range memos {
		d.roles.named(name).take(&memo, desired)
		memos[name] = memo
	}
	for _, allocation := range registration.GetContainers() {
		if instance := allocation.GetLabels()[labelInstance]; instance != "" {
			d.roles.named(allocation.GetLease().GetRole())
		}
	}
	d.setDesired(desired, now)
	for _, name := range slices.Sorted(maps.Keys(memos)) {
		d.roles.named(name).plan.Restore(memos[name].plan)
	}
	d.setDesired(desired, now)
	containers := slices.Clone(registration.GetContainers())
	slices.SortFunc(containers, byAge)
	for _, allocation := range containers {
		d.track(allocation)
		d.takeover.await(allocation.GetLease().GetNodeId())
		if !d.adopt(allocation, allocation.GetLabels()) {
			d.takeover.hold(allocation)
		}
	}
}

// Handle handles an event. After the error appmaster.ErrSuperseded the master must end without changing anything.
func (d *Master) Handle(event appmaster.Event, now time.Time) error {
	if d.takeover.underWay() {
		switch event := event.(type) {
		case appmaster.Connected:
			d.takeover.reported("")
		case appmaster.NodeSnapshot:
			d.takeover.reported(event.Node)
		case appmaster.NodeChanged:
			if event.State == apiv1.NodeState_LOST {
				d.takeover.reported(event.Node)
			}
		case appmaster.Allocated:
			d.takeover.hold(event.Allocation)
			d.track(event.Allocation)
			return nil
		}
	}
	return d.handle(event, now)
}

// awaitingReports reports whether reports of nodes are missing: an instance must not be counted as failed, nor started again, because
// its report is late.
func (d *Master) awaitingReports(now time.Time) bool {
	if !d.takeover.underWay() {
		return false
	}
	unclaimed, silent, over := d.takeover.end(now)
	if !over {
		return true
	}
	if silent > 0 {
		d.log.Warn("some nodes have not reported their containers", "nodes", silent)
	}
	for _, allocation := range unclaimed {
		if held := d.containers.at(allocation.GetLease().GetContainerId()); held != nil && held.role == nil && !held.gone {
			d.grant(allocation)
		}
	}
	return false
}

func (d *Master) handle(event appmaster.Event, now time.Time) error {
	switch event := event.(type) {
	case appmaster.Allocated:
		d.track(event.Allocation)
		d.grant(event.Allocation)
	case appmaster.Completed:
		d.ended(event.Status, now)
		d.containers.forget(event.Status.GetLease().GetContainerId())
	case appmaster.StatusChanged:
		d.observe(event.Status, now)
	case appmaster.NodeDisconnected:
		for r := range d.roles.each() {
			r.plan.SetConnected(id.Node(event.Node), false)
		}
	case appmaster.NodeSnapshot:
		for r := range d.roles.each() {
			r.plan.SetConnected(id.Node(event.Node), true)
		}
		for _, status := range event.Containers {
			if held := d.containers.at(status.GetLease().GetContainerId()); held != nil {
				held.restart()
			}
			d.observe(status, now)
		}
	case appmaster.NodeChanged:
		d.nodeChanged(event)
	case appmaster.Preemption:
		if held := d.containers.at(event.ContainerID); held != nil && held.role != nil {
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
		for r := range d.roles.each() {
			r.plan.Withdrawn(event.Instance, now)
		}
	case appmaster.Traffic:
		for r := range d.roles.each() {
			r.plan.AddTraffic(event.Instance, event.Requests, event.Errors, now)
		}
	case appmaster.WaitingChanged:
		for r := range d.roles.each() {
			r.plan.SetWaiting(waitReason(r.name, event.Waiting))
		}
	case appmaster.CommandReceived:
		d.commands = append(d.commands, event.Command)
	case appmaster.Superseded:
		d.log.Warn("another attempt has taken over", "reason", event.Reason)
		return appmaster.ErrSuperseded
	}
	return nil
}

func (d *Master) nodeChanged(event appmaster.NodeChanged) {
	states := map[apiv1.NodeState]plan.NodeState{
		apiv1.NodeState_READY: plan.NodeReady, apiv1.NodeState_UNHEALTHY: plan.NodeUnhealthy, apiv1.NodeState_LOST: plan.NodeLost,
		apiv1.NodeState_DRAINING: plan.NodeDraining, apiv1.NodeState_DRAINED: plan.NodeDraining,
	}
	state, ok := states[event.State]
	if !ok {
		return
	}
	d.roles.setNode(id.Node(event.Node), state)
	d.log.Info("a node has changed", "node", event.Node, "state", event.State.String(), "reason", event.Reason)
}

// track records a container of the app.
func (d *Master) track(allocation *masterv1.Allocation) {
	if err := d.containers.track(allocation); err != nil {
		d.log.Error("a container has an invalid id", "error", err)
	}
}

// setDesired sets the desired state.
func (d *Master) setDesired(desired *masterv1.DesiredState, now time.Time) {
	d.desired = desired
	for _, spec := range desired.GetSpec().GetRoles() {
		d.roles.named(spec.GetName())
	}
	for r := range d.roles.each() {
		r.setDesired(desired, now)
	}
}

// adopt takes over a container whose labels name its instance, and reports whether they do.
func (d *Master) adopt(allocation *masterv1.Allocation, labels map[string]string) bool {
	held := d.containers.at(allocation.GetLease().GetContainerId())
	if held == nil || labels[labelInstance] == "" {
		return false
	}
	r := d.roles.named(held.allocation.GetLease().GetRole())
	number := r.plan.Number(labels[labelInstance])
	if number == 0 {
		return false
	}
	held.assign(r)
	r.plan.Adopt(plan.Adopted{
		Container: held.id, Number: number, Version: r.equivalentVersion(d.desired, labelledVersion(labels)),
		Node: id.Node(allocation.GetLease().GetNodeId()), GrantedAt: allocation.GetLease().GetGrantedAt().AsTime(),
	})
	return true
}

// grant gives a container that was not started to the role that asked for it.
func (d *Master) grant(allocation *masterv1.Allocation) {
	lease := allocation.GetLease()
	held := d.containers.at(lease.GetContainerId())
	if held == nil {
		return
	}
	for r := range d.roles.each() {
		if !r.ownsAsk(lease.GetAskId()) {
			continue
		}
		held.assign(r)
		r.dropAsk(lease.GetAskId())
		r.plan.Granted(plan.Grant{
			Container: held.id, Node: id.Node(lease.GetNodeId()), Ask: lease.GetAskId(),
			Version: r.versionWithResources(d.desired, lease.GetResources()), At: lease.GetGrantedAt().AsTime(),
		})
		return
	}
	d.log.Warn("a container was granted for an unknown ask", "container", lease.GetContainerId())
	d.out.Release(lease.GetContainerId(), "it was granted for an unknown ask")
}

// observe hands a node's status to the plan, unless a newer one is known.
func (d *Master) observe(status *corev1.ContainerStatus, now time.Time) {
	held := d.containers.at(status.GetLease().GetContainerId())
	if held == nil || !held.observe(status) {
		return
	}
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

func (d *Master) ended(status *corev1.ContainerStatus, now time.Time) {
	if held := d.containers.at(status.GetLease().GetContainerId()); held != nil && held.role != nil {
		held.role.plan.Ended(held.id, exitOf(status.GetExit()), now)
	}
}

// StartEnded takes the answer to a start.
func (d *Master) StartEnded(name string, status *corev1.ContainerStatus, err error, now time.Time) {
	held := d.containers.at(name)
	if held == nil || held.role == nil {
		return
	}
	if err != nil {
		d.log.Warn("a start was not accepted", "container", name, "error", err)
		reason := "the node did not accept it: " + wire.Sentence(err)
		held.role.plan.StartFailed(held.id, reason, startError(err), now)
		return
	}
	if held.sequence == 0 {
		d.observe(status, now)
	}
}
