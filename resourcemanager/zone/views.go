package zone

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// viewApp is the app as people see it. It must not be changed.
func (z *Core) viewApp(a *app) *apiv1.App { return z.show(a) }

// makeView shares its instances with other views of the app, and nothing with the loop.
func (z *Core) makeView(a *app) *apiv1.App {
	r := a.record
	view := &apiv1.App{
		Name:               r.GetName(),
		Id:                 r.GetId(),
		State:              r.GetState(),
		Queue:              r.GetSpec().GetQueue(),
		User:               r.GetUser(),
		Version:            r.GetVersion(),
		Reason:             r.GetReason(),
		CreatedAt:          r.GetCreatedAt(),
		Spec:               r.GetSpec(),
		Generation:         r.GetGeneration(),
		ObservedGeneration: r.GetObservedGeneration(),
		Rollout:            a.presentRollout(),
	}
	if !a.ending() {
		view.Wanted, view.Schedules = z.desired.count(a), z.desired.counts(a)
	}
	if r.GetRollout().GetVersion() != r.GetVersion() {
		view.Rollout.Total = view.Wanted
	}
	a.shown.provenAt = time.Time{}
	instances := z.viewInstances(a)
	if awaited := z.awaited(a); awaited != "" {
		view.Reason = awaited
	}
	for _, instance := range instances {
		if instance.GetState() == apiv1.Instance_RUNNING {
			view.Running++
		}
	}
	view.Waiting = a.shownWaiting(view, len(instances))
	if attempt := r.GetAttempt(); attempt.GetNumber() > 0 {
		view.Master = &apiv1.Master{
			Attempt: attempt.GetNumber(), State: attempt.GetState(), ContainerId: attempt.GetContainerId(),
			Node: z.leases.nodeOf(a, attempt.GetContainerId()), RegisteredAt: attempt.GetRegisteredAt(),
		}
	}
	view = proto.CloneOf(view)
	view.Instances = instances
	return view
}

// shownWaiting is what the app waits for. What its instances wait for is left out as soon as all of them are there, which is
// seen before the next look at it.
func (a *app) shownWaiting(view *apiv1.App, instances int) []*apiv1.Waiting {
	rollout := view.GetRollout().GetState()
	if view.GetState() != apiv1.App_RUNNING || view.GetRunning() != view.GetWanted() || instances != int(view.GetWanted()) ||
		rollout == apiv1.Rollout_PROGRESSING {
		return a.wait.shown
	}
	return slices.DeleteFunc(slices.Clone(a.wait.shown), func(w *apiv1.Waiting) bool { return w.GetInstances() > 0 })
}

// viewInstances are what the master reports; of an app that is to end, what is left: its master may be gone, and have given
// up what a lost node still holds.
func (z *Core) viewInstances(a *app) []*apiv1.Instance {
	var views []*apiv1.Instance
	told := map[string]bool{}
	for _, name := range a.instanceNames() {
		view := z.showInstance(a, a.instances[name])
		waits := view.GetContainerId() == "" && a.attemptState() == lifecycle.AttemptRegistered
		if a.ending() && !waits && !a.holds(view.GetContainerId()) {
			continue
		}
		told[view.GetContainerId()] = true
		views = append(views, view)
	}
	if !a.ending() {
		return views
	}
	for _, c := range sortedContainers(a.containers) {
		if c.held() && !c.record.GetLease().GetMaster() && !told[c.id.String()] {
			version, _ := strconv.Atoi(c.record.GetStatus().GetLabels()["version"])
			views = append(views, z.viewInstance(a, &storev1.Instance{Report: &masterv1.InstanceReport{
				Id: c.name(), ContainerId: c.id.String(), Role: c.role(), Version: int32(version), State: apiv1.Instance_STOPPING,
			}}))
		}
	}
	return views
}

// holds reports whether a container was not seen gone yet.
func (a *app) holds(container string) bool {
	cid, err := id.ParseContainer(container)
	c := a.containers[cid]
	return err == nil && c != nil && c.held()
}

// awaited names the lost nodes for which an app cannot end, empty if there are none.
func (z *Core) awaited(a *app) string {
	if !a.ending() || a.state() == lifecycle.AppStopped {
		return ""
	}
	var waits []string
	for _, n := range z.nodes.sorted() {
		if n.state() != lifecycle.NodeLost {
			continue
		}
		count := 0
		for _, c := range n.containers {
			if c.app == a {
				count++
			}
		}
		if count > 0 {
			waits = append(waits, fmt.Sprintf("it waits for %s, which is lost and holds %d of its containers; if it is gone for good, \"mammoth node rm %s\" says so", n.id, count, n.id))
		}
	}
	return strings.Join(waits, "; ")
}

func (z *Core) viewInstance(a *app, instance *storev1.Instance) *apiv1.Instance {
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
			view.Reason = a.wait.byRole[view.GetRole()]
		}
		return view
	}
	status := c.record.GetStatus()
	view.Node = string(c.node)
	view.Phases = status.GetPhases()
	view.StartedAt = status.GetStartedAt()
	view.RuntimeId = status.GetRuntimeId()
	view.Ports = status.GetPorts()
	n := z.nodes.get(c.node)
	view.Address = n.addressFor(status)
	if len(status.GetPorts()) > 0 {
		view.Port = status.GetPorts()[0].GetHostPort()
	}
	view.State, view.Reason = z.seenState(a, c, report.GetState(), report.GetReason())
	return view
}

// seenState corrects what the master last said by what the node has said since: a master that is away cannot.
func (z *Core) seenState(a *app, c *container, state apiv1.Instance_State, reason string) (apiv1.Instance_State, string) {
	n := z.nodes.get(c.node)
	if a.ending() && n != nil && n.state() == lifecycle.NodeLost {
		return apiv1.Instance_UNREACHABLE, "it was not seen gone"
	}
	status := c.record.GetStatus()
	if state == apiv1.Instance_STARTING && z.proven(a, c) {
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

// mastersWord is how long the word of a master is waited for that a node has given already.
const mastersWord = 2 * time.Second

// proven reports whether a node has told that a container has been healthy for so long that it counts, and its master, which
// may not see the node, has had time to say so. If it will be, the app is shown anew then.
func (z *Core) proven(a *app, c *container) bool {
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
	at := status.GetHealthySince().AsTime().Add(minHealthy + mastersWord)
	if z.now.Before(at) {
		if a.shown.provenAt.IsZero() || at.Before(a.shown.provenAt) {
			a.shown.provenAt = at
		}
		return false
	}
	return true
}

func (z *Core) viewZone() *apiv1.Zone {
	view := &apiv1.Zone{
		Name:        z.config.Name,
		Epoch:       z.config.identity.Epoch,
		Version:     z.config.Version,
		StartedAt:   timestamppb.New(z.config.started),
		Nodes:       int32(z.nodes.count()),
		Apps:        int32(z.apps.count()),
		NodeTimeout: durationpb.New(z.config.NodeTimeout),
	}
	var capacity, used resource.Vector
	for _, n := range z.nodes.sorted() {
		view.Containers += int32(len(n.containers))
		used = used.Add(z.scheduler.Used(n.id))
		if n.state().Answers() {
			if v, err := z.units.vector(n.record.GetCapacity()); err == nil {
				capacity = capacity.Add(v)
			}
		}
	}
	view.Capacity, view.Used = z.units.resources(capacity), z.units.resources(used)
	view.Full = z.damage.full
	view.Losses = z.damage.sentences()
	return view
}
