package driver

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	"github.com/mammoth-os/mammoth/internal/sentence"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// Preview is a question to the ResourceManager: where would the first new instances of a deployment be placed? The driver passes
// the answer to Planned.
type Preview struct {
	// Command is the id of the command that the answer is for.
	Command string
	Request *masterv1.PlanRequest
}

// preview is the effect that a deployment would have on the present instances.
type preview struct {
	roles []*replacement
	// goingOn are the roles whose rollout is under way and would go on as it is.
	goingOn         []string
	replaced, ended int
}

// replacement is the effect on the instances of one role.
type replacement struct {
	spec *apiv1.RoleSpec
	// group is the group of the role's asks.
	group string
	// names are the instances that would be replaced. fewer of them would end without a replacement, since the count would be
	// lower.
	names []string
	fewer int
	// beside is how many new instances would be started before any of them ends.
	beside int
	// frees is true if a new instance would fit into the resources of a present one.
	frees bool
}

// previews owns the previews that wait for the ResourceManager's answer.
type previews struct {
	// open are by the ids of their commands. questions are those that the driver has not sent to the ResourceManager yet.
	open      map[string]*preview
	questions []Preview
}

// consider answers a command at once if nothing would be replaced, and else asks the ResourceManager.
func (l *previews) consider(command string, spec *apiv1.AppSpec, p *preview) *masterv1.CommandAnswer {
	if len(p.roles) == 0 {
		return p.answer(command, nil)
	}
	request := &masterv1.PlanRequest{Queue: spec.GetQueue()}
	for _, r := range p.roles {
		request.Asks = append(request.Asks, &masterv1.Ask{
			Id: fmt.Sprintf("preview/%d", len(request.GetAsks())), Count: int32(max(1, r.beside)), Resources: resourcesOf(r.spec), Priority: spec.GetPriority(),
			Placement: r.spec.GetPlacement(), Group: r.group, Service: true,
		})
	}
	l.open[command] = p
	l.questions = append(l.questions, Preview{Command: command, Request: request})
	return nil
}

// take returns the questions since the last call.
func (l *previews) take() []Preview {
	asked := l.questions
	l.questions = nil
	return asked
}

// planned is the answer to a command by what the ResourceManager has planned for it, nil if it is none that waits.
func (l *previews) planned(command string, response *masterv1.PlanResponse, err error) *masterv1.CommandAnswer {
	p := l.open[command]
	delete(l.open, command)
	switch {
	case p == nil:
		return nil
	case err != nil:
		answer := &masterv1.CommandAnswer{Id: command}
		answer.Code, answer.Refusal = wire.Refusal(err)
		return answer
	}
	return p.answer(command, response.GetPlanned())
}

// Previews returns the questions since the last call.
func (d *Master) Previews() []Preview { return d.previews.take() }

// Planned is the answer to a Preview.
func (d *Master) Planned(command string, response *masterv1.PlanResponse, err error) {
	if answer := d.previews.planned(command, response, err); answer != nil {
		d.sent.answer(answer)
	}
}

// compare computes the effect of a spec on the present instances.
func (d *Master) compare(spec *apiv1.AppSpec, now time.Time) *preview {
	p := &preview{}
	for _, r := range d.roles.sorted() {
		next := roleOf(spec, r.name)
		instances := r.placed(now)
		if next == nil {
			p.ended += len(instances)
			continue
		}
		failed := r.plan.Rollout(now).State == plan.Failed
		if !r.plan.Over() && r.goesOnWith(d.desired.GetSpec(), spec, failed) {
			p.ended += r.surplus(len(instances), roleOf(d.desired.GetSpec(), r.name), next)
			if !failed {
				p.goingOn = append(p.goingOn, r.name)
			}
			continue
		}
		fewer := max(0, len(instances)-int(next.GetInstances()))
		p.ended += fewer
		change := &replacement{spec: next, group: r.prefix, fewer: fewer, beside: besideOf(next)}
		for _, instance := range instances {
			lease := d.containers.leaseOf(instance.Container.String())
			change.frees = change.frees || lease != nil && covers(lease.GetResources(), resourcesOf(next))
			if !specs.SameContainers(r.spec(d.desired, instance.Version), next) {
				change.names = append(change.names, instance.Name)
			}
		}
		if len(change.names) > fewer {
			p.replaced += len(change.names) - fewer
			p.roles = append(p.roles, change)
		}
	}
	return p
}

// goesOnWith reports whether the rollout of the role would go on as it is if another spec of the app were deployed. One that has failed begins
// anew with every version (plan.Role.ContinueAs).
func (r *role) goesOnWith(present, next *apiv1.AppSpec, failed bool) bool {
	before, after := roleOf(present, r.name), roleOf(next, r.name)
	return specs.SameRollout(before, after) && proto.Equal(r.control.strategy(after), r.control.strategy(before)) &&
		(!failed || !specs.NeedsNewInstances(present, next))
}

// surplus is how many of the instances would end, of a rollout that goes on with another count.
func (r *role) surplus(instances int, present, next *apiv1.RoleSpec) int {
	fewer := int(present.GetInstances() - next.GetInstances())
	if fewer <= 0 {
		return 0
	}
	strategy := r.control.strategy(next)
	if share := r.control.share(); share > 0 {
		strategy = &apiv1.UpdatePolicy_OneRollout{Strategy: apiv1.UpdatePolicy_CANARY, CanaryPercent: share}
	}
	return min(instances, max(fewer, instances-int(next.GetInstances())-besideWith(strategy, next)))
}

