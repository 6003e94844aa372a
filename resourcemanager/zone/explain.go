package zone

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/mammoth-os/mammoth/internal/sentence"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// noNode is why nothing at all can be placed, noNodeHelp is what would help.
const (
	noNode     = "no node has registered"
	noNodeHelp = "\"mammoth nodemanager\" runs one"
)

// explain says in words what an app waits for, and what would help.
func (x *explainer) explain(name string) (*apiv1.Explanation, error) {
	a, err := x.apps.named(name)
	if err != nil {
		return nil, err
	}
	view := x.views.of(a)
	e := &apiv1.Explanation{Summary: x.summary(a, view)}
	for _, ask := range x.scheduler.Explain(a.id, x.now).Asks {
		if ask.Pending == 0 {
			continue
		}
		o := obstacle(askSubject(ask), int32(ask.Pending), ask)
		if !x.nodes.anyRegistered() {
			o.Reason, o.Limit, o.Help = "it waits for capacity: "+noNode, "", noNodeHelp
		} else if help := a.helpOf(ask); help != "" {
			o.Help = help
		}
		e.Obstacles = append(e.Obstacles, o)
	}
	for _, instance := range view.GetInstances() {
		if o := x.instanceObstacle(a, instance); o != nil {
			e.Obstacles = append(e.Obstacles, o)
		}
	}
	e.Obstacles = append(e.Obstacles, statusObstacles(view.GetStatus())...)
	e.Obstacles = append(e.Obstacles, x.nodeObstacles(a)...)
	e.Obstacles = append(e.Obstacles, x.balancers.Obstacles(name)...)
	if a.state() == lifecycle.AppRunning {
		for _, w := range a.waits() {
			if w.GetInstances() == 0 && !mentions(e.GetObstacles(), w) {
				e.Obstacles = append(e.Obstacles, &apiv1.Obstacle{Subject: name, Reason: w.GetText(), Help: w.GetHelp()})
			}
		}
	}
	return e, nil
}

// mentions reports whether a reason is among obstacles, perhaps in other words.
func mentions(obstacles []*apiv1.Obstacle, w *apiv1.Waiting) bool {
	return slices.ContainsFunc(obstacles, func(o *apiv1.Obstacle) bool {
		_, end, found := strings.Cut(o.GetReason(), ": ")
		return strings.HasSuffix(w.GetText(), o.GetReason()) || found && strings.HasSuffix(w.GetText(), end)
	})
}

func (x *explainer) summary(a *app, view *apiv1.App) string {
	name := view.GetName()
	switch a.state() {
	case lifecycle.AppAccepted:
		if a.external() {
			return fmt.Sprintf("%s waits: %s; \"mammoth app run %s -- COMMAND\" starts it", name, a.outsideMaster(), name)
		}
		if x.packages.Of(a.record.GetSpec()) == nil && !a.attemptState().Live() {
			return fmt.Sprintf("%s waits: its application master is not started: %s", name, x.packages.NotInstalled(a.record.GetSpec()))
		}
		if retry := a.record.GetRetryAt(); retry != nil && x.now.Before(retry.AsTime()) {
			return fmt.Sprintf("%s waits for its application master: attempt %d failed, the next one starts in %s",
				name, view.GetMaster().GetAttempt(), durationWords(retry.AsTime().Sub(x.now)))
		}
		if a.attemptState() == lifecycle.AttemptLaunched {
			return fmt.Sprintf("%s waits for its application master, which was launched on %s and has not registered yet", name, view.GetMaster().GetNode())
		}
		return name + " waits for a container for its application master" + x.masterObstacle(a)
	case lifecycle.AppDegraded:
		return fmt.Sprintf("%s has no application master, and its %d running instances go on serving: %s", name, view.GetRunning(), view.GetReason())
	case lifecycle.AppStopping, lifecycle.AppRemoving:
		text := fmt.Sprintf("%s is %s: %d of its containers were not yet seen gone", name, strings.ToLower(view.GetState().String()), a.heldCount())
		if awaited := x.views.lostNodes(a); awaited != "" {
			text += "; " + awaited
		}
		return text
	case lifecycle.AppStopped:
		ended := map[apiv1.App_Outcome]string{apiv1.App_SUCCEEDED: " has succeeded", apiv1.App_FAILED: " has failed"}[view.GetOutcome()]
		text := because(name+cmp.Or(ended, " is stopped"), view.GetReason())
		if a.external() {
			return text + fmt.Sprintf("; \"mammoth app run %s -- COMMAND\" begins it anew", name)
		}
		return text + fmt.Sprintf("; \"mammoth app restart %s\" starts it", name)
	}
	running, wanted := view.GetRunning(), view.GetWanted()
	if withoutRoles(a) {
		text := fmt.Sprintf("%s is running: %s healthy", name, countWord(int(running), "instance"))
		if said := view.GetStatus().GetText(); said != "" {
			text += "; " + said
		}
		return text + x.outlook(view.GetStatus())
	}
	text := fmt.Sprintf("%s is running: %d of %d instances healthy", name, running, wanted)
	return text + x.progress(view.GetStatus())
}

