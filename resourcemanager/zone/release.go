package zone

import (
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// releaseReason is why a container that still runs is released, in words: what people or the zone want of the app, or else what its
// master says.
func (a *app) releaseReason(c *container, said string) string {
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

// release has a container stopped that its master does not need any more. Of a container that has ended the master thereby acknowledges
// the end.
func (ms *masters) release(a *app, release *masterv1.Release) {
	c := a.container(release.GetContainerId())
	if c == nil || c.record.GetLease().GetMaster() {
		return
	}
	if c.held() {
		ms.leases.stop(c, corev1.Exit_STOPPED, a.releaseReason(c, release.GetReason()))
		return
	}
	ms.leases.acknowledge(c)
}