// besideOf is how many new instances of a role are started before any present one ends.
func besideOf(role *apiv1.RoleSpec) int { return besideWith(strategyOfNext(role.GetUpdate()), role) }

// besideWith is the same with another strategy than that in the role's spec.
func besideWith(strategy *apiv1.UpdatePolicy_OneRollout, role *apiv1.RoleSpec) int {
	count := int(role.GetInstances())
	switch strategy.GetStrategy() {
	case apiv1.UpdatePolicy_CANARY:
		return min(count, max(1, (count*int(strategy.GetCanaryPercent())+99)/100))
	case apiv1.UpdatePolicy_BLUE_GREEN:
		return count
	}
	return min(int(role.GetUpdate().GetMaxSurge()), count)
}

func (p *preview) answer(command string, planned []*masterv1.PlannedAsk) *masterv1.CommandAnswer {
	previewed, detail := &apiv1.Previewed{Summary: p.summary()}, &dynamicdeployv1.Replacements{}
	for i, r := range p.roles {
		update := r.spec.GetUpdate()
		detail.Replacements = append(detail.Replacements, &dynamicdeployv1.Replacement{
			Role: r.spec.GetName(), Instances: first(mostNamed/len(p.roles), r.names), Count: int32(len(r.names)),
			MaxSurge: update.GetMaxSurge(), MaxUnavailable: update.GetMaxUnavailable(), Nodes: first(mostNamed/len(p.roles), planned[i].GetNodes()),
		})
		previewed.Lines = append(previewed.Lines, &apiv1.PreviewLine{Role: r.spec.GetName(), Text: r.how() + "; " + r.room(planned[i])})
	}
	for _, role := range p.goingOn {
		previewed.Lines = append(previewed.Lines, &apiv1.PreviewLine{Role: role, Text: "its rollout goes on as it is"})
	}
	answer := &masterv1.CommandAnswer{Id: command}
	var err error
	if previewed.Detail, err = anypb.New(detail); err == nil {
		answer.Answer, err = anypb.New(previewed)
	}
	if err != nil {
		answer.Code, answer.Refusal = wire.Refusal(fmt.Errorf("encode a preview: %w", err))
	}
	return answer
}

func (p *preview) summary() string {
	text := "none would be replaced"
	if p.replaced > 0 {
		text = countInstances(p.replaced) + " would be replaced"
	}
	if p.ended > 0 {
		text += "; " + countInstances(p.ended) + " would end"
	}
	return text
}

// how describes how the instances would be replaced, in a clause.
func (r *replacement) how() string {
	update, text := r.spec.GetUpdate(), ""
	switch strategy := strategyOfNext(update); strategy.GetStrategy() {
	case apiv1.UpdatePolicy_CANARY:
		text = fmt.Sprintf("%s of the new version would be started beside %s, with %d %% of the requests until it is promoted",
			countInstances(r.beside), presentOnes(len(r.names)), strategy.GetCanaryPercent())
	case apiv1.UpdatePolicy_BLUE_GREEN:
		text = fmt.Sprintf("%s of the new version would be made ready beside %s, and then take over", countInstances(r.beside), presentOnes(len(r.names)))
	default:
		which := sentence.Names(r.names)
		if r.fewer > 0 {
			which = fmt.Sprintf("%d of %s", len(r.names)-r.fewer, which)
		}
		text = fmt.Sprintf("%s would be replaced, at most %d at a time (maxSurge %d, maxUnavailable %d)",
			which, max(1, update.GetMaxSurge()+update.GetMaxUnavailable()), update.GetMaxSurge(), update.GetMaxUnavailable())
	}
	if r.fewer > 0 {
		text += fmt.Sprintf("; %d would end", r.fewer)
	}
	return text
}

// room describes whether there is room for the new instances, in a clause. It takes into account that surplus instances end at
// once.
func (r *replacement) room(planned *masterv1.PlannedAsk) string {
	rolling := strategyOfNext(r.spec.GetUpdate()).GetStrategy() == apiv1.UpdatePolicy_ROLLING
	nodes, why := len(planned.GetNodes()), planned.GetReason()
	help := planned.GetHelp()
	switch {
	case nodes > 0 && rolling && nodes == 1:
		return "there is room for the first new instance"
	case nodes > 0 && rolling:
		return fmt.Sprintf("there is room for the first %d new instances", nodes)
	case nodes > 0 && nodes == r.beside:
		return "there is room for " + pronoun(nodes)
	case rolling && r.spec.GetUpdate().GetMaxUnavailable() > 0:
		return "an old instance goes first and makes room, for there is none beside them"
	case rolling && r.fewer > 0 && r.frees:
		return "those that end make room"
	case nodes > 0:
		return sentence.Because(fmt.Sprintf("there is room for %d of them only", nodes), why, help)
	case rolling && r.frees:
		help = oldFirst
	}
	return sentence.Because("there is no room beside them, and it would wait", why, help)
}

// mostNamed limits how many instances, and how many nodes, an answer names for all roles together.
const mostNamed = 640

func first(most int, names []string) []string { return names[:min(most, len(names))] }

func countInstances(count int) string { return fmt.Sprintf("%d %s", count, plural(count, "instance")) }

func presentOnes(count int) string { return fmt.Sprintf("%d present %s", count, plural(count, "one")) }

func pronoun(count int) string {
	if count == 1 {
		return "it"
	}
	return "them"
}

func plural(count int, noun string) string {
	if count == 1 {
		return noun
	}
	return noun + "s"
}