// masterObstacle is what stands in the way of the master's container, as the end of a sentence.
func (x *explainer) masterObstacle(a *app) string {
	if !x.nodes.anyRegistered() {
		return ": " + noNode
	}
	for _, ask := range x.scheduler.Explain(a.id, x.now).Asks {
		if ask.Ask != "" {
			continue
		}
		switch {
		case ask.Never != "":
			return ": " + ask.Never
		case ask.Limit != "":
			return ": " + ask.Limit
		case ask.Coming != "":
			return ": " + ask.Coming
		case len(ask.Tests) > 0:
			return ": " + because(ask.Tests[0].Test, ask.Tests[0].Example)
		}
	}
	return ""
}

func askSubject(ask scheduler.AskExplanation) string {
	if ask.Ask == "" {
		return "application master"
	}
	// Drivers name an ask after its instance.
	instance, _, _ := strings.Cut(ask.Ask, "/")
	return instance
}

func obstacle(subject string, count int32, ask scheduler.AskExplanation) *apiv1.Obstacle {
	o := &apiv1.Obstacle{Subject: subject, Count: count, Limit: ask.Limit, Help: ask.Help}
	for _, test := range ask.Tests {
		o.FailedTests = append(o.FailedTests, &apiv1.Obstacle_FailedTest{Test: test.Test, Nodes: int32(test.Nodes), Example: test.Example})
	}
	switch {
	case ask.Never != "":
		o.Reason = "it waits for capacity that there is not: " + ask.Never
	case ask.Limit != "":
		o.Reason = "it waits for capacity: " + ask.Limit
	case len(ask.Tests) > 0:
		o.Reason = because("it waits for capacity: "+ask.Tests[0].Test, ask.Tests[0].Example)
	case ask.Fits > 0:
		o.Reason = "it is about to be placed"
	default:
		o.Reason = "it waits for its turn"
	}
	for _, more := range []string{ask.Guarantee, ask.Coming} {
		if more != "" && ask.Never == "" {
			o.Reason += "; " + more
		}
	}
	return o
}

// instanceObstacle is why one instance is not running; instances that wait for capacity are among the obstacles by their asks.
func (x *explainer) instanceObstacle(a *app, instance *apiv1.Instance) *apiv1.Obstacle {
	var reason string
	switch instance.GetState() {
	case apiv1.Instance_RUNNING, apiv1.Instance_STATE_UNSPECIFIED:
		return nil
	case apiv1.Instance_PENDING:
		if instance.GetReason() == "" || instance.GetContainerId() == "" {
			return nil
		}
		reason = instance.GetReason()
	case apiv1.Instance_BACKOFF:
		reason = "its replacement is in back-off"
		if since := a.instances[instance.GetId()].GetSince(); since != nil {
			reason += fmt.Sprintf(" since %s ago", durationWords(x.now.Sub(since.AsTime())))
		}
		if next := instance.GetNextAttemptAt(); next != nil && next.AsTime().After(x.now) {
			reason += fmt.Sprintf(", for another %s", durationWords(next.AsTime().Sub(x.now)))
		}
		reason = because(reason, instance.GetReason())
		if exit := x.lastExit(a, instance.GetId()); exit != "" && !strings.Contains(reason, exit) {
			reason += "; it last ended: " + exit
		}
	case apiv1.Instance_UNREACHABLE:
		reason = because(fmt.Sprintf("its node %s does not answer", instance.GetNode()), instance.GetReason())
	default:
		reason = because("it is "+instanceWord(instance.GetState()), instance.GetReason())
	}
	return &apiv1.Obstacle{Subject: instance.GetId(), Count: 1, Reason: reason}
}

// lastExit is how the instance's newest ended container ended.
func (x *explainer) lastExit(a *app, instance string) string {
	last := ""
	for _, c := range sortedContainers(a.containers) {
		if !c.held() && c.instance() == instance {
			last = sentence.Exit(c.record.GetStatus().GetExit())
		}
	}
	return last
}

// nodeObstacles are the nodes of the app that are not READY.
func (x *explainer) nodeObstacles(a *app) []*apiv1.Obstacle {
	var obstacles []*apiv1.Obstacle
	for _, n := range x.nodes.sorted() {
		if n.state() == lifecycle.NodeReady {
			continue
		}
		count := int32(0)
		for _, c := range n.containers {
			if c.app == a {
				count++
			}
		}
		if count > 0 {
			obstacles = append(obstacles, &apiv1.Obstacle{
				Subject: string(n.id), Count: count,
				Reason: because(fmt.Sprintf("the node is %s and has %d of its containers", strings.ToLower(n.state().String()), count), n.record.GetReason()),
			})
		}
	}
	return obstacles
}

// progress is how far the master's work is and what becomes of it, as the end of a sentence; empty if there is nothing to say.
func (x *explainer) progress(status *apiv1.MasterStatus) string {
	text := ""
	if isWorking(status) && status.GetVersion() > 1 && status.GetText() != "" {
		text = "; " + status.GetText()
	}
	return text + x.outlook(status)
}

// outlook is what happens unless something changes, as the end of a sentence; empty if nothing is known to happen.
func (x *explainer) outlook(status *apiv1.MasterStatus) string {
	outlook, when := status.GetOutlook(), ""
	if outlook == nil {
		return ""
	}
	if outlook.GetAt() != nil {
		when = "in " + durationWords(max(0, outlook.GetAt().AsTime().Sub(x.now)))
	}
	return "; " + sentence.Outlook(outlook.GetText(), when, outlook.GetUnless())
}
