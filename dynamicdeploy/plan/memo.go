package plan

import (
	"maps"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Memo is what a Role must remember over the death of its master. Containers are not in it: the ResourceManager and the
// nodes tell those.
type Memo struct {
	Slots   []SlotMemo
	Nodes   []NodeMemo
	Rollout RolloutMemo
}

// SlotMemo is an open slot, with a container or without.
type SlotMemo struct {
	Number   int
	Version  int32
	Restarts int
	Leaving  bool
	Dark     bool
	Failures []time.Time
}

// NodeMemo is a node that is to blame for failures.
type NodeMemo struct {
	Node     id.Node
	Failures []time.Time
}

// RolloutMemo is how far a rollout has come.
type RolloutMemo struct {
	Version    int32
	Restart    time.Time
	State      RolloutState
	ProgressAt time.Time
	Best       int
	Failures   []time.Time
	Reason     string
	Change     bool
	Base       int32
	Switched   bool
	Proven     bool
	Again      bool
}

// Memo gives what the next master needs.
func (r *Role) Memo() Memo {
	var memo Memo
	for _, s := range r.sorted() {
		memo.Slots = append(memo.Slots, SlotMemo{
			Number: s.number, Version: s.version, Restarts: s.restarts, Leaving: s.leaving, Dark: s.dark, Failures: slices.Clone(s.failures),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(r.nodes)) {
		if failures := r.nodes[name].failures; len(failures) > 0 {
			memo.Nodes = append(memo.Nodes, NodeMemo{Node: name, Failures: slices.Clone(failures)})
		}
	}
	o := r.rollout
	memo.Rollout = RolloutMemo{
		Version: o.version, Restart: o.restart, State: o.state, ProgressAt: o.progressAt, Best: o.best,
		Failures: slices.Clone(o.failures), Reason: o.reason, Change: o.change,
		Base: o.base, Switched: o.switched, Proven: o.proven, Again: o.again,
	}
	return memo
}

// Restore takes up what an earlier master knew. It comes after the first Want and before everything else.
func (r *Role) Restore(memo Memo) {
	for _, m := range memo.Slots {
		s := r.open(m.Number, m.Version)
		s.restarts, s.leaving, s.dark, s.failures = m.Restarts, m.Leaving, m.Dark, m.Failures
		s.ran = m.Restarts > 0 || len(m.Failures) > 0
		if n := len(m.Failures); n > 0 {
			s.reason = "it failed before its application master was restarted"
			s.notBefore = m.Failures[n-1].Add(r.wanted.Restart.wait(n))
		}
	}
	for _, m := range memo.Nodes {
		r.node(m.Node).failures = m.Failures
	}
	o := memo.Rollout
	restored := rollout{
		version: o.Version, restart: o.Restart, state: o.State, progressAt: o.ProgressAt, best: o.Best,
		failures: o.Failures, reason: o.Reason, lastReason: o.Reason, change: o.Change,
		base: o.Base, switched: o.Switched, proven: o.Proven, again: o.Again,
	}
	if o.State == NoRollout {
		return
	}
	r.restored = true
	wanted := r.rollout
	// How long no master was there, or the app was stopped, is not known. Nothing could get on meanwhile, for which the version is not
	// to blame: it is given half of its deadline at least.
	if least := wanted.progressAt.Add(-r.wanted.Update.Deadline / 2); restored.state == Progressing && restored.progressAt.Before(least) {
		restored.progressAt = least
	}
	r.rollout = restored
	r.rollout.want(r.wanted, wanted.progressAt)
}
