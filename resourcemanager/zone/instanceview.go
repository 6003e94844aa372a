package zone

import (
	"maps"
	"strconv"
	"time"

	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// instances are what the master reports; of an app that is to end, what is left: its master may be gone, and have given
// up what a lost node still holds.
func (vs *views) instances(a *app) []*apiv1.Instance {
	var views []*apiv1.Instance
	told := map[string]bool{}
	for _, name := range a.instanceNames() {
		view := vs.cachedInstance(a, a.instances[name])
		waits := view.GetContainerId() == "" && a.attemptState() == lifecycle.AttemptRegistered
		if a.ending() && !waits && !a.isHeld(view.GetContainerId()) {
			continue
		}
		told[view.GetContainerId()] = true
		views = append(views, view)
	}
	if len(a.view.instances) > len(a.instances) {
		maps.DeleteFunc(a.view.instances, func(name string, _ instanceView) bool { return a.instances[name] == nil })
	}
	if !a.ending() {
		return views
	}
	for _, c := range sortedContainers(a.containers) {
		if c.held() && !c.record.GetLease().GetMaster() && !told[c.id.String()] {
			version, _ := strconv.Atoi(c.record.GetStatus().GetLabels()["version"])
			views = append(views, vs.instance(a, &storev1.Instance{Report: &masterv1.InstanceReport{
				Id: c.name(), ContainerId: c.id.String(), Role: c.role(), Version: int32(version), State: apiv1.Instance_STOPPING,
			}}))
		}
	}
	return views
}

// cachedInstance makes an instance's part of a view, unless the last one still holds.
func (vs *views) cachedInstance(a *app, instance *storev1.Instance) *apiv1.Instance {
	facts := instanceFacts{report: instance.GetReport(), ending: a.ending()}
	cid, err := id.ParseContainer(facts.report.GetContainerId())
	if c := a.containers[cid]; err == nil && c != nil {
		facts.status, facts.node = c.record.GetStatus(), c.node
		if n := vs.nodes.get(c.node); n != nil {
			facts.state, facts.address = n.state(), n.record.GetAddress()
		}
		if facts.report.GetState() == apiv1.Instance_STARTING {
			facts.counted = vs.countsByNode(a, c)
		}
	} else {
		facts.waits = a.waitOf(facts.report.GetRole())
	}
	name := facts.report.GetId()
	last, ok := a.view.instances[name]
	if ok && last.facts == facts {
		return last.view
	}
	if a.view.instances == nil {
		a.view.instances = map[string]instanceView{}
	}
	a.view.instances[name] = instanceView{facts, vs.instance(a, instance)}
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
	cid, err := id.ParseContainer(report.GetContainerId())
	c := a.containers[cid]
	if err != nil || c == nil {
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
	view.State, view.Reason = vs.seenState(a, c, report.GetState(), report.GetReason())
	return view
}

// seenState corrects what the master last said by what the node has said since: a master that is away cannot.
func (vs *views) seenState(a *app, c *container, state apiv1.Instance_State, reason string) (apiv1.Instance_State, string) {
	n := vs.nodes.get(c.node)
	if a.ending() && n != nil && n.state() == lifecycle.NodeLost {
		return apiv1.Instance_UNREACHABLE, "it was not seen gone"
	}
	status := c.record.GetStatus()
	if state == apiv1.Instance_STARTING && vs.countsByNode(a, c) {
		state, reason = apiv1.Instance_RUNNING, ""
	}
	if state != apiv1.Instance_RUNNING {
		return state, reason
	}
	switch {
	case c.state() == lifecycle.ContainerDone:
		return apiv1.Instance_PENDING, "it ended: " + exitSentence(status.GetExit())
	case n == nil || n.state() == lifecycle.NodeLost:
		return apiv1.Instance_UNREACHABLE, "its node does not answer"
	case status.GetHealth() == corev1.ContainerStatus_UNHEALTHY:
		return apiv1.Instance_UNHEALTHY, status.GetHealthDetail()
	}
	return state, reason
}

// countsByNode reports whether a node has told that a container has been healthy for so long that it counts, and its master, which
// may not see the node, has had time to say so. If it will be, the app is shown anew then.
func (vs *views) countsByNode(a *app, c *container) bool {
	status := c.record.GetStatus()
	if c.state() != lifecycle.ContainerRunning || status.GetHealthySince() == nil {
		return false
	}
	minHealthy := defaults.MinHealthy
	for _, role := range a.record.GetSpec().GetRoles() {
		if given := role.GetUpdate().GetMinHealthy(); role.GetName() == c.role() && given != nil {
			minHealthy = given.AsDuration()
		}
	}
	at := status.GetHealthySince().AsTime().Add(minHealthy + reportedWithin)
	if vs.now.Before(at) {
		if a.view.countsAt.IsZero() || at.Before(a.view.countsAt) {
			a.view.countsAt = at
		}
		return false
	}
	return true
}

// mastersWord is how long the word of a master is waited for that a node has given already.
const reportedWithin = 2 * time.Second

// instanceView is one instance's part of a view, which many views share.
type instanceView struct {
	facts instanceFacts
	view  *apiv1.Instance
}

// instanceFacts are all that an instance's part of a view is made of. Reports and statuses are replaced, never altered.
type instanceFacts struct {
	report  *masterv1.InstanceReport
	status  *corev1.ContainerStatus
	node    id.Node
	state   lifecycle.NodeState
	address string
	ending  bool
	// waits is what it waits for while it has no container.
	waits string
	// proven: its node has known for long enough that it is healthy.
	counted bool
}
