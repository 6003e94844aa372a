package zone

import (
	"fmt"
	"strings"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/waiting"
)

// instanceReason adds why an instance that has a container, or needs none yet, is not running.
func (x *explainer) instanceReason(a *app, r *waiting.Reasons, name string, instance *storev1.Instance) {
	report := instance.GetReport()
	c := a.container(report.GetContainerId())
	state, why := report.GetState(), report.GetReason()
	var n *node
	if c != nil {
		n = x.nodes.get(c.node)
		state, why = x.views.seenState(a, c, report)
	}
	on := ""
	if n != nil {
		on = " on " + string(n.id)
	}
	add := func(one, many, detail string, inCourse bool) {
		if n != nil && n.state() != lifecycle.NodeReady {
			detail, inCourse = n.trouble(), false
		}
		r.Of(name, 1, waiting.Cause{Role: report.GetRole(), One: one, Many: many, Detail: detail, Routine: inCourse})
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
			// It is healthy, but not yet for long enough: that ends by itself.
			r.Of(name, 1, waiting.Cause{
				Role: report.GetRole(), One: "does not count yet", Many: "do not count yet", Detail: why, Routine: true, Lasts: report.GetCountsAfter().AsDuration(),
			})
		case detail != "":
			if strings.HasPrefix(why, detail) {
				detail = why // its master adds what will follow
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
		add("is taken out of service", "are taken out of service", why, true)
	case apiv1.Instance_STOPPING:
		add("is being stopped"+on, "are being stopped"+on, c.graceText(), true)
	case apiv1.Instance_BACKOFF:
		held := waiting.Cause{Role: report.GetRole(), One: "is in back-off", Many: "are in back-off", Detail: why}
		if next := report.GetNextAttemptAt(); next != nil && next.AsTime().After(x.now) {
			held.Until = next.AsTime()
		}
		r.Of(name, 1, held)
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

// silence is why a node may not answer; empty if it should.
func (n *node) silence() string {
	if state := n.state(); state == lifecycle.NodeLost || state == lifecycle.NodeUnhealthy {
		return n.trouble()
	}
	return ""
}
