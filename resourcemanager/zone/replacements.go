package zone

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/waiting"
)

// planReplacements adds to a dry run what a deployment would do to the instances of an app: which are replaced, how many at a time, and
// whether there is room for the new ones beside them.
func (vs *versions) planReplacements(a *app, spec *apiv1.AppSpec, response *apiv1.DeployResponse) error {
	if a == nil {
		return nil
	}
	present := a.withContainers()
	replaced, ended := 0, 0
	for _, role := range spec.GetRoles() {
		fewer := max(0, present[role.GetName()]-int(role.GetInstances()))
		ended += fewer
		delete(present, role.GetName())
		names := a.outdated(role)
		if len(names) <= fewer {
			continue
		}
		replaced += len(names) - fewer
		planned, err := vs.planReplacement(a, spec, role, names, fewer)
		if err != nil {
			return err
		}
		response.Replacements = append(response.Replacements, planned)
	}
	for _, count := range present {
		ended += count // Their role is no more.
	}
	started := planSentenceParts(response)
	switch {
	case replaced == 0 && ended == 0 && started == 0 && proto.Equal(spec, a.record.GetSpec()):
		response.Explanation.Summary = fmt.Sprintf("nothing of %s would change", spec.GetName())
	case replaced == 0:
		response.Explanation.Summary += "; none would be replaced"
	case started == 0:
		response.Explanation.Summary = fmt.Sprintf("%s of %s would be replaced", countWord(replaced, "instance"), spec.GetName())
	default:
		response.Explanation.Summary += fmt.Sprintf("; %s would be replaced", countWord(replaced, "instance"))
	}
	if ended > 0 {
		response.Explanation.Summary += fmt.Sprintf("; %s would end", countWord(ended, "instance"))
	}
	return nil
}

// planSentenceParts counts the instances that are started or wait besides those that are replaced.
func planSentenceParts(response *apiv1.DeployResponse) int {
	return len(response.GetPlacements()) + len(response.GetExplanation().GetObstacles())
}

// outdated are the instances that would be replaced for a role to become as given.
func (a *app) outdated(role *apiv1.RoleSpec) []string {
	fits := map[int32]bool{}
	for _, version := range a.record.GetVersions() {
		for _, before := range version.GetSpec().GetRoles() {
			fits[version.GetVersion()] = fits[version.GetVersion()] || before.GetName() == role.GetName() && specs.SameContainers(before, role)
		}
	}
	var names []string
	for _, name := range sortedKeys(a.instances) {
		if report := a.instances[name].GetReport(); report.GetRole() == role.GetName() && report.GetContainerId() != "" && !fits[report.GetVersion()] {
			names = append(names, name)
		}
	}
	return names
}

// planReplacement says how the outdated instances of a role are replaced, but for the few that end because the role gets fewer.
func (vs *versions) planReplacement(a *app, spec *apiv1.AppSpec, role *apiv1.RoleSpec, names []string, fewer int) (*apiv1.PlannedReplacement, error) {
	update := role.GetUpdate()
	planned := &apiv1.PlannedReplacement{Role: role.GetName(), Instances: names, MaxSurge: update.GetMaxSurge(), MaxUnavailable: update.GetMaxUnavailable()}
	count := int(role.GetInstances())
	beside, how := min(int(update.GetMaxSurge()), count), ""
	switch course := courseOf(update); course.GetStrategy() {
	case apiv1.UpdatePolicy_CANARY:
		beside = min(count, max(1, (count*int(course.GetCanaryPercent())+99)/100))
		how = fmt.Sprintf("%s of the new version would be started beside %s, with %d %% of the requests until it is promoted",
			countWord(beside, "instance"), countWord(len(names), "present one"), course.GetCanaryPercent())
	case apiv1.UpdatePolicy_BLUE_GREEN:
		beside = count
		how = fmt.Sprintf("%s of the new version would be made ready beside %s, and then take over", countWord(beside, "instance"), countWord(len(names), "present one"))
	default:
		which := firstNames(names)
		if fewer > 0 {
			which = fmt.Sprintf("%d of %s", len(names)-fewer, which)
		}
		how = fmt.Sprintf("%s would be replaced, at most %d at a time (maxSurge %d, maxUnavailable %d)",
			which, max(1, update.GetMaxSurge()+update.GetMaxUnavailable()), update.GetMaxSurge(), update.GetMaxUnavailable())
	}
	if fewer > 0 {
		how += fmt.Sprintf("; %d would end", fewer)
	}
	ask, err := vs.scheduler.shape(roleResources(role), role.GetPlacement())
	if err != nil {
		return nil, err
	}
	ask.ID, ask.Group, ask.Pending = "plan", role.GetName(), max(1, beside)
	plan, err := vs.scheduler.Plan(scheduler.AddApp{Name: spec.GetName(), Queue: id.Queue(spec.GetQueue()), User: a.record.GetUser()}, ask, vs.now)
	if err != nil {
		return nil, err
	}
	for _, node := range plan.Nodes {
		planned.Nodes = append(planned.Nodes, string(node))
	}
	planned.Text = how + "; " + vs.roomBeside(a, role, plan, beside, fewer)
	return planned, nil
}

