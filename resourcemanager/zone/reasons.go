package zone

import (
	"fmt"
	"strings"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// reasons finds out why an app differs from its spec; none if it does not.
func (z *Core) reasons(a *app) *reasons {
	r := &reasons{byRole: map[string]string{}}
	switch a.state() {
	case lifecycle.AppAccepted:
		z.masterReasons(a, r)
	case lifecycle.AppDegraded:
		r.about(cause{
			detail: because("it has no application master, and its instances go on serving", strings.TrimPrefix(a.record.GetReason(), "no master: ")),
			help:   fmt.Sprintf("\"mammoth app restart %s\" tries again", a.record.GetName()),
		})
	case lifecycle.AppStopping, lifecycle.AppRemoving:
		z.endingReasons(a, r)
	case lifecycle.AppRunning:
		z.runningReasons(a, r)
	}
	r.sort()
	return r
}

// masterReasons adds why an app's master has not registered.
func (z *Core) masterReasons(a *app, r *reasons) {
	attempt := a.record.GetAttempt()
	name := fmt.Sprintf("its application master (attempt %d)", max(1, attempt.GetNumber()))
	switch retry := a.record.GetRetryAt(); {
	case retry != nil && z.now.Before(retry.AsTime()) && !a.attemptState().Live():
		r.about(cause{
			detail: because(fmt.Sprintf("%s failed and is started anew", name), a.record.GetReason()), until: retry.AsTime(),
		})
	case a.attemptState() == lifecycle.AttemptLaunched:
		on := z.leases.nodeOf(a, attempt.GetContainerId())
		c := cause{detail: fmt.Sprintf("%s was launched on %s and has not registered yet", name, on), inCourse: true}
		if n := z.nodes.get(id.Node(on)); n != nil && n.state() != lifecycle.NodeReady {
			c.detail, c.inCourse = because(c.detail, n.trouble()), false
		} else {
			c.until = attempt.GetLaunchedAt().AsTime().Add(masterSilence)
		}
		r.about(c)
	case !z.nodes.anyRegistered():
		r.about(cause{detail: name + " waits for capacity: " + noNode, help: noNodeHelp})
	default:
		for _, ask := range z.scheduler.Explain(a.id, z.now).Asks {
			if ask.Ask == "" && ask.Pending > 0 {
				c := z.capacity(ask)
				r.about(cause{detail: because(name+" "+c.one, c.detail), help: c.help, inCourse: c.inCourse})
				return
			}
		}
		r.about(cause{detail: name + " is about to be started", inCourse: true})
	}
}

// runningReasons adds the reasons of an app whose master has registered.
func (z *Core) runningReasons(a *app, r *reasons) {
	z.standingReasons(a, r)
	asked := z.capacityReasons(a, r)
	for _, name := range a.instanceNames() {
		if !asked[name] {
			z.instanceReason(a, r, name, a.instances[name])
		}
	}
	z.rollouts.reason(a, r)
	for _, o := range z.balancers.obstacles(a.record.GetName()) {
		r.about(cause{detail: because(o.GetSubject(), o.GetReason())})
	}
}

// standingReasons adds what an app as a whole waits for while its master is registered.
func (z *Core) standingReasons(a *app, r *reasons) {
	if !a.connected() {
		// A master opens a new stream within moments.
		r.about(cause{detail: "its application master is not connected: instances go on serving, and nothing is replaced until it, or another one, is connected", inCourse: true})
	} else if a.record.GetObservedGeneration() < a.record.GetGeneration() {
		r.about(cause{detail: "its application master has not applied the newest change yet", inCourse: true})
	}
	if z.endpoints.areUnconfirmed(a) {
		r.about(cause{detail: "not every balancer has confirmed its newest endpoints: " + z.balancers.words(), inCourse: true})
	}
}

// capacityReasons adds why asks are not granted, and returns the names of the instances that the asks are for.
func (z *Core) capacityReasons(a *app, r *reasons) map[string]bool {
	asked := map[string]bool{}
	if !a.asksForMore() {
		return asked
	}
	known := z.nodes.anyRegistered()
	var last cause
	var like scheduler.AskExplanation
	helps := rolloutHelps{}
	for i, ask := range z.scheduler.Explain(a.id, z.now).Asks {
		if ask.Pending == 0 || ask.Ask == "" {
			continue
		}
		name := askSubject(ask)
		role := a.roleOf(name)
		asked[name] = true
		if i > 0 && last.role == role && alikeAsks(like, ask) {
			r.of(name, int32(ask.Pending), last)
			continue
		}
		c := z.capacity(ask)
		if !known {
			c = cause{one: "waits for capacity", many: "wait for capacity", detail: noNode, help: noNodeHelp}
		} else if help := helps.of(z, a, role); help != "" {
			c.help = help
		}
		c.role = role
		r.byRole[role] = because("it "+c.one, c.detail)
		r.of(name, int32(ask.Pending), c)
		last, like = c, ask
	}
	return asked
}

// alikeAsks reports whether two asks wait for the same reason. Asks of one shape share their Tests.
func alikeAsks(x, y scheduler.AskExplanation) bool {
	return x.Limit == y.Limit && x.Coming == y.Coming && x.Help == y.Help && x.Fits == y.Fits && len(x.Tests) == len(y.Tests) &&
		(len(x.Tests) == 0 || &x.Tests[0] == &y.Tests[0])
}

// rolloutHelps keeps the results of helpOfRollout, by role.
type rolloutHelps map[string]string

func (h rolloutHelps) of(z *Core, a *app, role string) string {
	help, known := h[role]
	if !known {
		help = z.rollouts.help(a, role)
		h[role] = help
	}
	return help
}

// capacity is why an ask is not granted.
func (z *Core) capacity(ask scheduler.AskExplanation) cause {
	c := cause{one: "waits for capacity", many: "wait for capacity", help: ask.Help}
	switch {
	case ask.Never != "":
		c.detail = ask.Never
		return c
	case ask.Limit != "":
		c.detail = ask.Limit
	case ask.Fits > 0 && ask.Coming == "":
		return cause{one: "is about to be placed", many: "are about to be placed", inCourse: true}
	case len(ask.Tests) > 0:
		test := ask.Tests[0]
		if test.Example != "" && test.Test == "closed" && len(ask.Tests) == 1 {
			c.detail = "no node is open: " + test.Example
			break
		}
		c.detail = because(fmt.Sprintf("%s on %s", test.Test, countWord(test.Nodes, "node")), test.Example)
	}
	for _, more := range []string{ask.Guarantee, ask.Coming} {
		switch {
		case more != "" && c.detail != "":
			c.detail += "; " + more
		case more != "":
			c.detail = more
		}
	}
	return c
}

// instanceReason adds why an instance that has a container, or needs none yet, is not running.
func (z *Core) instanceReason(a *app, r *reasons, name string, instance *storev1.Instance) {
	report := instance.GetReport()
	cid, err := id.ParseContainer(report.GetContainerId())
	c := a.containers[cid]
	if err != nil {
		c = nil
	}
	state, why := report.GetState(), report.GetReason()
	var n *node
	if c != nil {
		n = z.nodes.get(c.node)
		state, why = z.seenState(a, c, state, why)
	}
	on := ""
	if n != nil {
		on = " on " + string(n.id)
	}
	add := func(one, many, detail string, inCourse bool) {
		if n != nil && n.state() != lifecycle.NodeReady {
			detail, inCourse = n.trouble(), false
		}
		r.of(name, 1, cause{role: report.GetRole(), one: one, many: many, detail: detail, inCourse: inCourse})
	}
	status := c.status()
	if detail := status.GetReason(); detail != "" && why == "" {
		why = detail
	}
	switch state {
	case apiv1.Instance_RUNNING, apiv1.Instance_STATE_UNSPECIFIED:
	case apiv1.Instance_PENDING:
		if c == nil {
			add("is about to be started", "are about to be started", why, true)
			return
		}
		add("is about to begin"+on, "are about to begin"+on, why, true)
	case apiv1.Instance_DOWNLOADING:
		add("downloads its image"+on, "download their image"+on, because(a.imageOf(report.GetRole()), why), true)
	case apiv1.Instance_LOADING:
		add("loads its image"+on, "load their image"+on, because(a.imageOf(report.GetRole()), why), true)
	case apiv1.Instance_STARTING:
		detail := status.GetHealthDetail()
		switch {
		case report.GetReason() != "" && status.GetHealth() != corev1.ContainerStatus_STARTING:
			// It is healthy, but not yet for minHealthy: that ends by itself.
			role, _ := a.role(report.GetRole())
			r.of(name, 1, cause{
				role: report.GetRole(), one: "does not count yet", many: "do not count yet", detail: why, inCourse: true, lasts: role.GetUpdate().GetMinHealthy().AsDuration(),
			})
		case detail != "":
			if strings.HasPrefix(why, detail) {
				detail = why // its master adds what comes of it
			}
			add("is not healthy yet", "are not healthy yet", "the last probe: "+detail, true)
		case status.GetHealth() == corev1.ContainerStatus_STARTING:
			add("has not answered a probe yet", "have not answered a probe yet", why, true)
		default:
			add("starts"+on, "start"+on, why, true)
		}
	case apiv1.Instance_UNHEALTHY:
		add("is not healthy", "are not healthy", why, false)
	case apiv1.Instance_DRAINING:
		role, _ := a.role(report.GetRole())
		add("is taken out of service", "are taken out of service",
			fmt.Sprintf("requests in flight may take another %s", role.GetStop().GetDrain().AsDuration()), true)
	case apiv1.Instance_STOPPING:
		role, _ := a.role(report.GetRole())
		add("is being stopped"+on, "are being stopped"+on, fmt.Sprintf("the grace period is %s", role.GetStop().GetGrace().AsDuration()), true)
	case apiv1.Instance_BACKOFF:
		held := cause{role: report.GetRole(), one: "is held back", many: "are held back", detail: why}
		if next := report.GetNextAttemptAt(); next != nil && next.AsTime().After(z.now) {
			held.until = next.AsTime()
		}
		r.of(name, 1, held)
	case apiv1.Instance_UNREACHABLE:
		add("does not answer", "do not answer", why, false)
	}
}

func (a *app) imageOf(role string) string {
	spec, _ := a.role(role)
	return spec.GetImage()
}

// trouble is one sentence about a node that is not READY.
func (n *node) trouble() string {
	word := strings.ToLower(n.state().String())
	if n.state() == lifecycle.NodeLost {
		return fmt.Sprintf("%s is lost", n.id)
	}
	return because(fmt.Sprintf("%s is %s", n.id, word), n.record.GetReason())
}

// endingReasons are what an app that is stopped or removed waits for.
func (z *Core) endingReasons(a *app, r *reasons) {
	for _, name := range a.instanceNames() {
		if report := a.instances[name].GetReport(); report.GetState() == apiv1.Instance_DRAINING && a.holds(report.GetContainerId()) {
			role, _ := a.role(report.GetRole())
			r.of(name, 1, cause{
				role: report.GetRole(), one: "is taken out of service", many: "are taken out of service", inCourse: true,
				detail: fmt.Sprintf("requests in flight may take another %s", role.GetStop().GetDrain().AsDuration()),
			})
		}
	}
	lost := map[id.Node]bool{}
	for _, c := range sortedContainers(a.containers) {
		if !c.held() {
			continue
		}
		n := z.nodes.get(c.node)
		report := a.instances[c.instance()].GetReport()
		switch {
		case n != nil && n.state() == lifecycle.NodeLost:
			if !lost[n.id] {
				lost[n.id] = true
				r.about(cause{
					detail: fmt.Sprintf("%s is lost and holds %s of it that nobody has seen gone", n.id, countWord(z.nodes.containersOf(n, a), "container")),
					help:   fmt.Sprintf("if it is gone for good, \"mammoth node rm %s\" says so", n.id),
				})
			}
		case report.GetState() == apiv1.Instance_DRAINING && report.GetContainerId() == c.id.String():
		case c.record.GetLease().GetMaster() && len(a.containers)-len(a.ended) > 1:
			// It ends when its instances have.
		default:
			stopping := cause{one: "is being stopped on " + string(c.node), many: "are being stopped on " + string(c.node), role: c.role(), inCourse: true}
			if n != nil && n.state() != lifecycle.NodeReady {
				stopping.detail, stopping.inCourse = n.trouble(), false
			} else if role, ok := a.role(c.role()); ok && !c.record.GetLease().GetMaster() {
				stopping.detail = fmt.Sprintf("the grace period is %s", role.GetStop().GetGrace().AsDuration())
			}
			r.of(c.name(), 1, stopping)
		}
	}
	if z.endpoints.areUnconfirmed(a) {
		r.about(cause{detail: "not every balancer has confirmed that nothing is routed to it any more: " + z.balancers.words(), inCourse: true})
	}
}

// heldOn counts the containers that an app has on a node.
func (ns *nodes) containersOf(n *node, a *app) (count int) {
	for _, c := range n.containers {
		if c.app == a {
			count++
		}
	}
	return count
}

// waitsToLeave gives the reasons why a node that is drained still has containers.
func (z *Core) waitsToLeave(n *node) []*apiv1.Waiting {
	if n.state() != lifecycle.NodeDraining {
		return nil
	}
	var waits []*apiv1.Waiting
	for _, a := range z.nodes.appsOn(n) {
		if len(waits) == mostReasons {
			break
		}
		for _, w := range a.wait.shown {
			waits = append(waits, &apiv1.Waiting{
				Role: w.GetRole(), Text: a.record.GetName() + ": " + w.GetText(), Help: w.GetHelp(), Since: w.GetSince(), Until: w.GetUntil(), Instances: w.GetInstances(),
			})
		}
	}
	return waits
}
