package zone

import (
	"cmp"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// plan is what would become of a spec if its owner deployed it now. It refuses a spec that could never run.
func (x *explainer) plan(a *app, owner string, spec *apiv1.AppSpec) (*apiv1.DeployResponse, error) {
	response := &apiv1.DeployResponse{}
	explanation := &apiv1.Explanation{}
	if !specs.HasRoles(spec) {
		return x.planMaster(a, owner, spec)
	}
	var waiting int32
	for _, role := range spec.GetRoles() {
		ask, err := x.scheduler.shape(roleResources(role), role.GetPlacement())
		if err != nil {
			return nil, err
		}
		ask.ID, ask.Group = "plan", role.GetName()
		running := a.withContainer(role.GetName())
		ask.Pending = int(max(1, role.GetInstances()-running))
		plan, err := x.scheduler.Plan(scheduler.AddApp{Name: spec.GetName(), Queue: id.Queue(spec.GetQueue()), User: owner}, ask, x.now)
		if err != nil {
			return nil, err
		}
		if plan.Never != "" && x.nodes.anyRegistered() {
			return nil, fmt.Errorf("%s: %w", plan.Never, errdefs.ErrInvalidArgument)
		}
		more := max(0, role.GetInstances()-running)
		for i, name := range plan.Nodes {
			if int32(i) < more {
				response.Placements = append(response.Placements, &apiv1.PlannedPlacement{
					Instance: instanceName(spec.GetName(), role.GetName(), int(running)+i+1), Node: string(name),
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

// planAsks says what would become of asks that an app made now, at the expense of a queue; empty is its own.
func (x *explainer) planAsks(a *app, queue string, asks []parsedAsk) (*masterv1.PlanResponse, error) {
	queue = cmp.Or(queue, a.record.GetSpec().GetQueue())
	response := &masterv1.PlanResponse{}
	for _, parsed := range asks {
		count := int(parsed.message.GetCount())
		parsed.ask.Pending = count
		plan, err := x.scheduler.Plan(scheduler.AddApp{Name: a.record.GetName(), Queue: id.Queue(queue), User: a.record.GetUser()}, parsed.ask, x.now)
		if err != nil {
			return nil, err
		}
		planned := &masterv1.PlannedAsk{}
		for _, node := range plan.Nodes {
			planned.Nodes = append(planned.Nodes, string(node))
		}
		if len(plan.Nodes) < count {
			why := x.capacityCause(plan.Explanation)
			planned.Reason, planned.Help = why.Detail, why.Help
		}
		response.Planned = append(response.Planned, planned)
	}
	return response, nil
}

// planMaster is plan for an app whose master decides what else is started: only the place of the master is known.
func (x *explainer) planMaster(a *app, owner string, spec *apiv1.AppSpec) (*apiv1.DeployResponse, error) {
	explanation := &apiv1.Explanation{Summary: fmt.Sprintf("the application master of %s goes on; what would be started or ended is its affair", spec.GetName())}
	response := &apiv1.DeployResponse{Explanation: explanation}
	ask := scheduler.Ask{ID: "plan", Pending: 1, Resources: x.packages.resources(spec), Master: true}
	plan, err := x.scheduler.Plan(scheduler.AddApp{Name: spec.GetName(), Queue: id.Queue(spec.GetQueue()), User: owner}, ask, x.now)
	switch {
	case err != nil:
		return nil, err
	case plan.Never != "" && x.nodes.anyRegistered():
		return nil, fmt.Errorf("its application master cannot run: %s: %w", plan.Never, errdefs.ErrInvalidArgument)
	case a != nil && a.attemptState().Live():
	case len(plan.Nodes) > 0:
		explanation.Summary = fmt.Sprintf("the application master of %s would be started on %s at once; what else is started is its affair", spec.GetName(), plan.Nodes[0])
	default:
		explanation.Summary = fmt.Sprintf("the application master of %s could not be started now", spec.GetName())
		explanation.Obstacles = append(explanation.Obstacles, obstacle(spec.GetName(), 1, plan.Explanation))
	}
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

func roleTitle(spec *apiv1.AppSpec, role *apiv1.RoleSpec) string {
	if role.GetName() == "" {
		return spec.GetName()
	}
	return spec.GetName() + "/" + role.GetName()
}

// roleResources are the resources of a container of a role: its quotas and a host port for each of its ports.
func roleResources(role *apiv1.RoleSpec) *corev1.Resources {
	resources := proto.CloneOf(role.GetResources())
	resources.Ports = max(resources.GetPorts(), int64(len(role.GetPorts())))
	return resources
}
