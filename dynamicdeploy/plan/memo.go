package plan

import (
	"maps"
	"slices"
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
	Failures  []time.Time
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
	Failures      []time.Time
	Reason        string
	NewVersion    bool
	Base          int32
	Switched      bool
	Completed     bool
	Reopened      bool
}

// Memo returns what the next master needs.
func (r *Role) Memo() Memo {
	var memo Memo
	for _, s := range r.sorted() {
		memo.Slots = append(memo.Slots, SlotMemo{
			Number: s.number, Version: s.version, Restarts: s.restarts, Leaving: s.leaving, NotRouted: s.notRouted, Failures: slices.Clone(s.failures),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(r.nodes)) {
		if failures := r.nodes[name].failures; len(failures) > 0 {
			memo.Nodes = append(memo.Nodes, NodeMemo{Node: name, Failures: slices.Clone(failures)})
		}
	}
	o := r.rollout
	memo.Rollout = RolloutMemo{
		Version: o.version, RestartBefore: o.restartBefore, State: o.state, ProgressAt: o.progressAt, BestProgress: o.bestProgress,
		Failures: slices.Clone(o.failures), Reason: o.reason, NewVersion: o.newVersion,
		Base: o.base, Switched: o.switched, Completed: o.completed, Reopened: o.reopened,
	}
	return memo
}

// Restore loads the memo of an earlier master. It is called after the first SetDesired and before everything else.
func (r *Role) Restore(memo Memo) {
	for _, m := range memo.Slots {
		s := r.openSlot(m.Number, m.Version)
		s.restarts, s.leaving, s.notRouted, s.failures = m.Restarts, m.Leaving, m.NotRouted, m.Failures
		s.hasRun = m.Restarts > 0 || len(m.Failures) > 0
		if n := len(m.Failures); n > 0 {
			s.lastFailure = "it failed before its application master was restarted"
			s.notBefore = m.Failures[n-1].Add(r.desired.Restart.backoffAfter(n))
		}
	}
	for _, m := range memo.Nodes {
		r.node(m.Node).failures = m.Failures
	}
	o := memo.Rollout
	restored := rollout{
		version: o.Version, restartBefore: o.RestartBefore, state: o.State, progressAt: o.ProgressAt, bestProgress: o.BestProgress,
		failures: o.Failures, reason: o.Reason, lastReason: o.Reason, newVersion: o.NewVersion,
		base: o.Base, switched: o.Switched, completed: o.Completed, reopened: o.Reopened,
	}
	if o.State == NoRollout {
		return
	}
	r.restored = true
	began := r.rollout.progressAt
	// It is not known how long there was no master, or the app was stopped. The version could make no progress meanwhile and is not
	// to blame for that: at least half of its deadline remains.
	if least := began.Add(-r.desired.Update.Deadline / 2); restored.state == Progressing && restored.progressAt.Before(least) {
		restored.progressAt = least
	}
	r.rollout = restored
	r.rollout.setDesired(r.desired, began)
}
