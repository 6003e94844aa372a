package zone

import (
	"fmt"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// releaseReason is why a master releases a container that still runs, in words: the change of the app or of its node that the master
// follows.
func (ms *masters) releaseReason(a *app, c *container) string {
	name := a.record.GetName()
	replaced := ms.rollouts.replacedBecause(c)
	restart := a.record.GetRestartBefore()
	switch n := ms.nodes.get(c.node); {
	case a.state() == lifecycle.AppRemoving:
		return name + " is being removed"
	case a.ending():
		return name + " is being stopped"
	case c.notice != nil:
		return c.notice.GetReason()
	case replaced != "":
		return replaced
	case restart != nil && c.record.GetStatus().GetStartedAt().AsTime().Before(restart.AsTime()):
		return name + " is being restarted"
	case n != nil && n.record.GetDrain():
		return fmt.Sprintf("%s is being drained", n.id)
	case c.record.GetStatus().GetHealth() == corev1.ContainerStatus_UNHEALTHY:
		return because("it was unhealthy", c.record.GetStatus().GetHealthDetail())
	case c.instance() == "":
		return "no instance needs it any more"
	case a.heldInstances() > int(ms.desired.count(a)):
		return fmt.Sprintf("%s is scaled down to %s", name, countWord(int(ms.desired.count(a)), "instance"))
	}
	return "its application master ended it"
}

func (a *app) heldInstances() int {
	n := 0
	for _, c := range a.containers {
		if c.held() && !c.record.GetLease().GetMaster() {
			n++
		}
	}
	return n
}

// release has a container stopped that its master does not need any more. Of a container that has ended the master thereby acknowledges
// the end.
func (ms *masters) release(a *app, name string) {
	c := a.container(name)
	if c == nil || c.record.GetLease().GetMaster() {
		return
	}
	if c.held() {
		ms.leases.stop(c, corev1.Exit_STOPPED, ms.releaseReason(a, c))
		return
	}
	ms.leases.acknowledge(c)
}
