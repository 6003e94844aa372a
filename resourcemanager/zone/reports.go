package zone

import (
	"github.com/mammoth-os/mammoth/internal/id"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// reconcile compares the containers that a node has with its leases, both ways, and returns those that the node is to end.
func (ns *nodes) reconcile(n *node, statuses []*corev1.ContainerStatus) (reap []string) {
	seen := map[id.Container]bool{}
	for _, status := range statuses {
		cid, err := id.ParseContainer(status.GetLease().GetContainerId())
		c := ns.leases.get(cid)
		if err != nil || c == nil || c.node != n.id || (!c.held() && status.GetState() != corev1.ContainerStatus_DONE) {
			if !ns.damage.mayEnd(n, status) {
				continue
			}
			reap = append(reap, status.GetLease().GetContainerId())
			continue
		}
		seen[cid] = true
		ns.leases.observe(c, status)
		if !c.held() {
			reap = append(reap, cid.String()) // its end is stored when the node reads this
		}
	}
	for _, c := range sortedContainers(n.containers) {
		if !seen[c.id] {
			ns.leases.missing(c)
		}
	}
	return reap
}

// openStream begins the stream of commands to a node, with every command that it may have missed.
func (ns *nodes) openStream(session string, stream StreamID) error {
	n := ns.sessions.get(session)
	if n == nil {
		return errRegisterAgain
	}
	ns.sessions.open(n, stream)
	for _, c := range sortedContainers(n.containers) {
		switch {
		case c.record.GetStopping():
			ns.sessions.send(n, c.stopCommand())
		case c.record.GetLease().GetMaster() && c.state() == lifecycle.ContainerNew:
			ns.attempts.launch(c)
		}
	}
	ns.companions.endUnused(n)
	return nil
}

// report takes in what has changed on a node.
func (ns *nodes) report(session string, report *trackerv1.NodeReport) error {
	n := ns.sessions.get(session)
	if n == nil {
		return errRegisterAgain
	}
	changed := false
	if attributes := report.GetAttributes(); attributes != nil {
		n.record.Attributes, changed = attributes, true
	}
	if health := report.GetHealth(); health != nil {
		n.record.Health, changed = health, true
		ns.judgeHealth(n)
	}
	if changed {
		ns.changed(n)
	}
	var forget []string
	for _, status := range report.GetContainers() {
		cid, err := id.ParseContainer(status.GetLease().GetContainerId())
		c := ns.leases.get(cid)
		done := status.GetState() == corev1.ContainerStatus_DONE
		switch {
		case err == nil && c != nil && c.node == n.id && (c.held() || done):
			if status.GetSequence() >= c.record.GetStatus().GetSequence() {
				ns.leases.observe(c, status)
			}
		case !done && ns.damage.mayEnd(n, status):
			ns.sessions.send(n, stopCommand(status.GetLease().GetContainerId(), corev1.Exit_LEASE_ENDED, "the ResourceManager holds no lease for it"))
		}
		if done {
			ns.damage.dropUnknown(n, status.GetLease().GetContainerId())
			forget = append(forget, status.GetLease().GetContainerId())
		}
	}
	if len(forget) > 0 {
		ns.sessions.send(n, &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Forget_{
			Forget: &trackerv1.NodeCommand_Forget{ContainerIds: forget},
		}})
	}
	return nil
}

func (ns *nodes) judgeHealth(n *node) {
	if n.record.GetHealth() == nil || n.record.GetHealth().GetHealthy() {
		ns.move(n, lifecycle.NodeRecovers, "the node is healthy again")
		return
	}
	ns.move(n, lifecycle.NodeFails, n.record.GetHealth().GetReason())
}
