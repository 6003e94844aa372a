package zone

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// rememberedProcesses is how many processes of a node are known whose registrations may still arrive.
const rememberedProcesses = 4

// withProcess are the processes that registered last, with the one of a request as the newest.
func withProcess(known []*storev1.NodeProcess, request *trackerv1.RegisterRequest) []*storev1.NodeProcess {
	all := []*storev1.NodeProcess{{Id: request.GetProcessId(), Registration: request.GetRegistration()}}
	for _, p := range known {
		if p.GetId() != request.GetProcessId() && len(all) < rememberedProcesses {
			all = append(all, p)
		}
	}
	return all
}

// overtaken refuses a registration that arrives after a later one of the same process, with errdefs.ErrAborted. What it says of the node
// is old: containers that were started since would be taken for ended.
func overtaken(n *node, request *trackerv1.RegisterRequest) error {
	for _, p := range n.record.GetProcesses() {
		if p.GetId() == request.GetProcessId() && request.GetRegistration() > 0 && request.GetRegistration() <= p.GetRegistration() {
			return fmt.Errorf("registration %d of %s arrives late: registration %d of the same process was taken already; a NodeManager registers anew by itself: %w",
				request.GetRegistration(), n.id, p.GetRegistration(), errdefs.ErrAborted)
		}
	}
	return nil
}

// twinBeats is how many reports a node may miss before another process on the same folder becomes the node.
const twinBeats = 3

// mayRegister refuses a NodeManager that has the name of another one, with errdefs.ErrAlreadyExists. Until the node is lost, only a
// NodeManager with the same folder may register as it. Of two processes with the same folder, as copied machines have, the one that
// reports is the node. A NodeManager that was restarted has the same folder, and the stream of the process before has ended.
func (ss *sessions) mayRegister(n *node, request *trackerv1.RegisterRequest) error {
	theirs, ours := request.GetFolderId(), n.record.GetFolderId()
	var refusal string
	switch {
	case ours == "" || n.state() == lifecycle.NodeLost:
		return nil
	case theirs != ours:
		refusal = fmt.Sprintf("the NodeManager at %s is %s already, with another folder; give this one a --node-id of its own. "+
			"If it is to replace the other one, stop that one; this one can register once %s is lost, or removed with \"mammoth node rm %s\"",
			n.record.GetAddress(), n.id, n.id, n.id)
	case request.GetProcessId() == n.session.process || !n.connected():
		return nil
	case ss.now.Sub(n.session.heard) > twinBeats*ss.config.ReportInterval:
		return nil
	default:
		refusal = fmt.Sprintf("the NodeManager at %s is %s already, with a copy of this one's folder; stop this one, empty its folder, and give it a --node-id of its own",
			n.record.GetAddress(), n.id)
	}
	ss.reportTwin(n, request, refusal)
	return fmt.Errorf("%s: %w", refusal, errdefs.ErrAlreadyExists)
}

// twinAgain is the least time between two events about the same refused NodeManager.
const twinAgain = time.Hour

// reportTwin emits an event about a NodeManager that was refused, unless the last such event was about the same one and is younger than
// twinAgain.
func (ss *sessions) reportTwin(n *node, request *trackerv1.RegisterRequest, refusal string) {
	twin := request.GetFolderId() + "/" + request.GetAddress()
	if n.session.twin == twin && ss.now.Sub(n.session.twinEventAt) < twinAgain {
		return
	}
	n.session.twin, n.session.twinEventAt = twin, ss.now
	ss.warn("a NodeManager is refused", "node", n.id, "address", request.GetContainerManager(), "error", refusal)
	ss.Emit(&apiv1.Event{
		Kind: "node", Node: string(n.id), From: n.state().String(), To: n.state().String(),
		Message: fmt.Sprintf("a second NodeManager named %s, at %s, is refused: %s", n.id, request.GetContainerManager(), refusal),
	})
}
