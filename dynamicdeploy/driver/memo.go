package driver

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	"github.com/mammoth-os/mammoth/internal/id"
)

// memoLimit is the size of the memo that the ResourceManager accepts.
const memoLimit = 64 << 10

// roleMemo is the part of the memo about one role.
type roleMemo struct {
	plan    plan.Memo
	control control
}

// The memo is stored as JSON with short keys. Times are milliseconds since 1970; those of failures are relative to Base.
// RestartBefore is compared for equality and is in nanoseconds.
type (
	storedMemo struct {
		Base  int64                 `json:"t"`
		Roles map[string]storedRole `json:"r"`
	}
	storedControl struct {
		Version     int32 `json:"v"`
		Continued   bool  `json:"k,omitempty"`
		From        int32 `json:"f,omitempty"`
		Reverts     bool  `json:"r,omitempty"`
		Paused      bool  `json:"p,omitempty"`
		Percent     int32 `json:"c,omitempty"`
		SpecPercent int32 `json:"o,omitempty"`
	}
	storedRole struct {
		// Slots: number, version, restarts, flags (1 leaving, 2 not routed, 4 has run), then failures.
		Slots   [][]int64          `json:"s,omitempty"`
		Nodes   map[string][]int64 `json:"n,omitempty"`
		Rollout storedRollout      `json:"o"`
		Control storedControl      `json:"c"`
	}
	storedRollout struct {
		Version    int32   `json:"v"`
		Restart    int64   `json:"r,omitempty"`
		State      uint8   `json:"s"`
		ProgressAt int64   `json:"p"`
		Best       int     `json:"b,omitempty"`
		Held       bool    `json:"h,omitempty"`
		Failures   []int64 `json:"f,omitempty"`
		Reason     string  `json:"m,omitempty"`
		LastReason string  `json:"l,omitempty"`
		NewVersion bool    `json:"c,omitempty"`
		Base       int32   `json:"a,omitempty"`
		Before     int32   `json:"d,omitempty"`
		Switched   bool    `json:"w,omitempty"`
		Completed  bool    `json:"u,omitempty"`
		Reopened   bool    `json:"g,omitempty"`
	}
)

// slotHead is the number of values before a slot's failures.
const slotHead = 4

// writeMemo encodes the memo. As long as it is too large, the older half of the failures of each list is left out.
func (d *Master) writeMemo() []byte {
	memos := map[string]roleMemo{}
	var base int64
	most := 1
	for r := range d.roles.each() {
		memo := r.plan.Memo()
		memos[r.name], base, most = roleMemo{plan: memo, control: *r.control}, max(base, newestFailure(memo)), max(most, mostFailures(memo))
	}
	for keep := most; ; keep /= 2 {
		stored := storedMemo{Base: base, Roles: map[string]storedRole{}}
		for name, memo := range memos {
			stored.Roles[name] = memo.store(base, keep)
		}
		raw, err := json.Marshal(stored)
		if err == nil && len(raw) <= memoLimit {
			return raw
		}
		if keep == 0 {
			break
		}
	}
	d.log.Warn("the memo for the next attempt is too large and was not saved")
	return nil
}

// readMemo decodes the memo of the attempt before. An unreadable one is ignored: containers are reported by others.
func (d *Master) readMemo(raw []byte) map[string]roleMemo {
	if len(raw) == 0 {
		return nil
	}
	memo, err := parseMemo(raw)
	if err != nil {
		d.log.Error("cannot read the memo of the attempt before", "error", err)
		return nil
	}
	return memo
}

