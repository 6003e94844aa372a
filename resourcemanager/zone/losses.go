package zone

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// What is granted is stored before anybody is told, so a container without a record is one that has ended, and its node is told
// to end it. That holds as long as no record is missing. A zone that has lost some stands still until an operator accepts the
// loss: nodes register and report, people may look and say anew what they want, but no lease is granted or taken back, masters
// wait as if the ResourceManager were away, and containers without a record go on running.

// standsStill reports whether records were lost and nobody has accepted it yet.
func (z *Core) standsStill() bool { return len(z.losses) > 0 }

func (z *Core) loadLosses(stored Records) error {
	return stored.Load(store.Losses, func(key string, value []byte) error {
		z.losses = append(z.losses, loss{key, strings.Split(string(value), "\n")})
		z.warn("records of the zone were lost; it stands still until \"mammoth store accept\"", "lost", string(value))
		return nil
	})
}

// loss is what is known of records that were lost at one time.
type loss struct {
	key       string
	sentences []string
}

// tolerate is nil for an error that comes of records that are missing.
func (z *Core) tolerate(err error) error {
	if err != nil && z.standsStill() {
		z.warn("a record refers to one that was lost", "error", err)
		return nil
	}
	return err
}

// noteLoss has the zone stand still from now on, whatever happens to this process.
func (z *Core) noteLoss(sentence string) {
	put := store.NoteLoss(z.now, []string{sentence})
	if slices.ContainsFunc(z.losses, func(l loss) bool { return l.key == put.Key || slices.Contains(l.sentences, sentence) }) {
		return
	}
	z.losses = append(z.losses, loss{put.Key, []string{sentence}})
	z.raw = append(z.raw, put)
	z.tell(&apiv1.Event{Kind: "zone", To: "RECORDS_LOST", Message: sentence + "; the zone stands still until \"mammoth store accept\""})
}

// hasEnded reports whether a container that there is no record of must have ended, as the zone knows. Otherwise it is kept, and
// shown with its node.
func (z *Core) hasEnded(n *node, status *corev1.ContainerStatus) bool {
	cid, err := id.ParseContainer(status.GetLease().GetContainerId())
	if err != nil || status.GetState() == corev1.ContainerStatus_DONE {
		return true
	}
	if _, known := z.containers[cid]; known {
		return true // its record says so
	}
	since := status.GetLease().GetGrantedAt()
	if since == nil {
		since = status.GetStartedAt()
	}
	switch {
	case cid.App.ClusterStart != z.config.identity.ClusterStart.UnixMilli():
		// It is of another zone, or of this one before its store was lost whole.
	case cid.Epoch > z.config.identity.Epoch,
		cid.Epoch < z.config.identity.Epoch && since != nil && since.AsTime().After(z.config.identity.LastCommit):
		z.noteLoss(fmt.Sprintf("%s runs %s, which is younger than anything that the store knew when it was opened: the store is an older copy", n.id, cid))
	case !z.standsStill():
		return true
	}
	if cid.App.ClusterStart == z.config.identity.ClusterStart.UnixMilli() {
		z.apps.usedID(cid.App.Seq) // so that no other app is given its number
	}
	z.keepUnknown(n, status)
	return false
}

func (z *Core) keepUnknown(n *node, status *corev1.ContainerStatus) {
	name := status.GetLease().GetContainerId()
	if n.unknown == nil {
		n.unknown = map[string]*corev1.ContainerStatus{}
	}
	if n.unknown[name] == nil {
		z.tell(&apiv1.Event{
			Kind: "container", App: status.GetLease().GetAppName(), Container: name, Node: string(n.id), To: status.GetState().String(),
			Message: fmt.Sprintf("%s runs %s, of which the zone has no record; it goes on running until \"mammoth store accept\"", n.id, name),
		})
	}
	n.unknown[name] = status
	if n.shown {
		z.showNode(n)
	}
}

// dropUnknown is about a container that its node has seen gone.
func (z *Core) dropUnknown(n *node, name string) {
	if n.unknown[name] != nil {
		delete(n.unknown, name)
		z.showNode(n)
	}
}

