package zone

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// A grant is stored before anybody is sent it, so a container without a record has ended, and its node is sent the command to end it.
// That is true as long as no record is missing. A zone that has lost some stands still until an operator accepts the loss: nodes
// register and report, people may look and set queues and specs again, but no lease is granted or taken back, masters wait as if the
// ResourceManager were away, and containers without a record go on running.

// damage is what is wrong with the store: records that were lost, and a disk that is full. The zone stands still while a loss is not accepted;
// an unknown container runs on a node and has no record.
type damage struct {
	*turn
	config *config
	units  *units
	apps   *apps
	nodes  *nodes
	leases *leases
	views  *views
	// losses are records that were lost, and that nobody has accepted yet.
	losses []loss
	// full is why the store takes nothing that grows; empty if it has room.
	full string
}

// standsStill reports whether records were lost and nobody has accepted it yet.
func (d *damage) standsStill() bool { return len(d.losses) > 0 }

func (d *damage) load(stored Records) error {
	return stored.Load(store.Losses, func(key string, value []byte) error {
		d.losses = append(d.losses, loss{key, strings.Split(string(value), "\n")})
		d.warn("records of the zone were lost; it stands still until \"mammoth store accept\"", "lost", string(value))
		return nil
	})
}

// tolerate is nil for an error that comes of records that are missing.
func (d *damage) tolerate(err error) error {
	if err != nil && d.standsStill() {
		d.warn("a record refers to one that was lost", "error", err)
		return nil
	}
	return err
}

// noteLoss has the zone stand still from now on, whatever happens to this process.
func (d *damage) noteLoss(sentence string) {
	put := store.NoteLoss(d.now, []string{sentence})
	if slices.ContainsFunc(d.losses, func(l loss) bool { return l.key == put.Key || slices.Contains(l.sentences, sentence) }) {
		return
	}
	d.losses = append(d.losses, loss{put.Key, []string{sentence}})
	d.raw = append(d.raw, put)
	d.Emit(&apiv1.Event{Kind: "zone", To: "RECORDS_LOST", Message: sentence + "; the zone stands still until \"mammoth store accept\""})
}

// mayEnd decides whether a container without a record may be ended on the node that runs it, as one that is known to be over. Otherwise it
// becomes an unknown container of the node. A container that shows that the store is an older copy is a loss.
func (d *damage) mayEnd(n *node, status *corev1.ContainerStatus) bool {
	cid, err := id.ParseContainer(status.GetLease().GetContainerId())
	if err != nil || status.GetState() == corev1.ContainerStatus_DONE {
		return true
	}
	if d.leases.get(cid) != nil {
		return true // its record says so
	}
	since := status.GetLease().GetGrantedAt()
	if since == nil {
		since = status.GetStartedAt()
	}
	switch {
	case cid.App.ClusterStart != d.config.identity.ClusterStart.UnixMilli():
		// It is of another zone, or of this one before its store was lost whole.
	case cid.Epoch > d.config.identity.Epoch,
		cid.Epoch < d.config.identity.Epoch && since != nil && since.AsTime().After(d.config.identity.LastCommit):
		d.noteLoss(fmt.Sprintf("%s runs %s, which is younger than anything that the store knew when it was opened: the store is an older copy", n.id, cid))
	case !d.standsStill():
		return true
	}
	if cid.App.ClusterStart == d.config.identity.ClusterStart.UnixMilli() {
		d.apps.usedID(cid.App.Seq) // so that no other app is given its number
	}
	d.addUnknown(n, status)
	return false
}

func (d *damage) addUnknown(n *node, status *corev1.ContainerStatus) {
	name := status.GetLease().GetContainerId()
	if n.unknown == nil {
		n.unknown = map[string]*corev1.ContainerStatus{}
	}
	if n.unknown[name] == nil {
		d.Emit(&apiv1.Event{
			Kind: "container", App: status.GetLease().GetAppName(), Container: name, Node: string(n.id), To: status.GetState().String(),
			Message: fmt.Sprintf("%s runs %s, of which the zone has no record; it goes on running until \"mammoth store accept\"", n.id, name),
		})
	}
	n.unknown[name] = status
	d.views.nodeChanged(n.id)
	if n.inScheduler {
		d.nodes.updateScheduler(n)
	}
}

// dropUnknown forgets an unknown container that its node has seen gone.
func (d *damage) dropUnknown(n *node, name string) {
	if n.unknown[name] != nil {
		delete(n.unknown, name)
		d.views.nodeChanged(n.id)
		d.nodes.updateScheduler(n)
	}
}

// usedByUnknown is what unknown containers use of a node.
func (d *damage) usedByUnknown(n *node) resource.Vector {
	var sum resource.Vector
	for _, status := range n.unknown {
		if v, err := d.units.Vector(status.GetLease().GetResources()); err == nil {
			sum = sum.Add(v)
		}
	}
	return sum
}

// accept ends the standstill.
func (d *damage) accept(who peer.User) {
	for _, l := range d.losses {
		d.raw = append(d.raw, store.Put{Kind: store.Losses, Key: l.key})
	}
	if d.standsStill() {
		d.Emit(&apiv1.Event{Kind: "zone", From: "RECORDS_LOST", Message: access.ByWhom(who) + " accepted the loss of records; the zone goes on"})
	}
	d.losses = nil
}

func (d *damage) count() int { return len(d.losses) }

// isFull reports whether the store takes nothing that grows.
func (d *damage) isFull() bool { return d.full != "" }

// fullBecause is why the store takes nothing that grows; empty if it has room.
func (d *damage) fullBecause() string { return d.full }

// unknown are the names of the unknown containers of a node.
func (d *damage) unknown(n *node) []string { return id.SortedKeys(n.unknown) }

func (d *damage) hasUnknown(n *node) bool { return len(n.unknown) > 0 }

func (d *damage) forgetUnknown(n *node) { n.unknown = nil }

func (d *damage) sentences() []string {
	var sentences []string
	for _, l := range d.losses {
		sentences = append(sentences, l.sentences...)
	}
	return sentences
}

// viewUnknown are the unknown containers of a node as people see them.
func (d *damage) viewUnknown(n *node) []*apiv1.NodeContainer {
	var views []*apiv1.NodeContainer
	for _, name := range id.SortedKeys(n.unknown) {
		status := n.unknown[name]
		views = append(views, &apiv1.NodeContainer{
			Id: name, App: status.GetLease().GetAppName(), Instance: status.GetLabels()["instance"],
			State: status.GetState().String(), Resources: status.GetLease().GetResources(),
		})
	}
	return views
}

// loss is what is known of records that were lost at one time.
type loss struct {
	key       string
	sentences []string
}

// roomChanged notes that the disk is full, or is not any more.
func (d *damage) roomChanged(full string) {
	event := &apiv1.Event{Kind: "zone", From: "DISK_FULL", Message: "the disk of the ResourceManager has room again"}
	d.full = full
	if full != "" {
		event = &apiv1.Event{Kind: "zone", To: "DISK_FULL", Message: d.full}
	}
	d.Emit(event)
}
