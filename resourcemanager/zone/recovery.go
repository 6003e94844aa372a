package zone

import (
	"errors"

	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
)

// acceptLosses ends the standstill because an operator accepts what was lost. The zone goes on with what it has, and unknown containers
// are ended.
func (z *Core) acceptLosses(who peer.User) (*apiv1.AcceptLossResponse, error) {
	if err := z.access.MayOperate(who, "accept a loss of records"); err != nil {
		return nil, err
	}
	if err := z.restoreQueues(); err != nil {
		return nil, err
	}
	answer := &apiv1.AcceptLossResponse{Losses: z.damage.sentences()}
	z.damage.accept(who)
	for _, a := range z.apps.sorted() {
		z.attempts.heard(a) // its master has waited
	}
	for _, n := range z.nodes.sorted() {
		answer.Ended = append(answer.Ended, z.damage.viewUnknown(n)...)
		for _, name := range z.damage.unknown(n) {
			z.sessions.send(n, stopCommand(name, corev1.Exit_LEASE_ENDED, access.ByWhom(who)+" accepted that the zone has no record of it"))
		}
		if n.connected() {
			z.companions.endUnused(n)
		}
	}
	z.turn.WakeBy(z.turn.now)
	return answer, nil
}

// restoreQueues puts apps and contracts back into queues that were lost and are there again.
func (z *Core) restoreQueues() error {
	var missing []error
	if err := z.lending.Restore(); err != nil {
		missing = append(missing, err)
	}
	for _, a := range z.apps.sorted() {
		if !a.queueLost {
			continue
		}
		if err := z.apps.rejoinQueue(a); err != nil {
			missing = append(missing, err)
			continue
		}
		for _, c := range sortedContainers(a.containers) {
			if c.held() {
				z.scheduler.apply(z.leases.recoveredHold(c))
			}
		}
		z.attempts.resubmit(a)
	}
	return errors.Join(missing...)
}