func parseMemo(raw []byte) (map[string]roleMemo, error) {
	var stored storedMemo
	if err := json.Unmarshal(raw, &stored); err != nil {
		return nil, fmt.Errorf("decode the memo: %w", err)
	}
	roles := map[string]roleMemo{}
	for name, role := range stored.Roles {
		memo := roleMemo{control: role.Control.control()}
		for _, numbers := range role.Slots {
			if len(numbers) < slotHead || numbers[0] < 1 || numbers[0] > 1<<30 {
				return nil, fmt.Errorf("decode the memo: a slot of role %q is described by %v", name, numbers)
			}
			memo.plan.Slots = append(memo.plan.Slots, plan.SlotMemo{
				Number: int(numbers[0]), Version: int32(numbers[1]), Restarts: int(numbers[2]), Leaving: numbers[3]&1 != 0, NotRouted: numbers[3]&2 != 0,
				HasRun:   numbers[3]&4 != 0,
				Failures: fromOffsets(stored.Base, numbers[slotHead:]),
			})
		}
		for node, offsets := range role.Nodes {
			memo.plan.Nodes = append(memo.plan.Nodes, plan.NodeMemo{Node: id.Node(node), Failures: fromOffsets(stored.Base, offsets)})
		}
		o := role.Rollout
		memo.plan.Rollout = plan.RolloutMemo{
			Version: o.Version, RestartBefore: fromNanos(o.Restart), State: plan.RolloutState(o.State), ProgressAt: fromMillis(o.ProgressAt),
			BestProgress: o.Best, Held: o.Held, Failures: fromOffsets(stored.Base, o.Failures), Reason: o.Reason, LastReason: o.LastReason, NewVersion: o.NewVersion,
			Base: o.Base, Before: o.Before, Switched: o.Switched, Completed: o.Completed, Reopened: o.Reopened,
		}
		roles[name] = memo
	}
	return roles, nil
}

func (m roleMemo) store(base int64, keep int) storedRole {
	role := storedRole{Control: m.control.store()}
	for _, slot := range m.plan.Slots {
		numbers := []int64{int64(slot.Number), int64(slot.Version), int64(slot.Restarts), 0}
		if slot.Leaving {
			numbers[3] |= 1
		}
		if slot.NotRouted {
			numbers[3] |= 2
		}
		if slot.HasRun {
			numbers[3] |= 4
		}
		role.Slots = append(role.Slots, append(numbers, offsets(base, slot.Failures, keep)...))
	}
	for _, node := range m.plan.Nodes {
		if role.Nodes == nil {
			role.Nodes = map[string][]int64{}
		}
		role.Nodes[string(node.Node)] = offsets(base, node.Failures, keep)
	}
	o := m.plan.Rollout
	role.Rollout = storedRollout{
		Version: o.Version, Restart: nanos(o.RestartBefore), State: uint8(o.State), ProgressAt: millis(o.ProgressAt),
		Best: o.BestProgress, Held: o.Held, Failures: offsets(base, o.Failures, max(keep, 1)), Reason: o.Reason, LastReason: o.LastReason, NewVersion: o.NewVersion,
		Base: o.Base, Before: o.Before, Switched: o.Switched, Completed: o.Completed, Reopened: o.Reopened,
	}
	return role
}

// mostFailures is how many failures the longest list of a memo has.
func mostFailures(memo plan.Memo) int {
	most := len(memo.Rollout.Failures)
	for _, slot := range memo.Slots {
		most = max(most, len(slot.Failures))
	}
	for _, node := range memo.Nodes {
		most = max(most, len(node.Failures))
	}
	return most
}

// newestFailure is the time of the newest failure of a slot. Failures are stored relative to it, which makes their numbers short; those of
// nodes and of the rollout may be newer.
func newestFailure(memo plan.Memo) int64 {
	var base int64
	for _, slot := range memo.Slots {
		for _, at := range slot.Failures {
			base = max(base, at.UnixMilli())
		}
	}
	return base
}

// offsets encodes the newest times as milliseconds before base.
func offsets(base int64, instants []time.Time, keep int) []int64 {
	if extra := len(instants) - keep; extra > 0 {
		instants = instants[extra:]
	}
	numbers := make([]int64, len(instants))
	for i, at := range instants {
		numbers[i] = base - at.UnixMilli()
	}
	return numbers
}

func fromOffsets(base int64, numbers []int64) []time.Time {
	var instants []time.Time
	for _, number := range numbers {
		instants = append(instants, time.UnixMilli(base-number))
	}
	return instants
}

func millis(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixMilli()
}

func fromMillis(number int64) time.Time {
	if number == 0 {
		return time.Time{}
	}
	return time.UnixMilli(number)
}

func nanos(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixNano()
}

func fromNanos(number int64) time.Time {
	if number == 0 {
		return time.Time{}
	}
	return time.Unix(0, number).UTC()
}
