package appmaster

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// Outbox holds what is to be sent to the ResourceManager. Incomplete asks, and reports, are absolute: they are sent again on every new
// stream. Releases, gone instances, checkpoints, memos, notes, revisions and answers to commands are kept until they are acknowledged.
//
// What can be acknowledged has the sequence number of the request that carried it on the present stream; zero if it was not sent on it.
// The methods do not wait, and may be called from any goroutine.
type Outbox struct {
	mu sync.Mutex
	// wake holds a token while there may be something to send.
	wake chan struct{}
	// sequence is that of the newest request on the present stream.
	sequence  int64
	firstSent bool

	// lastOrder is the order of the newest ask. Asks are granted in the order in which the master made them.
	lastOrder int64
	asks      map[string]*askEntry
	releases  map[string]*entry[*masterv1.Release]
	instances map[string]*instanceEntry
	forgotten map[string]int64
	// saved are the containers with a new checkpoint.
	saved  map[string]int64
	status entry[*apiv1.MasterStatus]
	revise entry[*masterv1.Revise]
	// notes are those on versions, by their numbers.
	notes map[int32]*entry[*masterv1.VersionNote]
	memo  entry[[]byte]
	// traffic is true if the master wants Traffic events.
	traffic entry[bool]
	// answers are those to commands, in the order in which they were given.
	answers []*answerEntry
	// generation is the newest generation that was acted upon.
	generation entry[int64]
}

type askEntry struct {
	ask      *masterv1.Ask
	order    int64
	granted  int32
	sequence int64
}

type instanceEntry struct {
	report *masterv1.InstanceReport
	sent   bool
}

type answerEntry struct {
	answer   *masterv1.CommandAnswer
	sequence int64
}

type entry[T any] struct {
	value    T
	set      bool
	sequence int64
}

func newOutbox() *Outbox {
	return &Outbox{
		wake:      make(chan struct{}, 1),
		asks:      map[string]*askEntry{},
		releases:  map[string]*entry[*masterv1.Release]{},
		instances: map[string]*instanceEntry{},
		forgotten: map[string]int64{},
		saved:     map[string]int64{},
		notes:     map[int32]*entry[*masterv1.VersionNote]{},
	}
}

