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

// lookAround is how long a new master waits for the nodes' word on what it took over before it judges.
const lookAround = 3 * time.Second

// Master is an app's master without its connections. It is told what has happened and what time it is, puts what the
// ResourceManager is to know into an outbox, and says what is to be started. It belongs to one goroutine, and waits for nothing.
type Master struct {
	log     *slog.Logger
	app     string
	attempt int32
	out     *appmaster.Outbox
	// registry is what instances are told as MAMMOTH_REGISTRY.
	registry string

	wanted *masterv1.Wanted
	roles  map[string]*role
	nodes  map[id.Node]plan.NodeState
	// held are the containers of the app that have not been seen gone.
	held map[string]*container
	// unclaimed were granted to an earlier master and are not known to have been started.
	unclaimed []*masterv1.Allocation
	// unheard are the nodes that have yet to say what they run of what was taken over, and the ResourceManager as "". Until all have
	// spoken, or lookUntil, nothing is judged.
	unheard   map[string]bool
	lookUntil time.Time
	// starts are those that were decided since they were last taken.
	starts []Start

	reported map[string]*masterv1.InstanceReport
	rollout  *masterv1.RolloutReport
	memo     []byte
	observed int64
}

// Start is a container to be started. Its answer is StartEnded.
type Start struct {
	Allocation *masterv1.Allocation
	Spec       *corev1.ContainerSpec
}

type container struct {
	allocation *masterv1.Allocation
	id         id.Container
	role       *role
	// sequence is that of the newest status.
	sequence int64
	// over: it was seen gone, and its lease has not ended yet.
	over bool
}

// NewMaster makes the master of an app that has yet to register.
func NewMaster(config appmaster.Config, out *appmaster.Outbox, log *slog.Logger) *Master {
	return &Master{
		log: log, app: config.App, attempt: config.Attempt, out: out,
		roles: map[string]*role{}, nodes: map[id.Node]plan.NodeState{}, held: map[string]*container{},
		reported: map[string]*masterv1.InstanceReport{},
	}
}

// Finished reports whether the app is to be removed, and no instance is left.
func (d *Master) Finished() bool { return d.unheard == nil && d.wanted.GetRemoving() && d.idle() }

// TakeOver starts from what the attempt before left.
func (d *Master) TakeOver(registration *masterv1.RegisterResponse, now time.Time) {
	d.registry = registration.GetRegistry()
	d.unheard, d.lookUntil = map[string]bool{"": true}, now.Add(lookAround)
	wanted := registration.GetWanted()
	if wanted.GetSpec() == nil && registration.GetSpec() != nil {
		wanted = proto.CloneOf(wanted)
		wanted.Spec = registration.GetSpec()
	}
	memo := d.readMemo(registration.GetMemo())
	for name := range memo {
		d.role(name)
	}
	for _, allocation := range registration.GetContainers() {
		if instance := allocation.GetLabels()[labelInstance]; instance != "" {
			d.role(allocation.GetLabels()[labelRole])
		}
	}
	d.want(wanted, now)
	for _, name := range slices.Sorted(maps.Keys(memo)) {
		r := d.role(name)
		r.plan.Restore(memo[name].plan)
	}
	d.want(wanted, now)
	containers := slices.Clone(registration.GetContainers())
	slices.SortFunc(containers, byAge)
	for _, allocation := range containers {
		d.hold(allocation)
		d.unheard[allocation.GetLease().GetNodeId()] = true
		if !d.adopt(allocation, allocation.GetLabels()) {
			d.unclaimed = append(d.unclaimed, allocation)
		}
	}
}

// Hear takes an event. It fails with appmaster.ErrSuperseded, and the master must then end without touching anything.
func (d *Master) Hear(event appmaster.Event, now time.Time) error {
	if d.unheard != nil {
		switch event := event.(type) {
		case appmaster.Connected:
			delete(d.unheard, "")
		case appmaster.NodeSnapshot:
			delete(d.unheard, event.Node)
		case appmaster.NodeChanged:
			if event.State == apiv1.NodeState_LOST {
				delete(d.unheard, event.Node)
			}
		case appmaster.Allocated:
			d.unclaimed = append(d.unclaimed, event.Allocation)
			d.hold(event.Allocation)
			return nil
		}
	}
	return d.handle(event, now)
}

// looking reports whether the word of nodes is still waited for: an instance must not be judged, nor a start repeated, for lack of
// news.
func (d *Master) looking(now time.Time) bool {
	if d.unheard == nil {
		return false
	}
	if len(d.unheard) > 0 && now.Before(d.lookUntil) {
		return true
	}
	if len(d.unheard) > 0 {
		d.log.Warn("not every node has told what it runs", "nodes", len(d.unheard))
	}
	d.unheard = nil
	for _, allocation := range d.unclaimed {
		if held, ok := d.held[allocation.GetLease().GetContainerId()]; ok && held.role == nil && !held.over {
			d.grant(allocation)
		}
	}
	d.unclaimed = nil
	return false
}