// heldByUnknown is what containers without a record use of a node.
func (z *Core) heldByUnknown(n *node) resource.Vector {
	var sum resource.Vector
	for _, status := range n.unknown {
		if v, err := z.units.vector(status.GetLease().GetResources()); err == nil {
			sum = sum.Add(v)
		}
	}
	return sum
}

// acceptLosses is an operator's word that what was lost is lost: the zone goes on with what it has, and containers without a
// record are ended.
func (z *Core) acceptLosses(who peer.User) (*apiv1.AcceptLossResponse, error) {
	if err := z.access.MayOperate(who, "accept a loss of records"); err != nil {
		return nil, err
	}
	if err := z.house(); err != nil {
		return nil, err
	}
	answer := &apiv1.AcceptLossResponse{Losses: z.lossSentences()}
	for _, l := range z.losses {
		z.raw = append(z.raw, store.Put{Kind: store.Losses, Key: l.key})
	}
	if z.standsStill() {
		z.tell(&apiv1.Event{Kind: "zone", From: "RECORDS_LOST", Message: access.ByWhom(who) + " accepted the loss of records; the zone goes on"})
	}
	z.losses = nil
	for _, a := range z.apps.sorted() {
		a.silentSince = z.now // its master has waited
	}
	for _, n := range z.sortedNodes() {
		answer.Ended = append(answer.Ended, z.viewUnknown(n)...)
		for _, name := range sortedKeys(n.unknown) {
			z.command(n, stopCommand(name, corev1.Exit_LEASE_ENDED, access.ByWhom(who)+" accepted that the zone has no record of it"))
		}
		if n.stream != 0 {
			z.checkPlaces(n)
		}
	}
	z.at(z.now)
	return answer, nil
}

func (z *Core) lossSentences() []string {
	var sentences []string
	for _, l := range z.losses {
		sentences = append(sentences, l.sentences...)
	}
	return sentences
}

// goBack is about an app whose present version was lost: the newest one that is there counts, and without any the app is one whose
// record was lost.
func (z *Core) goBack(a *app) {
	versions := a.record.GetVersions()
	if len(versions) == 0 {
		z.apps.remove(a)
		z.forget(kindApp, a.id.String())
		return
	}
	newest := versions[len(versions)-1]
	newest.Current = true
	a.record.Version, a.record.Spec = newest.GetVersion(), newest.GetSpec()
	z.save(kindApp, a.id.String(), a.record)
}

// house gives apps a place in the scheduler, and contracts, whose queue was lost and is there again.
func (z *Core) house() error {
	var missing []error
	if z.shares.unarranged != nil {
		if err := z.shares.arrange(z.shares.unarranged); err != nil {
			missing = append(missing, fmt.Errorf("the lending contracts have no queues: %w; set the queue tree first, as it was before, with \"mammoth queue set\": %w", err, errdefs.ErrFailedPrecondition))
		} else {
			z.shares.unarranged = nil
		}
	}
	for _, a := range z.apps.sorted() {
		if !a.homeless {
			continue
		}
		if err := z.scheduler.Apply(a.recovered()); err != nil {
			missing = append(missing, fmt.Errorf("%s has no place: %w; set the queue tree first, as it was before, with \"mammoth queue set\": %w", a.record.GetName(), err, errdefs.ErrFailedPrecondition))
			continue
		}
		a.homeless = false
		for _, c := range sortedContainers(a.containers) {
			if c.held() {
				z.scheduler.apply(z.holdInput(c))
			}
		}
		z.askAgain(a)
	}
	return errors.Join(missing...)
}

// viewUnknown are the containers of a node that the zone has no record of.
func (z *Core) viewUnknown(n *node) []*apiv1.NodeContainer {
	var views []*apiv1.NodeContainer
	for _, name := range sortedKeys(n.unknown) {
		status := n.unknown[name]
		views = append(views, &apiv1.NodeContainer{
			Id: name, App: status.GetLease().GetAppName(), Instance: status.GetLabels()["instance"],
			State: status.GetState().String(), Resources: status.GetLease().GetResources(),
		})
	}
	return views
}
