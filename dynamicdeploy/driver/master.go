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
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// reportTimeout is how long a new master waits for the nodes to report the containers that it took over.
const reportTimeout = 3 * time.Second

// Master is an app's master without its connections. It receives events with the time, puts what is to be sent to the
// ResourceManager into an outbox, and returns what is to be started. It belongs to one goroutine and does not wait.
type Master struct {
	log     *slog.Logger
	app     string
	attempt int32
	out     *appmaster.Outbox
	// registry is the MAMMOTH_REGISTRY variable of instances.
	registry string

	// desired is the newest desired state of the app.
	desired *masterv1.Wanted
	roles   map[string]*role
	nodes   map[id.Node]plan.NodeState
	// containers are the app's containers that have not been seen gone.
	containers map[string]*container
	// unclaimed are containers that were granted to an earlier master and that it may not have started.
	unclaimed []*masterv1.Allocation
	// missing are the nodes whose first report of the taken-over containers has not come; "" stands for the ResourceManager's.
	// Nothing is decided until all have come or reportDeadline has passed. Then it is nil.
	missing        map[string]bool
	reportDeadline time.Time
	// commands were received and are not carried out yet.
	commands []*masterv1.Command
	// previews are those that wait for the ResourceManager's answer, by the ids of their commands. questions are those that the
	// driver has not sent to it yet.
	previews  map[string]*preview
	questions []Preview
	control   control
	// starts are the starts that were decided since Starts was last called.
	starts []Start

	// wantsTraffic is true if Traffic events were requested.
	wantsTraffic bool
	// reported, reportedStatus, noted, memo and reportedGeneration are what was last sent, so that only changes are sent.
	reported map[string]*masterv1.InstanceReport
	// rollout is the app's rollout as of the last Decide.
	rollout            *dynamicdeployv1.Rollout
	reportedStatus     *apiv1.MasterStatus
	noted              *masterv1.VersionNote
	memo               []byte
	reportedGeneration int64
}

// Start is a container to be started. Its answer is StartEnded.
type Start struct {
	Allocation *masterv1.Allocation
	Spec       *corev1.ContainerSpec
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

// NewMaster returns a master that has not registered yet.
func NewMaster(config appmaster.Config, out *appmaster.Outbox, log *slog.Logger) *Master {
	return &Master{
		log: log, app: config.App, attempt: config.Attempt, out: out,
		roles: map[string]*role{}, nodes: map[id.Node]plan.NodeState{}, containers: map[string]*container{},
		reported: map[string]*masterv1.InstanceReport{}, previews: map[string]*preview{},
	}
}

// Finished reports whether the app is to be removed, and no instance is left.
func (d *Master) Finished() bool {
	return d.missing == nil && d.desired.GetRemoving() && d.noInstances()
}

// TakeOver continues from what the attempt before left.
func (d *Master) TakeOver(registration *masterv1.RegisterResponse, now time.Time) {
	d.registry = registration.GetRegistry()
	d.missing, d.reportDeadline = map[string]bool{"": true}, now.Add(reportTimeout)
	desired := registration.GetWanted()
	if desired.GetSpec() == nil && registration.GetSpec() != nil {
		desired = proto.CloneOf(desired)
		desired.Spec = registration.GetSpec()
	}
	memo, set := d.readMemo(registration.GetMemo())
	d.control = set
	for name := range memo {
		d.roleNamed(name)
	}
	for _, allocation := range registration.GetContainers() {
		if instance := allocation.GetLabels()[labelInstance]; instance != "" {
			d.roleNamed(allocation.GetLease().GetRole())
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
		d.missing[allocation.GetLease().GetNodeId()] = true
		if !d.adopt(allocation, allocation.GetLabels()) {
			d.unclaimed = append(d.unclaimed, allocation)
		}
	}
}

// Handle handles an event. After the error appmaster.ErrSuperseded the master must end without changing anything.
func (d *Master) Handle(event appmaster.Event, now time.Time) error {
	if d.missing != nil {
		switch event := event.(type) {
		case appmaster.Connected:
			delete(d.missing, "")
		case appmaster.NodeSnapshot:
			delete(d.missing, event.Node)
		case appmaster.NodeChanged:
			if event.State == apiv1.NodeState_LOST {
				delete(d.missing, event.Node)
			}
		case appmaster.Allocated:
			d.unclaimed = append(d.unclaimed, event.Allocation)
			d.track(event.Allocation)
			return nil
		}
	}
	return d.handle(event, now)
}

// awaitingReports reports whether reports of nodes are missing: an instance must not be counted as failed, nor started again, because
// its report is late.
func (d *Master) awaitingReports(now time.Time) bool {
	if d.missing == nil {
		return false
	}
	if len(d.missing) > 0 && now.Before(d.reportDeadline) {
		return true
	}
	if len(d.missing) > 0 {
		d.log.Warn("some nodes have not reported their containers", "nodes", len(d.missing))
	}
	d.missing = nil
	for _, allocation := range d.unclaimed {
		if held, ok := d.containers[allocation.GetLease().GetContainerId()]; ok && held.role == nil && !held.gone {
			d.grant(allocation)
		}
	}
	d.unclaimed = nil
	return false
}

func (d *Master) handle(event appmaster.Event, now time.Time) error {
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
	d.nodes[id.Node(event.Node)] = state
	for _, r := range d.roles {
		r.plan.SetNode(id.Node(event.Node), state)
	}
	d.log.Info("a node has changed", "node", event.Node, "state", event.State.String(), "reason", event.Reason)
}

// track records a container of the app.
func (d *Master) track(allocation *masterv1.Allocation) {
	name := allocation.GetLease().GetContainerId()
	parsed, err := id.ParseContainer(name)
	if err != nil {
		d.log.Error("a container has an invalid id", "container", name, "error", err)
		return
	}
	d.containers[name] = &container{allocation: allocation, id: parsed}
}

// adopt takes over a container whose labels name its instance, and reports whether they do.
func (d *Master) adopt(allocation *masterv1.Allocation, labels map[string]string) bool {
	held, ok := d.containers[allocation.GetLease().GetContainerId()]
	if !ok || labels[labelInstance] == "" {
		return false
	}
	r := d.roleNamed(held.allocation.GetLease().GetRole())
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
func (d *Master) grant(allocation *masterv1.Allocation) {
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
		delete(r.asks, lease.GetAskId())
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

func (d *Master) ended(status *corev1.ContainerStatus, now time.Time) {
	if held, ok := d.containers[status.GetLease().GetContainerId()]; ok && held.role != nil {
		held.role.plan.Ended(held.id, exitOf(status.GetExit()), now)
	}
}

// noInstances reports whether no role has an instance.
func (d *Master) noInstances() bool {
	for _, r := range d.roles {
		if !r.plan.Empty() {
			return false
		}
	}
	return true
}

// StartEnded takes the answer to a start.
func (d *Master) StartEnded(name string, status *corev1.ContainerStatus, err error, now time.Time) {
	held, ok := d.containers[name]
	if !ok || held.role == nil {
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
