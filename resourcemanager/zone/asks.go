package zone

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// readAsk is a master's ask in the scheduler's words.
type readAsk struct {
	message *masterv1.Ask
	ask     scheduler.Ask
}

// readAsks reads all asks before any of them counts.
func (z *Core) readAsks(a *app, messages []*masterv1.Ask) ([]readAsk, error) {
	asks := make([]readAsk, 0, len(messages))
	for _, message := range messages {
		ask, err := z.readAsk(message)
		if err != nil {
			return nil, fmt.Errorf("ask %q of %s: %w", message.GetId(), a.record.GetName(), err)
		}
		asks = append(asks, readAsk{message, ask})
	}
	return asks, nil
}

func (z *Core) readAsk(message *masterv1.Ask) (scheduler.Ask, error) {
	switch {
	case message.GetId() == "":
		return scheduler.Ask{}, fmt.Errorf("an ask needs an id: %w", errdefs.ErrInvalidArgument)
	case message.GetCount() < 0:
		return scheduler.Ask{}, fmt.Errorf("the count must not be negative, but is %d: %w", message.GetCount(), errdefs.ErrInvalidArgument)
	}
	ask, err := z.scheduler.shape(message.GetResources(), message.GetPlacement())
	if err != nil {
		return ask, err
	}
	ask.ID, ask.Priority = message.GetId(), message.GetPriority()
	ask.Group, ask.Gang = message.GetGroup(), message.GetGang()
	ask.Duration = message.GetDuration().AsDuration()
	ask.Service, ask.Replaces = message.GetService(), message.GetReplaces()
	for _, name := range message.GetAvoidNodes() {
		ask.Avoid = append(ask.Avoid, id.Node(name))
	}
	return ask, nil
}

// setAsk makes a master's ask the whole truth under its id.
func (z *Core) setAsk(a *app, ask readAsk) error {
	name := ask.ask.ID
	known := a.asks[name]
	record := &storev1.Ask{AppId: a.id.String(), Ask: ask.message, Granted: known.GetGranted(), Position: known.GetPosition()}
	if known != nil && proto.Equal(known, record) {
		return nil
	}
	if known.GetAsk().GetCount() <= known.GetGranted() {
		// Nothing of it waits yet, so that it comes after all that do.
		a.lastAsk++
		record.Position = a.lastAsk
	}
	ask.ask.Pending = a.pending(record)
	if err := z.scheduler.Apply(scheduler.SetAsk{App: a.id, Ask: ask.ask}); err != nil {
		return fmt.Errorf("ask %q of %s: %w", name, a.record.GetName(), err)
	}
	a.asks[name] = record
	z.save(kindAsk, askKey(a, name), record)
	z.forgetAsk(a, name)
	z.apps.touch(a)
	return nil
}

// pending is how much of an ask is still to be granted: nothing once the app is to end.
func (a *app) pending(record *storev1.Ask) int {
	if a.ending() {
		return 0
	}
	return int(max(0, record.GetAsk().GetCount()-record.GetGranted()))
}

// askGranted counts a grant. The scheduler has counted it already.
func (z *Core) askGranted(c *container) {
	name := c.record.GetLease().GetAskId()
	known := c.app.asks[name]
	if known == nil {
		return
	}
	c.record.Group, c.record.Duration, c.record.Service = known.GetAsk().GetGroup(), known.GetAsk().GetDuration(), known.GetAsk().GetService()
	record := proto.CloneOf(known)
	record.Granted++
	c.app.asks[name] = record
	z.save(kindAsk, askKey(c.app, name), record)
}

func (z *Core) askEnded(c *container) { z.forgetAsk(c.app, c.record.GetLease().GetAskId()) }

// forgetAsk drops an ask that is granted in full, or withdrawn, and under which nothing is held any more. A master does
// not send it again, since it has seen its containers.
func (z *Core) forgetAsk(a *app, name string) {
	record := a.asks[name]
	if record == nil || record.GetAsk().GetCount() > record.GetGranted() {
		return
	}
	if a.heldByAsk[name] > 0 {
		return
	}
	delete(a.asks, name)
	z.forget(kindAsk, askKey(a, name))
}

// withdrawAsks withdraws what an earlier attempt asked for and was not granted: a new one decides for itself. What was
// granted under an id still counts when the id is asked under again.
func (z *Core) withdrawAsks(a *app) {
	for _, name := range sortedKeys(a.asks) {
		known := a.asks[name]
		if known.GetAsk().GetCount() <= known.GetGranted() {
			continue
		}
		ask, err := z.readAsk(known.GetAsk())
		if err != nil {
			z.fault("a stored ask is unreadable", "app", a.record.GetName(), "ask", name, "error", err)
			continue
		}
		z.scheduler.apply(scheduler.SetAsk{App: a.id, Ask: ask})
		record := proto.CloneOf(known)
		record.Ask.Count = record.GetGranted()
		a.asks[name] = record
		z.save(kindAsk, askKey(a, name), record)
		z.forgetAsk(a, name)
	}
}

