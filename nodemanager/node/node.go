// Package node decides for all containers of one node: which starts are admitted, what follows from the ResourceManager's commands,
// what is reported to it, and which of an engine's containers have no record. Package container decides what one container does next.
//
// It is pure: facts go in with the time, and Take returns what is to be done as values. Its owner performs them in this order: do,
// store, publish.
//
// A Node owns the entries of all containers, with their leases, specs and deadlines.
package node

import (
	"container/heap"
	"maps"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/token"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// Settings are what does not change while a NodeManager runs.
type Settings struct {
	// ID is the node's name, Address where its instances are reached.
	ID, Address string
	// Runtimes are those that the node has.
	Runtimes []corev1.ContainerSpec_Runtime
	Schema   resource.Schema
	// HostNetwork allows containers the host's network.
	HostNetwork bool
	Machine     container.Machine
}

// Node is the state of a node. It belongs to one goroutine.
type Node struct {
	settings   Settings
	containers map[id.Container]*Entry
	now        time.Time
	keys       []token.Key
	health     *corev1.NodeHealth
	// deadlines has the deadline of every container that has one, and some deadlines that are out of date.
	deadlines deadlines
	out       Out
}

// Entry is one container: its state, and what is needed to run it.
type Entry struct {
	// Core is the container's state machine.
	Core *container.Container
	// Lease is the right to the container, from its token.
	Lease *corev1.Lease
	// Spec is what it runs. After its removal only Runtime and Labels are kept.
	Spec *corev1.ContainerSpec
	// at is its deadline; zero if it has none.
	at time.Time
	// recordPending is true until its first record is durable: only then does the container survive a restart.
	recordPending bool
	// removePending is true while the record of its end is not durable. The container is removed from its engine after that: a
	// NodeManager that found neither a container nor a record of its end would start it again.
	removePending bool
	// lastTrouble is the last logged error of its clean-up, which is logged once.
	lastTrouble string
	// found is true if its engine had it and no record of it existed. Who started it is unknown.
	found bool
}

// RecordPending reports whether its first record is not durable yet.
func (h *Entry) RecordPending() bool { return h.recordPending }

// Out is what is to be done, in the order in which it was decided. Records and Changes have each container at most once.
type Out struct {
	Do []Do
	// Records are the containers to be stored.
	Records []Record
	// Changes are the containers whose status is to be published to all watchers.
	Changes []Change
	// Notes are for the log.
	Notes []Note
}

// Do is an effect of package container that an edge performs, or a Drop.
type Do struct {
	container.Effect
	Entry *Entry
}

// Record is a container to be stored. If it is Awaited, the owner calls Recorded afterwards.
type Record struct {
	Entry   *Entry
	Awaited bool
}

// Change is a status to be published. The ResourceManager is not sent a status whose end it has acknowledged, unless Again is set:
// it asked for it again.
type Change struct {
	Entry  *Entry
	Status *corev1.ContainerStatus
	Again  bool
}

// Note is something for the log. State is set if the container has changed its state.
type Note struct {
	Entry *Entry
	Text  string
	State string
	// Error and Reason may be empty.
	Error, Reason string
	Warning       bool
}

// New returns a node without containers.
func New(settings Settings) *Node {
	return &Node{settings: settings, containers: map[id.Container]*Entry{}, health: &corev1.NodeHealth{Healthy: true}}
}

// Begin sets the time for all that follows.
func (n *Node) Begin(now time.Time) { n.now = now }

// Take returns what is to be done since the last Take.
func (n *Node) Take() Out {
	for i, change := range n.out.Changes {
		n.out.Changes[i].Status = change.Entry.status(n.settings.Address)
	}
	out := n.out
	n.out = Out{}
	return out
}

// Recover takes over the stored containers.
func (n *Node) Recover(records []*Entry) {
	for _, h := range records {
		n.containers[h.Core.ID] = h
	}
	for _, h := range n.All() {
		n.perform(h, n.settings.Machine.Recover(n.now, h.Core))
	}
}

// Container is one of the node's; nil if it has none of that id.
func (n *Node) Container(key id.Container) *Entry { return n.containers[key] }

// All are the node's containers, in the order of their ids.
func (n *Node) All() []*Entry {
	return slices.SortedFunc(maps.Values(n.containers), func(a, b *Entry) int { return a.Core.ID.Compare(b.Core.ID) })
}

// Tick applies deadlines that have passed and returns the next one; zero if there is none. It does not look at containers with a
// later deadline, since a node keeps ended containers for a day.
func (n *Node) Tick() time.Time {
	var due []*Entry
	for len(n.deadlines) > 0 {
		first := n.deadlines[0]
		stale := n.containers[first.entry.Core.ID] != first.entry || !first.entry.at.Equal(first.at)
		if !stale && first.at.After(n.now) {
			break
		}
		heap.Pop(&n.deadlines)
		if !stale {
			first.entry.at = time.Time{}
			due = append(due, first.entry)
		}
	}
	slices.SortFunc(due, func(a, b *Entry) int { return a.Core.ID.Compare(b.Core.ID) })
	for _, h := range due {
		n.step(h, func() []container.Effect { return n.settings.Machine.Tick(n.now, h.Core) })
	}
	if len(n.deadlines) == 0 {
		return time.Time{}
	}
	return n.deadlines[0].at
}

// await updates the deadline of a container.
func (n *Node) await(h *Entry) {
	at := n.settings.Machine.Deadline(h.Core)
	if at.Equal(h.at) {
		return
	}
	h.at = at
	if !at.IsZero() {
		heap.Push(&n.deadlines, deadline{at, h})
	}
}

// deadline is the deadline of a container. It is out of date if the container has another one by now.
type deadline struct {
	at    time.Time
	entry *Entry
}

// deadlines are a heap by time.
type deadlines []deadline

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deadlines) Push(x any)        { *d = append(*d, x.(deadline)) }
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	*d = (*d)[:last]
	return x
}