func (d *Master) handle(event appmaster.Event, now time.Time) error {
	switch event := event.(type) {
	case appmaster.Allocated:
		d.hold(event.Allocation)
		d.grant(event.Allocation)
	case appmaster.Completed:
		d.ended(event.Status, now)
		delete(d.held, event.Status.GetLease().GetContainerId())
	case appmaster.StatusChanged:
		d.observe(event.Status, now)
	case appmaster.NodeUnseen:
		for _, r := range d.roles {
			r.plan.SetSeen(id.Node(event.Node), false)
		}
	case appmaster.NodeSnapshot:
		for _, r := range d.roles {
			r.plan.SetSeen(id.Node(event.Node), true)
		}
		for _, status := range event.Containers {
			if held, ok := d.held[status.GetLease().GetContainerId()]; ok {
				held.sequence = 0
			}
			d.observe(status, now)
		}
	case appmaster.NodeChanged:
		d.nodeChanged(event)
	case appmaster.Preempted:
		if held, ok := d.held[event.ContainerID]; ok && held.role != nil {
			if event.Deadline.IsZero() {
				d.log.Info("a container may stay after all", "container", event.ContainerID)
			} else {
				d.log.Info("a container will be taken away", "container", event.ContainerID, "deadline", event.Deadline, "reason", event.Reason)
			}
			held.role.plan.Preempted(held.id, event.Deadline)
		}
	case appmaster.WantedChanged:
		d.want(event.Wanted, now)
	case appmaster.Withdrawn:
		for _, r := range d.roles {
			r.plan.Withdrawn(event.Instance, now)
		}
	case appmaster.Traffic:
		for _, r := range d.roles {
			r.plan.Counted(event.Instance, event.Requests, event.Errors, now)
		}
	case appmaster.Waits:
		for _, r := range d.roles {
			r.plan.Waits(waitsOf(r.name, event.Waiting))
		}
	case appmaster.Superseded:
		d.log.Warn("another attempt has taken over", "reason", event.Reason)
		return appmaster.ErrSuperseded
	}
	return nil
}

func (d *Master) nodeChanged(event appmaster.NodeChanged) {
	states := map[apiv1.NodeState]plan.NodeState{
		apiv1.NodeState_READY: plan.Ready, apiv1.NodeState_UNHEALTHY: plan.Unwell, apiv1.NodeState_LOST: plan.Lost,
		apiv1.NodeState_DRAINING: plan.Draining, apiv1.NodeState_DRAINED: plan.Draining,
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
func (d *Master) hold(allocation *masterv1.Allocation) {
	name := allocation.GetLease().GetContainerId()
	parsed, err := id.ParseContainer(name)
	if err != nil {
		d.log.Error("a container has no proper id", "container", name, "error", err)
		return
	}
	d.held[name] = &container{allocation: allocation, id: parsed}
}

// adopt takes over a container whose labels say what it runs, and reports whether they do.
func (d *Master) adopt(allocation *masterv1.Allocation, labels map[string]string) bool {
	held, ok := d.held[allocation.GetLease().GetContainerId()]
	if !ok || labels[labelInstance] == "" {
		return false
	}
	r := d.role(labels[labelRole])
	number := r.plan.Number(labels[labelInstance])
	if number == 0 {
		return false
	}
	held.role = r
	r.plan.Adopt(plan.Adopted{
		Container: held.id, Number: number, Version: r.sameAsWanted(d.wanted, labelledVersion(labels)),
		Node: id.Node(allocation.GetLease().GetNodeId()), GrantedAt: allocation.GetLease().GetGrantedAt().AsTime(),
	})
	return true
}

// grant gives a container that nobody has started to the role that asked for it.
func (d *Master) grant(allocation *masterv1.Allocation) {
	lease := allocation.GetLease()
	held, ok := d.held[lease.GetContainerId()]
	if !ok {
		return
	}
	for _, r := range d.roles {
		if !r.asked(lease.GetAskId()) {
			continue
		}
		held.role = r
		r.plan.Granted(plan.Grant{
			Container: held.id, Node: id.Node(lease.GetNodeId()), Ask: lease.GetAskId(),
			Version: r.versionFitting(d.wanted, lease.GetResources()), At: lease.GetGrantedAt().AsTime(),
		})
		return
	}
	d.log.Warn("a container answers no ask of this app", "container", lease.GetContainerId())
	d.out.Release(lease.GetContainerId())
}

// observe takes a node's word, unless it is older than what is known.
func (d *Master) observe(status *corev1.ContainerStatus, now time.Time) {
	held, ok := d.held[status.GetLease().GetContainerId()]
	if !ok || status.GetSequence() < held.sequence {
		return
	}
	held.sequence = status.GetSequence()
	held.over = status.GetState() == corev1.ContainerStatus_DONE
	if held.role == nil && held.over {
		return
	}
	if held.role == nil && !d.adopt(held.allocation, status.GetLabels()) {
		return
	}
	if held.over {
		d.ended(status, now)
		return
	}
	held.role.plan.Observe(seen(held.id, status), now)
}

func (d *Master) ended(status *corev1.ContainerStatus, now time.Time) {
	if held, ok := d.held[status.GetLease().GetContainerId()]; ok && held.role != nil {
		held.role.plan.Ended(held.id, exit(status.GetExit()), now)
	}
}

// idle reports whether no role has an instance.
func (d *Master) idle() bool {
	for _, r := range d.roles {
		if !r.plan.Empty() {
			return false
		}
	}
	return true
}

// StartEnded takes the answer to a start.
func (d *Master) StartEnded(name string, status *corev1.ContainerStatus, err error, now time.Time) {
	held, ok := d.held[name]
	if !ok || held.role == nil {
		return
	}
	if err != nil {
		d.log.Warn("a start was not accepted", "container", name, "error", err)
		reason := "the node did not accept it: " + wire.Sentence(err)
		held.role.plan.StartFailed(held.id, reason, refusal(err), now)
		return
	}
	if held.sequence == 0 {
		d.observe(status, now)
	}
}
