package zone

import (
	"fmt"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
)

// published is an app as its endpoints see it.
type published struct{ *app }

func (p published) Name() string { return p.record.GetName() }

func (p published) Spec() *apiv1.AppSpec { return p.record.GetSpec() }

func (p published) Removed() bool { return p.removed }

func (p published) Instances() map[string]*storev1.Instance { return p.instances }

func (p published) Names() []string { return p.instanceNames() }

func (p published) Container(name string) (endpoints.Container, bool) {
	c := p.container(name)
	if c == nil {
		return endpoints.Container{}, false
	}
	return endpoints.Container{Node: c.node, Status: c.record.GetStatus(), Stopping: c.record.GetStopping()}, true
}

// Node is a node as endpoints see it; ok is false if there is none of that name.
func (ns *nodes) Node(name id.Node) (seen endpoints.Node, ok bool) {
	n := ns.get(name)
	if n == nil {
		return endpoints.Node{}, false
	}
	return endpoints.Node{State: n.state(), Registered: n.registered(), Address: n.record.GetAddress()}, true
}

// confirmed does what follows from the confirmation that was asked for under a number.
func (z *Core) confirmed(number int64) {
	then, ok := z.endpoints.Confirmed(number)
	a := z.apps.get(then.App)
	switch {
	case !ok || a == nil:
	case then.StopsAll:
		for _, c := range sortedContainers(a.containers) {
			if !c.record.GetLease().GetMaster() {
				z.leases.stop(c, corev1.Exit_STOPPED, fmt.Sprintf("%s is ended without an application master", a.record.GetName()))
			}
		}
	case then.Status != nil:
		z.versions.confirmed(a, then.Status, then.Report)
	case a.instances[then.Withdrawn] != nil:
		response := z.masters.response(a)
		response.Withdrawn = append(response.Withdrawn, then.Withdrawn)
	}
}
