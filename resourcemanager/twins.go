package resourcemanager

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// twinBeats is how many beats a node may miss before another process on its folder is taken for it.
const twinBeats = 3

// mayRegister refuses a NodeManager that has the name of another one. Which of two is the node is decided by the folder that the first
// keeps its state in, for as long as it is not lost; of two processes on one folder, as copied machines have it, the one that beats is
// the node. A node that was started again has the folder, and its stream has ended with the process before.
func (z *zone) mayRegister(n *node, request *trackerv1.RegisterRequest) error {
	theirs, ours := request.GetFolderId(), n.record.GetFolderId()
	var refusal string
	switch {
	case ours == "" || n.state() == lifecycle.NodeLost:
		return nil
	case theirs != ours:
		refusal = fmt.Sprintf("a NodeManager at %s is %s already, with another folder; give this one a --node-id of its own. "+
			"If it takes the place of the other for good, stop that one: it is taken once %s is lost, or removed with \"mammoth node rm %s\"",
			n.record.GetAddress(), n.id, n.id, n.id)
	case request.GetProcessId() == n.process || n.stream == nil:
		return nil
	case z.now.Sub(n.heard()) > twinBeats*z.config.ReportInterval:
		return nil
	default:
		refusal = fmt.Sprintf("a NodeManager at %s is %s already, with a copy of this one's folder; stop this one, empty its folder, and give it a --node-id of its own",
			n.record.GetAddress(), n.id)
	}
	z.tellTwin(n, request, refusal)
	return fmt.Errorf("%s: %w", refusal, errdefs.ErrAlreadyExists)
}

// twinAgain is how long after it was told of another NodeManager of a node's name people are told of the same one again.
const twinAgain = time.Hour

// tellTwin tells people of a NodeManager that was refused, once for each.
func (z *zone) tellTwin(n *node, request *trackerv1.RegisterRequest, refusal string) {
	twin := request.GetFolderId() + "/" + request.GetAddress()
	if n.twin == twin && z.now.Sub(n.twinTold) < twinAgain {
		return
	}
	n.twin, n.twinTold = twin, z.now
	z.log.Warn("a NodeManager is refused", "node", n.id, "address", request.GetContainerManager(), "error", refusal)
	z.tell(&apiv1.Event{
		Kind: "node", Node: string(n.id), From: n.state().String(), To: n.state().String(),
		Message: fmt.Sprintf("a second NodeManager named %s, at %s, is refused: %s", n.id, request.GetContainerManager(), refusal),
	})
}
