package driver

import (
	"time"

	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// reportTimeout is how long a new master waits for the nodes to report the containers that it took over.
const reportTimeout = 3 * time.Second

// takeover owns what a new master waits for before it decides anything, and the containers that belong to nobody until then.
type takeover struct {
	// missing are the nodes whose first report of the taken-over containers has not come; "" stands for the ResourceManager's. It is
	// nil once all have come, or deadline has passed.
	missing  map[string]bool
	deadline time.Time
	// unclaimed are containers that were granted to an earlier master and that it may not have started.
	unclaimed []*masterv1.Allocation
}

func (t *takeover) begin(now time.Time) {
	t.missing, t.deadline = map[string]bool{"": true}, now.Add(reportTimeout)
}

// await waits for a node's report too.
func (t *takeover) await(node string) { t.missing[node] = true }

// reported records that a node has reported, or is lost; "" is the ResourceManager.
func (t *takeover) reported(node string) { delete(t.missing, node) }

// underWay reports whether nothing may be decided yet.
func (t *takeover) underWay() bool { return t.missing != nil }

// until is when it is over at the latest.
func (t *takeover) until() time.Time { return t.deadline }

// hold keeps a container of which is not known yet whether it was started.
func (t *takeover) hold(allocation *masterv1.Allocation) {
	t.unclaimed = append(t.unclaimed, allocation)
}

// end ends the take-over if all have reported or the time has passed. It returns the containers that were held and how many nodes have
// not reported; over is false if the take-over goes on.
func (t *takeover) end(now time.Time) (unclaimed []*masterv1.Allocation, silent int, over bool) {
	if len(t.missing) > 0 && now.Before(t.deadline) {
		return nil, 0, false
	}
	unclaimed, silent = t.unclaimed, len(t.missing)
	t.missing, t.unclaimed = nil, nil
	return unclaimed, silent, true
}