// change runs f under the lock and wakes the sender.
func (o *Outbox) change(f func()) {
	o.mu.Lock()
	f()
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// SetAsk asks for containers: ask.Count in total under ask.Id. It replaces the ask of that id. The message must not be
// changed afterwards.
func (o *Outbox) SetAsk(ask *masterv1.Ask) {
	o.change(func() {
		old, ok := o.asks[ask.GetId()]
		if !ok {
			o.lastOrder++
			old = &askEntry{order: o.lastOrder}
			o.asks[ask.GetId()] = old
		}
		old.ask, old.sequence = ask, 0
	})
}

// WithdrawAsk ends the ask of that id. A container that was granted meanwhile still arrives.
func (o *Outbox) WithdrawAsk(id string) {
	o.change(func() {
		if old, ok := o.asks[id]; ok {
			withdrawn := proto.CloneOf(old.ask)
			withdrawn.Count = 0
			old.ask, old.sequence = withdrawn, 0
		}
	})
}

// countGrant counts a grant towards its ask. A complete ask is not sent again, because a ResourceManager that forgot it
// would grant it twice.
func (o *Outbox) countGrant(ask string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	entry, ok := o.asks[ask]
	if !ok {
		return
	}
	entry.granted++
	if entry.ask.GetCount() > 0 && entry.granted >= entry.ask.GetCount() {
		delete(o.asks, ask)
	}
}

// Release gives a container back. If it runs, it is stopped, with the reason in its status. A Completed event follows when it was
// seen gone; no second Release is needed.
func (o *Outbox) Release(container, reason string) {
	o.change(func() {
		o.releases[container] = &entry[*masterv1.Release]{value: &masterv1.Release{ContainerId: container, Reason: reason}, set: true}
	})
}

// Checkpoint reports that a container has saved its work: if it is stopped now, nothing is lost. Of containers that could be preempted,
// those that would lose the least are.
func (o *Outbox) Checkpoint(container string) {
	o.change(func() { o.saved[container] = 0 })
}

// releasing reports whether a release was not acknowledged yet.
func (o *Outbox) releasing(container string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.releases[container]
	return ok
}

// ReportInstance reports the state of an instance. It replaces the report before.
func (o *Outbox) ReportInstance(report *masterv1.InstanceReport) {
	o.change(func() {
		delete(o.forgotten, report.GetId())
		o.instances[report.GetId()] = &instanceEntry{report: report}
	})
}

// ForgetInstance reports that an instance does not exist any more.
func (o *Outbox) ForgetInstance(id string) {
	o.change(func() {
		delete(o.instances, id)
		o.forgotten[id] = 0
	})
}

// ReportStatus reports the progress of the desired version. It replaces the status before.
func (o *Outbox) ReportStatus(status *apiv1.MasterStatus) {
	o.change(func() { o.status.put(status) })
}

// NoteVersion stores a note on a version, such as that its rollout failed. It replaces the note before.
func (o *Outbox) NoteVersion(note *masterv1.VersionNote) {
	o.change(func() { o.notes[note.GetVersion()] = &entry[*masterv1.VersionNote]{value: note, set: true} })
}

// Revise makes the spec of an earlier version the desired one again. DesiredChanged follows, unless the desired state has changed
// otherwise by then.
func (o *Outbox) Revise(revise *masterv1.Revise) {
	o.change(func() { o.revise.put(revise) })
}

// SaveMemo saves at most 64 KiB for the next attempt.
func (o *Outbox) SaveMemo(memo []byte) {
	o.change(func() { o.memo.put(memo) })
}

// WantTraffic turns Traffic events on or off. At first they are off.
func (o *Outbox) WantTraffic(wanted bool) {
	o.change(func() { o.traffic.put(wanted) })
}

// Answer answers a command. Report the effects of the command before, so that the answer is true when it is read.
func (o *Outbox) Answer(answer *masterv1.CommandAnswer) {
	o.change(func() { o.answers = append(o.answers, &answerEntry{answer: answer}) })
}

// ReportGeneration reports the newest generation of the desired state that was acted upon.
func (o *Outbox) ReportGeneration(generation int64) {
	o.change(func() { o.generation.put(generation) })
}

// reset marks everything as unsent, for a new stream.
func (o *Outbox) reset() {
	o.change(func() {
		o.sequence, o.firstSent = 0, false
		for _, entry := range o.asks {
			entry.sequence = 0
		}
		for _, release := range o.releases {
			release.sequence = 0
		}
		for _, entry := range o.instances {
			entry.sent = false
		}
		for id := range o.forgotten {
			o.forgotten[id] = 0
		}
		for container := range o.saved {
			o.saved[container] = 0
		}
		for _, entry := range o.answers {
			entry.sequence = 0
		}
		for _, note := range o.notes {
			note.sequence = 0
		}
		o.traffic.sequence = 0
		o.status.sequence, o.revise.sequence, o.memo.sequence, o.generation.sequence = 0, 0, 0, 0
	})
}

// maxItems is how many asks, releases, instances, gone instances, checkpoints and answers one request may have, and maxBytes how large they
// may be together.
const (
	maxItems = 500
	maxBytes = 256 << 10
)

// budget is the space that is left in a request.
type budget struct {
	items, bytes int
	// exceeded is true once something did not fit.
	exceeded bool
}

// spend reports whether a message fits, and if so subtracts its size from the budget. The first one always fits.
func (b *budget) spend(message proto.Message) bool {
	size := proto.Size(message)
	if b.items == 0 || b.bytes < maxBytes && size > b.bytes {
		b.exceeded = true
		return false
	}
	b.items--
	b.bytes -= size
	return true
}

// next is the request with all that is unsent, nil if there is none. What was changed together is sent together, unless it is too much for
// one request. Then further requests follow, and the status, notes, revision, memo and generation are in the first one that has the last
// ask, release and report: they are not ahead of what they are about. Only answers may come later.
func (o *Outbox) next() *masterv1.AllocateRequest {
	o.mu.Lock()
	defer o.mu.Unlock()
	sequence := o.sequence + 1
	request := &masterv1.AllocateRequest{Sequence: sequence}
	space := budget{items: maxItems, bytes: maxBytes}
	byPlace := func(a, b *askEntry) int { return cmp.Compare(a.order, b.order) }
	for _, entry := range slices.SortedFunc(maps.Values(o.asks), byPlace) {
		if entry.sequence == 0 && space.spend(entry.ask) {
			entry.sequence = sequence
			request.Asks = append(request.Asks, entry.ask)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(o.releases)) {
		if release := o.releases[id]; release.sequence == 0 && space.spend(release.value) {
			release.sequence = sequence
			request.Release = append(request.Release, release.value)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(o.instances)) {
		if entry := o.instances[id]; !entry.sent && space.spend(entry.report) {
			entry.sent = true
			request.Instances = append(request.Instances, entry.report)
		}
	}
	request.GoneInstances = unsent(o.forgotten, sequence, &space)
	request.Checkpoints = unsent(o.saved, sequence, &space)
	pending := !o.firstSent || space.items < maxItems
	if !space.exceeded {
		if o.status.take(sequence) {
			request.Status, pending = o.status.value, true
		}
		for _, version := range slices.Sorted(maps.Keys(o.notes)) {
			if note := o.notes[version]; note.take(sequence) {
				request.Notes, pending = append(request.Notes, note.value), true
			}
		}
		if o.revise.take(sequence) {
			request.Revise, pending = o.revise.value, true
		}
		if o.memo.take(sequence) {
			request.Memo, pending = o.memo.value, true
		}
		if o.traffic.take(sequence) {
			request.Traffic, pending = proto.Bool(o.traffic.value), true
		}
		if o.generation.take(sequence) {
			pending = true
		}
		for _, entry := range o.answers {
			if entry.sequence == 0 && space.spend(entry.answer) {
				entry.sequence, pending = sequence, true
				request.Answers = append(request.Answers, entry.answer)
			}
		}
	}
	if !pending {
		return nil
	}
	if o.generation.sequence != 0 {
		request.ObservedGeneration = o.generation.value
	}
	o.sequence, o.firstSent = sequence, true
	return request
}

// acknowledge drops what the ResourceManager has stored.
func (o *Outbox) acknowledge(applied int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	stored := func(_ string, sequence int64) bool { return sequence > 0 && sequence <= applied }
	maps.DeleteFunc(o.releases, func(_ string, release *entry[*masterv1.Release]) bool { return stored("", release.sequence) })
	maps.DeleteFunc(o.forgotten, stored)
	maps.DeleteFunc(o.saved, stored)
	maps.DeleteFunc(o.asks, func(id string, entry *askEntry) bool {
		return entry.ask.GetCount() == 0 && stored(id, entry.sequence)
	})
	o.answers = slices.DeleteFunc(o.answers, func(entry *answerEntry) bool { return stored("", entry.sequence) })
	maps.DeleteFunc(o.notes, func(_ int32, note *entry[*masterv1.VersionNote]) bool { return stored("", note.sequence) })
	o.revise.drop(applied)
	o.memo.drop(applied)
}

func (e *entry[T]) put(value T) { *e = entry[T]{value: value, set: true} }

// take marks the entry as sent and reports whether it was unsent.
func (e *entry[T]) take(sequence int64) bool {
	if !e.set || e.sequence != 0 {
		return false
	}
	e.sequence = sequence
	return true
}

func (e *entry[T]) drop(applied int64) {
	if e.set && e.sequence > 0 && e.sequence <= applied {
		*e = entry[T]{}
	}
}

func unsent(sequences map[string]int64, sequence int64, space *budget) []string {
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(sequences)) {
		if sequences[id] == 0 && space.spend(wrapperspb.String(id)) {
			sequences[id] = sequence
			ids = append(ids, id)
		}
	}
	return ids
}
