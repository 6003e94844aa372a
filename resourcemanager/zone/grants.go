package zone

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// recoveredHold is a container as it is added to the scheduler after a restart.
func (ls *leases) recoveredHold(c *container) scheduler.Hold {
	lease := c.record.GetLease()
	v, err := ls.units.Vector(lease.GetResources())
	if err != nil {
		ls.Fault("a lease is unreadable", "container", c.id, "error", err)
	}
	return scheduler.Hold{
		Container: c.id, Node: c.node, Resources: v, Ask: lease.GetAskId(), Group: c.record.GetGroup(),
		Master: lease.GetMaster(), StartedAt: lease.GetGrantedAt().AsTime(),
		Duration: c.record.GetDuration().AsDuration(), Gang: c.record.GetGang(), Service: c.record.GetService(),
	}
}

// carryOut carries out what a pass of the scheduler has decided.
func (ls *leases) carryOut(decisions scheduler.Decisions) {
	for _, grant := range decisions.Grants {
		ls.grant(grant)
	}
	// A cancellation comes before the notices: a container may have both in one pass, and then keeps the notice.
	for _, cid := range decisions.Cancelled {
		c := ls.byID[cid]
		if c == nil || !c.held() || c.notice == nil {
			continue
		}
		c.notice = nil
		response := ls.masters.response(c.app)
		response.Preemptions = append(response.Preemptions, &masterv1.PreemptionNotice{ContainerId: c.id.String(), Withdrawn: true})
		ls.emitEvent(c, c.state(), c.state(), fmt.Sprintf("%s may stay: its room is not needed any more", c.name()))
	}
	for _, notice := range decisions.Notices {
		c := ls.byID[notice.Container]
		if c == nil || !c.held() {
			continue
		}
		c.notice = &masterv1.PreemptionNotice{ContainerId: c.id.String(), Deadline: timestamppb.New(notice.Deadline), Reason: notice.Reason}
		response := ls.masters.response(c.app)
		response.Preemptions = append(response.Preemptions, c.notice)
		ls.emitEvent(c, c.state(), c.state(), because(fmt.Sprintf("%s is to be gone by %s", c.name(), notice.Deadline.UTC().Format(time.RFC3339)), notice.Reason))
	}
	for _, stop := range decisions.Stops {
		if c := ls.byID[stop.Container]; c != nil {
			ls.stop(c, corev1.Exit_PREEMPTED, stop.Reason)
		}
	}
}

func (ls *leases) grant(grant scheduler.Grant) {
	a, n := ls.apps.get(grant.Container.App), ls.nodes.get(grant.Node)
	if a == nil || n == nil {
		ls.Fault("the scheduler granted a container to nobody", "container", grant.Container, "node", grant.Node)
		ls.scheduler.apply(scheduler.Release{Container: grant.Container})
		return
	}
	c := &container{id: grant.Container, app: a, node: n.id, record: &storev1.Container{
		Lease: &corev1.Lease{
			ContainerId: grant.Container.String(),
			AppId:       a.id.String(),
			AppName:     a.record.GetName(),
			Attempt:     a.record.GetAttempt().GetNumber(),
			NodeId:      string(n.id),
			Resources:   ls.units.Resources(grant.Resources),
			Queue:       string(grant.Queue),
			AskId:       grant.Ask,
			Master:      grant.Master,
			GrantedAt:   timestamppb.New(ls.now),
			Companion:   a.companion(),
			External:    withoutRoles(a),
		},
		StartBy: timestamppb.New(ls.now.Add(startWithin)), Gang: grant.Gang,
	}}
	state, _ := ls.table.Next(lifecycle.ContainerUnspecified, lifecycle.ContainerGranted)
	c.record.Status = &corev1.ContainerStatus{Lease: c.record.GetLease(), State: corev1.ContainerStatus_State(state)}
	first := !n.hosts(a)
	ls.insert(c)
	ls.emitEvent(c, lifecycle.ContainerUnspecified, state, fmt.Sprintf("%s was given to %s on %s", c.id, a.record.GetName(), n.id))
	if grant.Master {
		ls.attempts.granted(c)
	} else {
		ask := ls.asks.granted(c)
		c.record.Lease.Role = ask.GetRole()
		c.record.Group, c.record.Duration, c.record.Service = ask.GetGroup(), ask.GetDuration(), ask.GetService()
		response := ls.masters.response(a)
		if first { // what its master knows of the node may be from long ago
			response.Nodes = append(response.Nodes, ls.nodes.update(n))
		}
		response.Allocated = append(response.Allocated, ls.allocation(c))
	}
	ls.changed(c)
}

// checkpoint notes that a container has saved its work. One that has ended has nothing to lose.
func (ls *leases) checkpoint(a *app, name string) {
	if c := a.container(name); c != nil && c.held() {
		ls.scheduler.apply(scheduler.Checkpoint{Container: c.id, At: ls.now})
	}
}

// allocation is a held container as its master is sent it.
func (ls *leases) allocation(c *container) *masterv1.Allocation {
	n := ls.nodes.get(c.node)
	allocation := &masterv1.Allocation{
		Lease: c.record.GetLease(),
		Token: ls.keys.Sign(&corev1.TokenClaims{
			Scope: corev1.TokenClaims_CONTAINER, Lease: c.record.GetLease(), NodeId: string(c.node), ExpiresAt: c.record.GetStartBy(),
		}),
		Labels: c.record.GetStatus().GetLabels(),
		WatchToken: ls.keys.Sign(&corev1.TokenClaims{
			Scope: corev1.TokenClaims_APP, AppId: c.app.id.String(), NodeId: string(c.node), ExpiresAt: timestamppb.New(ls.now.Add(watchFor)),
		}),
	}
	if n != nil {
		allocation.ContainerManager = n.record.GetContainerManager()
	}
	return allocation
}
