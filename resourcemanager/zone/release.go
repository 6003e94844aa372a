package zone

import (
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// stopReason is why a container that still runs is stopped, in words: what people or the zone want of the app, or else what its
// master says.
func (a *app) stopReason(c *container, said string) string {
	switch {
	case a.state() == lifecycle.AppRemoving:
		return a.record.GetName() + " is being removed"
	case a.ending():
		return a.record.GetName() + " is being stopped"
	case c.notice != nil:
		return c.notice.GetReason()
	case said != "":
		return said
	}
	return "its application master ended it"
}

// release takes in that a master does not need a container any more: one that is held is stopped, and of one that has ended the master has
// acknowledged the end.
func (ms *masters) release(a *app, release *masterv1.Release) {
	c := a.container(release.GetContainerId())
	if c == nil || c.record.GetLease().GetMaster() {
		return
	}
	if c.held() {
		ms.leases.stop(c, corev1.Exit_STOPPED, a.stopReason(c, release.GetReason()))
		return
	}
	ms.leases.acknowledge(c)
}
