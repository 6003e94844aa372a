package zone

import (
	"fmt"
	"strings"

	"github.com/mammoth-os/mammoth/internal/id"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/waiting"
)

// explainer says why apps are not as people want them, and what would become of a deployment. It changes nothing. A reason is short and
// shown with the app; an obstacle is part of an explanation that somebody has asked for.
type explainer struct {
	*turn
	scheduler *scheduling
	apps      *apps
	packages  *packages
	balancers *endpoints.Balancers
	endpoints *endpoints.Endpoints
	nodes     *nodes
	views     *views
}

// reasons are why an app differs from its spec; there are none if it does not.
func (x *explainer) reasons(a *app) *waiting.Reasons {
	r := &waiting.Reasons{ByRole: map[string]string{}}
	switch a.state() {
	case lifecycle.AppAccepted:
		x.masterReasons(a, r)
	case lifecycle.AppDegraded:
		r.About(waiting.Cause{
			Detail: because("it has no application master, and its instances go on serving", strings.TrimPrefix(a.record.GetReason(), "no master: ")),
			Help:   fmt.Sprintf("\"mammoth app restart %s\" tries again", a.record.GetName()),
		})
	case lifecycle.AppStopping, lifecycle.AppRemoving:
		x.endingReasons(a, r)
	case lifecycle.AppRunning:
		x.runningReasons(a, r)
	}
	r.Sort()
	return r
}

// masterReasons adds why an app's master has not registered.
func (x *explainer) masterReasons(a *app, r *waiting.Reasons) {
	attempt := a.record.GetAttempt()
	name := fmt.Sprintf("its application master (attempt %d)", max(1, attempt.GetNumber()))
	switch retry := a.record.GetRetryAt(); {
	case a.external():
		r.About(waiting.Cause{Detail: a.outsideMaster(), Help: fmt.Sprintf("\"mammoth app run %s -- COMMAND\" starts it", a.record.GetName())})
	case x.packages.Of(a.record.GetSpec()) == nil && !a.attemptState().Live():
		detail, help, _ := strings.Cut(x.packages.NotInstalled(a.record.GetSpec()), "; ")
		r.About(waiting.Cause{Detail: "its application master is not started: " + detail, Help: help})
	case retry != nil && x.now.Before(retry.AsTime()) && !a.attemptState().Live():
		r.About(waiting.Cause{
			Detail: because(fmt.Sprintf("%s failed and is started anew", name), a.record.GetReason()), Until: retry.AsTime(),
		})
	case a.attemptState() == lifecycle.AttemptLaunched:
		on := a.nodeOf(attempt.GetContainerId())
		c := waiting.Cause{Detail: fmt.Sprintf("%s was launched on %s and has not registered yet", name, on), Routine: true}
		if n := x.nodes.get(id.Node(on)); n != nil && n.state() != lifecycle.NodeReady {
			c.Detail, c.Routine = because(c.Detail, n.trouble()), false
		} else {
			c.Until = attempt.GetLaunchedAt().AsTime().Add(masterSilence)
		}
		r.About(c)
	case !x.nodes.anyRegistered():
		r.About(waiting.Cause{Detail: name + " waits for capacity: " + noNode, Help: noNodeHelp})
	default:
		for _, ask := range x.scheduler.Explain(a.id, x.now).Asks {
			if ask.Ask == "" && ask.Pending > 0 {
				c := x.capacityCause(ask)
				r.About(waiting.Cause{Detail: because(name+" "+c.One, c.Detail), Help: c.Help, Routine: c.Routine})
				return
			}
		}
		r.About(waiting.Cause{Detail: name + " is about to be started", Routine: true})
	}
}

// runningReasons adds the reasons of an app whose master has registered.
func (x *explainer) runningReasons(a *app, r *waiting.Reasons) {
	x.standingReasons(a, r)
	asked := x.capacityReasons(a, r)
	for _, name := range a.instanceNames() {
		if !asked[name] {
			x.instanceReason(a, r, name, a.instances[name])
		}
	}
	x.statusReason(a, r)
	for _, o := range x.balancers.Obstacles(a.record.GetName()) {
		r.About(waiting.Cause{Detail: because(o.GetSubject(), o.GetReason())})
	}
}

// standingReasons adds what an app as a whole waits for, whose master has registered.
func (x *explainer) standingReasons(a *app, r *waiting.Reasons) {
	if !a.connected() {
		// A master opens a new stream within moments.
		r.About(waiting.Cause{Detail: "its application master is not connected: instances go on serving, and nothing is replaced until it, or another one, is connected", Routine: true})
	} else if a.record.GetObservedGeneration() < a.record.GetGeneration() {
		r.About(waiting.Cause{Detail: "its application master has not applied the newest change yet", Routine: true})
	}
	if x.endpoints.AreUnconfirmed(&a.endpoints) {
		r.About(waiting.Cause{Detail: "not every balancer has confirmed its newest endpoints: " + x.balancers.List(), Routine: true})
	}
}