// applyAsks tells the scheduler what the app waits for: nothing once it is to end.
func (z *Core) applyAsks(a *app) {
	for _, name := range a.asksInOrder() {
		ask, err := z.readAsk(a.asks[name].GetAsk())
		if err != nil {
			z.fault("a stored ask is unreadable", "app", a.record.GetName(), "ask", name, "error", err)
			continue
		}
		ask.Pending = a.pending(a.asks[name])
		z.scheduler.apply(scheduler.SetAsk{App: a.id, Ask: ask})
	}
}

// asksInOrder are the names of an app's asks as they wait. Those of an older ResourceManager have no position.
func (a *app) asksInOrder() []string {
	names := sortedKeys(a.asks)
	slices.SortStableFunc(names, func(x, y string) int { return cmp.Compare(a.asks[x].GetPosition(), a.asks[y].GetPosition()) })
	return names
}

// plan says what would become of a spec of an owner's now, and refuses one that could never run.
func (z *Core) plan(a *app, owner string, spec *apiv1.AppSpec) (*apiv1.DeployResponse, error) {
	response := &apiv1.DeployResponse{}
	explanation := &apiv1.Explanation{}
	var waiting int32
	for _, role := range spec.GetRoles() {
		ask, err := z.scheduler.shape(roleResources(role), role.GetPlacement())
		if err != nil {
			return nil, err
		}
		ask.ID, ask.Group = "plan", role.GetName()
		ask.Pending = int(max(1, role.GetInstances()-a.running(role.GetName())))
		plan, err := z.scheduler.Plan(scheduler.AddApp{Name: spec.GetName(), Queue: id.Queue(spec.GetQueue()), User: owner}, ask, z.now)
		if err != nil {
			return nil, err
		}
		if plan.Never != "" && z.nodes.anyRegistered() {
			return nil, fmt.Errorf("%s: %w", plan.Never, errdefs.ErrInvalidArgument)
		}
		more := max(0, role.GetInstances()-a.running(role.GetName()))
		for i, name := range plan.Nodes {
			if int32(i) < more {
				response.Placements = append(response.Placements, &apiv1.PlannedPlacement{
					Instance: instanceName(spec.GetName(), role.GetName(), int(a.running(role.GetName()))+i+1), Node: string(name),
				})
			}
		}
		if left := more - int32(len(plan.Nodes)); left > 0 {
			waiting += left
			explanation.Obstacles = append(explanation.Obstacles, obstacle(roleTitle(spec, role), left, plan.Explanation))
		}
	}
	explanation.Summary = planSentence(spec.GetName(), int32(len(response.GetPlacements())), waiting)
	response.Explanation = explanation
	return response, nil
}

func planSentence(name string, placed, waiting int32) string {
	switch {
	case placed == 0 && waiting == 0:
		return fmt.Sprintf("no further instance of %s would be started", name)
	case waiting == 0 && placed == 1:
		return fmt.Sprintf("the instance of %s would be started at once", name)
	case placed == 0 && waiting == 1:
		return fmt.Sprintf("the instance of %s could not be started now", name)
	case waiting == 0:
		return fmt.Sprintf("all %d instances of %s would be started at once", placed, name)
	case placed == 0:
		return fmt.Sprintf("none of the %d instances of %s could be started now", waiting, name)
	}
	return fmt.Sprintf("%d of %d instances of %s would be started at once; the rest would wait", placed, placed+waiting, name)
}

// running counts the instances of a role that are there; none of an app that is not.
func (a *app) running(role string) int32 {
	if a == nil {
		return 0
	}
	var count int32
	for _, instance := range a.instances {
		if instance.GetReport().GetRole() == role && instance.GetReport().GetContainerId() != "" {
			count++
		}
	}
	return count
}

// roleResources is what a container of a role is given: its quotas and a host port for each of its ports.
func roleResources(role *apiv1.RoleSpec) *corev1.Resources {
	resources := proto.CloneOf(role.GetResources())
	resources.Ports = max(resources.GetPorts(), int64(len(role.GetPorts())))
	return resources
}

func instanceName(app, role string, number int) string {
	if role == "" {
		return fmt.Sprintf("%s-%d", app, number)
	}
	return fmt.Sprintf("%s-%s-%d", app, role, number)
}

func roleTitle(spec *apiv1.AppSpec, role *apiv1.RoleSpec) string {
	if role.GetName() == "" {
		return spec.GetName()
	}
	return spec.GetName() + "/" + role.GetName()
}

func askKey(a *app, name string) string { return a.id.String() + "/" + name }
