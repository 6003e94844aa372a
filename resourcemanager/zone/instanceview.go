package zone

import (
	"maps"
	"strconv"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/sentence"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// instances are those that the master reports. Of an app that is to end they are those that are left: its master may be gone, and have
// forgotten what a lost node still holds.
func (vs *views) instances(a *app) []*apiv1.Instance {
	var views []*apiv1.Instance
	listed := map[string]bool{}
	for _, name := range a.instanceNames() {
		view := vs.cachedInstance(a, a.instances[name])
		waits := view.GetContainerId() == "" && a.attemptState() == lifecycle.AttemptRegistered
		if a.ending() && !waits && !a.isHeld(view.GetContainerId()) {
			continue
		}
		listed[view.GetContainerId()] = true
		views = append(views, view)
	}
	if len(a.view.instances) > len(a.instances) {
		maps.DeleteFunc(a.view.instances, func(name string, _ instanceView) bool { return a.instances[name] == nil })
	}
	if !a.ending() {
		return views
	}
	for _, c := range sortedContainers(a.containers) {
		if c.held() && !c.record.GetLease().GetMaster() && !listed[c.id.String()] {
			version, _ := strconv.Atoi(c.record.GetStatus().GetLabels()["version"])
			views = append(views, vs.instance(a, &storev1.Instance{Report: &masterv1.InstanceReport{
				Id: c.name(), ContainerId: c.id.String(), Role: c.role(), Version: int32(version), State: apiv1.Instance_STOPPING,
			}}))
		}
	}
	return views
}

// cachedInstance is the view of an instance; it is made anew only if the facts have changed.
func (vs *views) cachedInstance(a *app, instance *storev1.Instance) *apiv1.Instance {
	facts := instanceFacts{report: instance.GetReport(), ending: a.ending()}
	name := facts.report.GetId()
	last, ok := a.view.instances[name]
	c := last.container
	if !ok || c == nil || a.containers[c.id] != c || last.facts.report.GetContainerId() != facts.report.GetContainerId() {
		c = a.container(facts.report.GetContainerId())
	}
	if c != nil {
		facts.status, facts.node = c.record.GetStatus(), c.node
		if n := vs.nodes.get(c.node); n != nil {
			facts.state, facts.address = n.state(), n.record.GetAddress()
		}
		if facts.report.GetState() == apiv1.Instance_STARTING {
			facts.counted = vs.countsByNode(a, c, facts.report)
		}
	} else {
		facts.waits = a.waitOf(facts.report.GetRole())
	}
	if ok && last.facts == facts {
		return last.view
	}
	if a.view.instances == nil {
		a.view.instances = map[string]instanceView{}
	}
	a.view.instances[name] = instanceView{facts, vs.instance(a, instance), c}
	return a.view.instances[name].view
}

func (vs *views) instance(a *app, instance *storev1.Instance) *apiv1.Instance {
	report := instance.GetReport()
	view := &apiv1.Instance{
		Id:            report.GetId(),
		ContainerId:   report.GetContainerId(),
		Role:          report.GetRole(),
		State:         report.GetState(),
		Version:       report.GetVersion(),
		Restarts:      report.GetRestarts(),
		Reason:        report.GetReason(),
		NextAttemptAt: report.GetNextAttemptAt(),
		Failures:      report.GetFailures(),
	}
	c := a.container(report.GetContainerId())
	if c == nil {
		if view.GetState() == apiv1.Instance_PENDING && view.GetReason() == "" {
			view.Reason = a.waitOf(view.GetRole())
		}
		return view
	}
	status := c.record.GetStatus()
	view.Node = string(c.node)
	view.Phases = status.GetPhases()
	view.StartedAt = status.GetStartedAt()
	view.RuntimeId = status.GetRuntimeId()
	view.Ports = status.GetPorts()
	n := vs.nodes.get(c.node)
	view.Address = n.addressFor(status)
	if len(status.GetPorts()) > 0 {
		view.Port = status.GetPorts()[0].GetHostPort()
	}
	view.State, view.Reason = vs.seenState(a, c, report)
	return view
}

// seenState is the state of an instance by the master's last report and by what the node has reported since: a master may be away.
func (vs *views) seenState(a *app, c *container, report *masterv1.InstanceReport) (apiv1.Instance_State, string) {
	state, reason := report.GetState(), report.GetReason()
	n := vs.nodes.get(c.node)
	if a.ending() && n != nil && n.state() == lifecycle.NodeLost {
		return apiv1.Instance_UNREACHABLE, "it was not seen gone"
	}
	status := c.record.GetStatus()
	if state == apiv1.Instance_STARTING && vs.countsByNode(a, c, report) {
		state, reason = apiv1.Instance_RUNNING, ""
	}
	if state != apiv1.Instance_RUNNING {
		return state, reason
	}
	switch {
	case c.state() == lifecycle.ContainerDone:
		return apiv1.Instance_PENDING, "it ended: " + sentence.Exit(status.GetExit())
	case n == nil || n.state() == lifecycle.NodeLost:
		return apiv1.Instance_UNREACHABLE, "its node does not answer"
	case status.GetHealth() == corev1.ContainerStatus_UNHEALTHY:
		return apiv1.Instance_UNHEALTHY, status.GetHealthDetail()
	}
	return state, reason
}

// countsByNode reports whether a container has been healthy, by its node's report, for as long as its master asks for, and so much longer
// that the master, which may not see the node, had time to report it. If it will be, the view becomes overdue then.
func (vs *views) countsByNode(a *app, c *container, report *masterv1.InstanceReport) bool {
	status := c.record.GetStatus()
	if c.state() != lifecycle.ContainerRunning || status.GetHealthySince() == nil || report.GetCountsAfter() == nil {
		return false
	}
	at := status.GetHealthySince().AsTime().Add(report.GetCountsAfter().AsDuration() + masterReportsWithin)
	if vs.now.Before(at) {
		if a.view.countsAt.IsZero() || at.Before(a.view.countsAt) {
			a.view.countsAt = at
		}
		return false
	}
	return true
}

// masterReportsWithin is how long a master has to report what a node has reported already.
const masterReportsWithin = 2 * time.Second

// instanceView is the view of one instance, which many views of the app share.
type instanceView struct {
	facts instanceFacts
	view  *apiv1.Instance
	// container is the one that the instance runs in, so that its id need not be read again; nil if it has none.
	container *container
}

// instanceFacts are all that the view of an instance is made of. Reports and statuses are replaced, never altered.
type instanceFacts struct {
	report  *masterv1.InstanceReport
	status  *corev1.ContainerStatus
	node    id.Node
	state   lifecycle.NodeState
	address string
	ending  bool
	// waits is why it waits while it has no container.
	waits string
	// counted: it counts by what its node reports.
	counted bool
}