// Fact applies what has happened to a container, if the node still has it.
func (n *Node) Fact(key id.Container, fact container.Fact) {
	if h := n.containers[key]; h != nil {
		n.apply(h, fact)
	}
}

// Recorded answers an awaited Record. failure is empty if the record is durable, else the reason, in one sentence.
func (n *Node) Recorded(key id.Container, failure string) {
	h := n.containers[key]
	if h == nil {
		return
	}
	if h.removePending && !h.recordPending {
		h.removePending = false
		if failure != "" {
			n.apply(h, container.Fact{Event: container.RemoveFailed, Detail: failure})
			return
		}
		n.out.Do = append(n.out.Do, Do{container.Effect{Kind: container.Remove}, h})
		return
	}
	h.recordPending = false
	if failure != "" {
		n.apply(h, container.Fact{Event: container.RecordFailed, Detail: failure})
		return
	}
	n.apply(h, container.Fact{Event: container.Recorded})
}

func (n *Node) apply(h *Entry, fact container.Fact) {
	if h.Core.State == container.Done {
		switch fact.Event {
		case container.RemoveFailed, container.PurgeFailed, container.StopFailed:
			n.warnOnce(h, "an ended container could not be cleaned up", fact.Detail)
		case container.RemoveRefused:
			n.warnOnce(h, h.strayMessage(), "")
		}
	}
	n.step(h, func() []container.Effect { return n.settings.Machine.Apply(n.now, h.Core, fact) })
}

// strayMessage is logged once for a container that runs although its record says that it has ended, or that has no record.
func (h *Entry) strayMessage() string {
	if h.found {
		return "a container that was found without a record still runs; it is stopped"
	}
	return "an ended container was started again from outside; it is stopped"
}

// warnOnce logs an error about an ended container unless it was the last one logged.
func (n *Node) warnOnce(h *Entry, message, trouble string) {
	if h.lastTrouble == message+trouble {
		return
	}
	h.lastTrouble = message + trouble
	n.note(Note{Entry: h, Text: message, Error: trouble, Warning: true})
}

