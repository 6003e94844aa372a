package plan

import (
	"iter"
	"maps"
	"slices"

	"github.com/mammoth-os/mammoth/internal/id"
)

// slots owns which numbers have a slot.
type slots struct{ byNumber map[int]*slot }

func (l *slots) len() int { return len(l.byNumber) }

// at is the slot of a number, nil if there is none.
func (l *slots) at(number int) *slot { return l.byNumber[number] }

// each is all slots, in no order.
func (l *slots) each() iter.Seq[*slot] { return maps.Values(l.byNumber) }

// sorted returns the slots by number, so that no decision depends on the order of a map.
func (l *slots) sorted() []*slot {
	list := make([]*slot, 0, len(l.byNumber))
	for _, number := range slices.Sorted(maps.Keys(l.byNumber)) {
		list = append(list, l.byNumber[number])
	}
	return list
}

// of returns the slots of a version that do not leave, by number.
func (l *slots) of(version int32) []*slot {
	var list []*slot
	for _, s := range l.sorted() {
		if s.version == version && !s.leaving {
			list = append(list, s)
		}
	}
	return list
}

// count counts the slots of a version, including those that leave.
func (l *slots) count(version int32) (n int) {
	for s := range l.each() {
		if s.version == version {
			n++
		}
	}
	return n
}

// holding is the slot with a container, nil if there is none.
func (l *slots) holding(container id.Container) *slot {
	for s := range l.each() {
		if s.container != nil && s.container.id == container {
			return s
		}
	}
	return nil
}

// asking is the slot with an open ask, nil if there is none.
func (l *slots) asking(ask string) *slot {
	for s := range l.each() {
		if s.ask != "" && s.ask == ask {
			return s
		}
	}
	return nil
}

func (l *slots) open(number int, version int32) *slot {
	s := &slot{number: number, version: version}
	l.byNumber[number] = s
	return s
}

// openNext opens a slot with the lowest free number.
func (l *slots) openNext(version int32) *slot {
	number := 1
	for l.byNumber[number] != nil {
		number++
	}
	return l.open(number, version)
}

func (l *slots) forget(s *slot) { delete(l.byNumber, s.number) }

// merge makes slots of one version count as slots of another.
func (l *slots) merge(from, to int32) {
	for s := range l.each() {
		if s.version == from {
			s.setVersion(to)
		}
	}
}

// route routes to the slots of a version.
func (l *slots) route(version int32) {
	for s := range l.each() {
		if s.version == version && !s.leaving {
			s.setRouted(true)
		}
	}
}

// holdOtherVersions reports whether a slot has another version than this one.
func (l *slots) holdOtherVersions(version int32) bool {
	for s := range l.each() {
		if s.version != version {
			return true
		}
	}
	return false
}

// newestRouted is the newest version, other than except, of which a slot is routed to; zero if there is none.
func (l *slots) newestRouted(except int32) (newest int32) {
	for s := range l.each() {
		if s.version != except && !s.notRouted {
			newest = max(newest, s.version)
		}
	}
	return newest
}

// begun reports whether a slot of a version has had a container.
func (l *slots) begun(version int32) bool {
	for s := range l.each() {
		if s.version == version && (s.container != nil || s.hasRun) {
			return true
		}
	}
	return false
}

func (l *slots) memo() []SlotMemo {
	var memo []SlotMemo
	for _, s := range l.sorted() {
		memo = append(memo, s.memo())
	}
	return memo
}