// capacityReasons adds why asks are not granted, and returns the names of the instances that the asks are for.
func (x *explainer) capacityReasons(a *app, r *waiting.Reasons) map[string]bool {
	asked := map[string]bool{}
	if !a.asksForMore() {
		return asked
	}
	known := x.nodes.anyRegistered()
	var last waiting.Cause
	var like scheduler.AskExplanation
	for i, ask := range x.scheduler.Explain(a.id, x.now).Asks {
		if ask.Pending == 0 || ask.Ask == "" {
			continue
		}
		name := askSubject(ask)
		role := a.roleOf(name)
		asked[name] = true
		if i > 0 && last.Role == role && waitAlike(like, ask) && a.helpOf(like) == a.helpOf(ask) {
			r.Of(name, int32(ask.Pending), last)
			continue
		}
		c := x.capacityCause(ask)
		if !known {
			c = waiting.Cause{One: "waits for capacity", Many: "wait for capacity", Detail: noNode, Help: noNodeHelp}
		} else if help := a.helpOf(ask); help != "" {
			c.Help = help
		}
		c.Role = role
		r.ByRole[role] = because("it "+c.One, c.Detail)
		r.Of(name, int32(ask.Pending), c)
		last, like = c, ask
	}
	return asked
}

// waitAlike reports whether two asks wait for the same reason. Asks of one shape share their Tests.
func waitAlike(x, y scheduler.AskExplanation) bool {
	return x.Limit == y.Limit && x.Coming == y.Coming && x.Help == y.Help && x.Fits == y.Fits && len(x.Tests) == len(y.Tests) &&
		(len(x.Tests) == 0 || &x.Tests[0] == &y.Tests[0])
}

// capacityCause is why an ask is not granted.
func (x *explainer) capacityCause(ask scheduler.AskExplanation) waiting.Cause {
	c := waiting.Cause{One: "waits for capacity", Many: "wait for capacity", Help: ask.Help}
	switch {
	case ask.Never != "":
		c.Detail = ask.Never
		return c
	case ask.Limit != "":
		c.Detail = ask.Limit
	case ask.Fits > 0 && ask.Coming == "":
		return waiting.Cause{One: "is about to be placed", Many: "are about to be placed", Routine: true}
	case len(ask.Tests) > 0:
		test := ask.Tests[0]
		if test.Example != "" && test.Test == "closed" && len(ask.Tests) == 1 {
			c.Detail = "no node is open: " + test.Example
			break
		}
		c.Detail = because(fmt.Sprintf("%s on %s", test.Test, countWord(test.Nodes, "node")), test.Example)
	}
	for _, more := range []string{ask.Guarantee, ask.Coming} {
		switch {
		case more != "" && c.Detail != "":
			c.Detail += "; " + more
		case more != "":
			c.Detail = more
		}
	}
	return c
}

// endingReasons adds what an app waits for that is stopped or removed.
func (x *explainer) endingReasons(a *app, r *waiting.Reasons) {
	for _, name := range a.instanceNames() {
		if report := a.instances[name].GetReport(); report.GetState() == apiv1.Instance_DRAINING && a.isHeld(report.GetContainerId()) {
			r.Of(name, 1, waiting.Cause{
				Role: report.GetRole(), One: "is taken out of service", Many: "are taken out of service", Routine: true, Detail: report.GetReason(),
			})
		}
	}
	lost := map[id.Node]bool{}
	for _, c := range sortedContainers(a.containers) {
		if !c.held() {
			continue
		}
		n := x.nodes.get(c.node)
		report := a.instances[c.instance()].GetReport()
		switch {
		case n != nil && n.state() == lifecycle.NodeLost:
			if !lost[n.id] {
				lost[n.id] = true
				r.About(waiting.Cause{
					Detail: fmt.Sprintf("%s is lost and holds %s of it that nobody has seen gone", n.id, countWord(x.nodes.countOf(n, a), "container")),
					Help:   fmt.Sprintf("if it is gone for good, \"mammoth node rm %s\" says so", n.id),
				})
			}
		case report.GetState() == apiv1.Instance_DRAINING && report.GetContainerId() == c.id.String():
		case c.record.GetLease().GetMaster() && a.heldCount() > 1:
			// It ends when its instances have.
		default:
			stopping := waiting.Cause{One: "is being stopped on " + string(c.node), Many: "are being stopped on " + string(c.node), Role: c.role(), Routine: true}
			if n != nil && n.state() != lifecycle.NodeReady {
				stopping.Detail, stopping.Routine = n.trouble(), false
			} else {
				stopping.Detail = c.graceText()
			}
			r.Of(c.name(), 1, stopping)
		}
	}
	if x.endpoints.AreUnconfirmed(&a.endpoints) {
		r.About(waiting.Cause{Detail: "not every balancer has confirmed that nothing is routed to it any more: " + x.balancers.List(), Routine: true})
	}
}

// statusReason adds work that waits for a person or has failed, and work that goes on where no other reason is known.
func (x *explainer) statusReason(a *app, r *waiting.Reasons) {
	status := a.presentStatus(specs.Instances(a.record.GetSpec()))
	switch status.GetState() {
	case apiv1.MasterStatus_WAITING, apiv1.MasterStatus_FAILED:
		r.About(waiting.Cause{Detail: because(status.GetText(), status.GetReason()), Help: status.GetHelp()})
	case apiv1.MasterStatus_WORKING:
		if len(r.All) == 0 && status.GetText() != "" {
			r.About(waiting.Cause{Routine: true, Detail: status.GetText()})
		}
	}
}