func (n *Node) note(note Note) { n.out.Notes = append(n.out.Notes, note) }

func (n *Node) step(h *Entry, decide func() []container.Effect) {
	before := h.Core.State
	effects := decide()
	if after := h.Core.State; after != before {
		n.note(Note{Entry: h, Text: "container changed state", State: after.String(), Reason: h.Core.Reason})
	}
	n.perform(h, effects)
	if h.Core.Removed {
		h.shrink()
	}
}

// shrink drops what an ended container does not need for its logs and its id.
func (h *Entry) shrink() {
	h.Spec = &corev1.ContainerSpec{Runtime: h.Spec.GetRuntime(), Labels: h.Spec.GetLabels()}
}

func (n *Node) perform(h *Entry, effects []container.Effect) {
	n.await(h)
	for _, effect := range effects {
		switch effect.Kind {
		case container.Record:
			h.recordPending = true
			n.write(h, true)
		case container.Remove:
			h.removePending = true
			n.write(h, true)
		case container.Save:
			n.write(h, false)
		case container.Publish:
			n.change(h, false)
		case container.Drop:
			delete(n.containers, h.Core.ID)
			n.out.Records = slices.DeleteFunc(n.out.Records, func(r Record) bool { return r.Entry == h })
			n.out.Changes = slices.DeleteFunc(n.out.Changes, func(c Change) bool { return c.Entry == h })
			n.out.Do = append(n.out.Do, Do{effect, h})
		case container.StopProcess:
			if h.Core.State == container.Done {
				n.warnOnce(h, h.strayMessage(), "")
			}
			n.out.Do = append(n.out.Do, Do{effect, h})
		default:
			n.out.Do = append(n.out.Do, Do{effect, h})
		}
	}
}

// write queues the record of a container. With awaited, Recorded is to be called once it is stored.
func (n *Node) write(h *Entry, awaited bool) {
	for i := range n.out.Records {
		if n.out.Records[i].Entry == h {
			n.out.Records[i].Awaited = n.out.Records[i].Awaited || awaited
			return
		}
	}
	n.out.Records = append(n.out.Records, Record{h, awaited})
}

func (n *Node) change(h *Entry, again bool) {
	for i := range n.out.Changes {
		if n.out.Changes[i].Entry == h {
			n.out.Changes[i].Again = n.out.Changes[i].Again || again
			return
		}
	}
	n.out.Changes = append(n.out.Changes, Change{Entry: h, Again: again})
}

// Statuses are those of every container whose end is not acknowledged.
func (n *Node) Statuses(wants func(*corev1.ContainerStatus) bool) []*corev1.ContainerStatus {
	var statuses []*corev1.ContainerStatus
	for _, h := range n.All() {
		if h.Core.State == container.Done && h.Core.EndAcknowledged {
			continue
		}
		if status := h.status(n.settings.Address); wants(status) {
			statuses = append(statuses, status)
		}
	}
	return statuses
}

// Status is the message about a container.
func (n *Node) Status(h *Entry) *corev1.ContainerStatus { return h.status(n.settings.Address) }

// Health is the node's health.
func (n *Node) Health() *corev1.NodeHealth { return n.health }

// SetHealth records what is wrong with the node, empty if nothing is, and reports whether that has changed.
func (n *Node) SetHealth(reason string) bool {
	if n.health.GetReason() == reason && n.health.GetSince() != nil {
		return false
	}
	n.health = &corev1.NodeHealth{Healthy: reason == "", Reason: reason, Since: timeMessage(n.now)}
	return true
}

// Trust replaces the keys that verify tokens.
func (n *Node) Trust(keys []*trackerv1.TokenKey) {
	n.keys = n.keys[:0]
	for _, key := range keys {
		n.keys = append(n.keys, token.Key{ID: key.GetId(), Secret: slices.Clone(key.GetSecret())})
	}
}
