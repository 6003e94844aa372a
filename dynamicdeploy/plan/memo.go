package plan

import (
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Memo is what the master of the next attempt needs to know of a Role. It has no containers: the ResourceManager and the
// nodes report those.
type Memo struct {
	Slots   []SlotMemo
	Nodes   []NodeMemo
	Rollout RolloutMemo
}

// SlotMemo is the part of a slot that outlives its master.
type SlotMemo struct {
	Number    int
	Version   int32
	Restarts  int
	Leaving   bool
	NotRouted bool
	// HasRun says that it has had a started container.
	HasRun   bool
	Failures []time.Time
}

// NodeMemo is the failures that count against a node.
type NodeMemo struct {
	Node     id.Node
	Failures []time.Time
}

// RolloutMemo is the part of a rollout that outlives its master.
type RolloutMemo struct {
	Version       int32
	RestartBefore time.Time
	State         RolloutState
	ProgressAt    time.Time
	BestProgress  int
	Held          bool
	Failures      []time.Time
	// Reason is that of the state, LastReason that of the newest failure.
	Reason     string
	LastReason string
	NewVersion bool
	Base       int32
	Before     int32
	Switched   bool
	Completed  bool
	Reopened   bool
}

// Memo returns what the next master needs.
func (r *Role) Memo() Memo {
	return Memo{Slots: r.slots.memo(), Nodes: r.nodes.memo(), Rollout: r.rollout.memo()}
}

// Restore loads the memo of an earlier master. It is called after the first SetDesired and before everything else.
func (r *Role) Restore(memo Memo) {
	for _, m := range memo.Slots {
		r.slots.open(m.Number, m.Version).restore(m, r.desired.Restart)
	}
	r.nodes.restore(memo.Nodes)
	if r.rollout.restore(memo.Rollout, r.desired) {
		r.restored = true
	}
}

// Over reports whether the rollout had succeeded.
func (m *Memo) Over() bool { return m.Rollout.State == Done || m.Rollout.State == Reverted }

// ContinueAs makes the version of a memo count as another one that changes nothing of the role, as Role.ContinueAs does.
func (m *Memo) ContinueAs(version int32) bool {
	from := m.Rollout.Version
	if !m.Rollout.continueAs(version) {
		return false
	}
	for i, slot := range m.Slots {
		if slot.Version == from {
			m.Slots[i].Version = version
		}
	}
	return true
}
