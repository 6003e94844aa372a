package appmaster

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// Outbox holds what the ResourceManager is to know. Wishes (asks, reports) are absolute and sent again in full on
// every new stream; deeds (releases, a memo, a revert) are kept until they are acknowledged.
//
// An entry's sequence is that of the request which carried it on the present stream, zero if none did yet. Its methods do not wait,
// and may be called from any goroutine.
type Outbox struct {
	mu sync.Mutex
	// wake holds a token while something may be due.
	wake chan struct{}
	// sequence is that of the newest request on the present stream.
	sequence int64
	greeted  bool

	// asked counts the asks there were. It orders them: those made together are granted in the order in which the
	// master made them.
	asked     int64
	asks      map[string]*askEntry
	releases  map[string]int64
	instances map[string]*instanceEntry
	gone      map[string]int64
	rollout   entry[*masterv1.RolloutReport]
	revert    entry[*masterv1.Revert]
	memo      entry[[]byte]
	// observed is the newest generation that was acted upon.
	observed entry[int64]
}

type askEntry struct {
	ask      *masterv1.Ask
	place    int64
	granted  int32
	sequence int64
}

type instanceEntry struct {
	report *masterv1.InstanceReport
	sent   bool
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
		releases:  map[string]int64{},
		instances: map[string]*instanceEntry{},
		gone:      map[string]int64{},
	}
}

// change runs f on the outbox and sees to it that the outcome is sent.
func (o *Outbox) change(f func()) {
	o.mu.Lock()
	f()
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// SetAsk asks for containers: in total ask.Count under ask.Id. It replaces the ask of that id. The message must not be
// changed afterwards.
func (o *Outbox) SetAsk(ask *masterv1.Ask) {
	o.change(func() {
		old, ok := o.asks[ask.GetId()]
		if !ok {
			o.asked++
			old = &askEntry{place: o.asked}
			o.asks[ask.GetId()] = old
		}
		old.ask, old.sequence = ask, 0
	})
}

// WithdrawAsk asks for no more containers under the id. One that was granted meanwhile is still told.
func (o *Outbox) WithdrawAsk(id string) {
	o.change(func() {
		if old, ok := o.asks[id]; ok {
			withdrawn := proto.CloneOf(old.ask)
			withdrawn.Count = 0
			old.ask, old.sequence = withdrawn, 0
		}
	})
}

// granted counts a new container towards its ask. An ask that has all it wanted is not sent again: the
// ResourceManager that forgot it would grant it twice.
func (o *Outbox) granted(ask string) {
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

// Release gives a container back: it is stopped if it runs. Completed tells when it was seen gone, and needs no release.
func (o *Outbox) Release(container string) {
	o.change(func() { o.releases[container] = 0 })
}

// releasing reports whether a release is on its way.
func (o *Outbox) releasing(container string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.releases[container]
	return ok
}

// ReportInstance tells what the master thinks of an instance. It replaces the report before it.
func (o *Outbox) ReportInstance(report *masterv1.InstanceReport) {
	o.change(func() {
		delete(o.gone, report.GetId())
		o.instances[report.GetId()] = &instanceEntry{report: report}
	})
}

// ForgetInstance says that an instance exists no more.
func (o *Outbox) ForgetInstance(id string) {
	o.change(func() {
		delete(o.instances, id)
		o.gone[id] = 0
	})
}

// ReportRollout tells how far the change to the wanted version has come.
func (o *Outbox) ReportRollout(report *masterv1.RolloutReport) {
	o.change(func() { o.rollout.put(report) })
}

// Revert asks to go back to the version before.
func (o *Outbox) Revert(revert *masterv1.Revert) {
	o.change(func() { o.revert.put(revert) })
}

// SaveMemo keeps at most 64 KiB for the next attempt.
func (o *Outbox) SaveMemo(memo []byte) {
	o.change(func() { o.memo.put(memo) })
}

// Observe says which wish of the people has been acted upon.
func (o *Outbox) Observe(generation int64) {
	o.change(func() { o.observed.put(generation) })
}

// reset prepares for a new stream, on which nothing has been said yet.
func (o *Outbox) reset() {
	o.change(func() {
		o.sequence, o.greeted = 0, false
		for _, entry := range o.asks {
			entry.sequence = 0
		}
		for id := range o.releases {
			o.releases[id] = 0
		}
		for _, entry := range o.instances {
			entry.sent = false
		}
		for id := range o.gone {
			o.gone[id] = 0
		}
		o.rollout.sequence, o.revert.sequence, o.memo.sequence, o.observed.sequence = 0, 0, 0, 0
	})
}

// mostItems is how many asks, releases and reports the ResourceManager takes with one request.
const mostItems = 500

// next is the request that says all that is due, or nil when nothing is. What was changed together is sent together, unless it
// is too much for one request: then the rest follows in the next ones, and what sums it up comes last.
func (o *Outbox) next() *masterv1.AllocateRequest {
	o.mu.Lock()
	defer o.mu.Unlock()
	sequence := o.sequence + 1
	request := &masterv1.AllocateRequest{Sequence: sequence}
	room := mostItems
	byPlace := func(a, b *askEntry) int { return cmp.Compare(a.place, b.place) }
	for _, entry := range slices.SortedFunc(maps.Values(o.asks), byPlace) {
		if entry.sequence == 0 && room > 0 {
			entry.sequence = sequence
			request.Asks = append(request.Asks, entry.ask)
			room--
		}
	}
	request.Release = unsent(o.releases, sequence, &room)
	for _, id := range slices.Sorted(maps.Keys(o.instances)) {
		if entry := o.instances[id]; !entry.sent && room > 0 {
			entry.sent = true
			request.Instances = append(request.Instances, entry.report)
			room--
		}
	}
	request.GoneInstances = unsent(o.gone, sequence, &room)
	due := !o.greeted || room < mostItems
	if room > 0 {
		if o.rollout.take(sequence) {
			request.Rollout, due = o.rollout.value, true
		}
		if o.revert.take(sequence) {
			request.Revert, due = o.revert.value, true
		}
		if o.memo.take(sequence) {
			request.Memo, due = o.memo.value, true
		}
		if o.observed.take(sequence) {
			due = true
		}
	}
	if !due {
		return nil
	}
	if o.observed.sequence != 0 {
		request.ObservedGeneration = o.observed.value
	}
	o.sequence, o.greeted = sequence, true
	return request
}

// acknowledge forgets the deeds that the ResourceManager has stored.
func (o *Outbox) acknowledge(applied int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	stored := func(_ string, sequence int64) bool { return sequence > 0 && sequence <= applied }
	maps.DeleteFunc(o.releases, stored)
	maps.DeleteFunc(o.gone, stored)
	maps.DeleteFunc(o.asks, func(id string, entry *askEntry) bool {
		return entry.ask.GetCount() == 0 && stored(id, entry.sequence)
	})
	o.revert.drop(applied)
	o.memo.drop(applied)
}

func (e *entry[T]) put(value T) { *e = entry[T]{value: value, set: true} }

// take marks the entry as carried by a request and reports whether it was due.
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

func unsent(sequences map[string]int64, sequence int64, room *int) []string {
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(sequences)) {
		if sequences[id] == 0 && *room > 0 {
			sequences[id] = sequence
			ids = append(ids, id)
			*room--
		}
	}
	return ids
}