// roomBeside says whether there is room for new instances beside the present ones, of which the few that are too many end at once.
func (vs *versions) roomBeside(a *app, role *apiv1.RoleSpec, plan scheduler.Plan, beside, fewer int) string {
	rolling := courseOf(role.GetUpdate()).GetStrategy() == apiv1.UpdatePolicy_ROLLING
	why := vs.explainer.capacityCause(plan.Explanation)
	switch {
	case len(plan.Nodes) > 0 && (len(plan.Nodes) == beside || rolling):
		return "there is room for " + countWord(len(plan.Nodes), "more instance")
	case rolling && role.GetUpdate().GetMaxUnavailable() > 0:
		return "an old instance goes first and makes room, for there is none beside them"
	case rolling && fewer > 0 && vs.roomAfter(a, role):
		return "those that end make room"
	case len(plan.Nodes) > 0:
		return because(fmt.Sprintf("there is room for %d of them only", len(plan.Nodes)), withHelp(why))
	}
	if rolling && vs.roomAfter(a, role) {
		why.Help = oldFirst
	}
	return because("there is no room beside them, and it would wait", withHelp(why))
}

// roomAfter reports whether a new instance fits where a present one ends.
func (vs *versions) roomAfter(a *app, role *apiv1.RoleSpec) bool {
	needs, err := vs.units.read(roleResources(role))
	return err == nil && vs.anyCovers(a, role.GetName(), needs)
}

func withHelp(c waiting.Cause) string {
	if c.Help == "" {
		return c.Detail
	}
	return c.Detail + "; " + c.Help
}

// firstNames names the first few.
func firstNames(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// anyCovers reports whether the container of an instance of a role holds as much as a new one needs.
func (vs *versions) anyCovers(a *app, role string, needs resource.Vector) bool {
	for _, instance := range a.instances {
		c := a.container(instance.GetReport().GetContainerId())
		if c != nil && c.held() && instance.GetReport().GetRole() == role && vs.leases.covers(c, needs) {
			return true
		}
	}
	return false
}

// oldFirst is the help where a new instance finds no room beside the one that it is to replace.
const oldFirst = "`maxUnavailable: 1` in its update policy (`--max-unavailable 1`) would do: an old instance then goes first and makes room for a new one"

// courseOf is how a new version takes the place of the one before: as was said for it alone, or else by the policy.
func courseOf(update *apiv1.UpdatePolicy) *apiv1.UpdatePolicy_Course {
	if once := update.GetOnce(); once != nil {
		return once
	}
	return &apiv1.UpdatePolicy_Course{Strategy: update.GetStrategy(), CanaryPercent: update.GetCanaryPercent(), Exclusive: update.GetExclusive()}
}
