package driver

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func TestAMemoReadsBack(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(1_700_000_000_000 + ms) }
	memo := roleMemo{
		control: control{version: 2, continued: true, from: 1, reverts: true, paused: true, percent: 50, specPercent: 10},
		plan: plan.Memo{
			Slots: []plan.SlotMemo{
				{Number: 1, Version: 2, Restarts: 4, HasRun: true, Failures: []time.Time{at(1), at(2500)}},
				{Number: 5, Version: 1, Leaving: true},
			},
			Nodes: []plan.NodeMemo{{Node: "n1", Failures: []time.Time{at(9000)}}},
			Rollout: plan.RolloutMemo{
				Version: 2, RestartBefore: time.Unix(5, 6).UTC(), State: plan.Failed, ProgressAt: at(3), BestProgress: 1,
				Failures: []time.Time{at(4)}, Reason: "it failed", LastReason: "exited with code 7", NewVersion: true,
			},
		},
	}
	d := &Master{log: slog.New(slog.DiscardHandler), roles: newRoles("web", 1), app: "web"}
	r := d.roles.named("front")
	r.plan.SetDesired(plan.Desired{Version: 2}, at(0))
	r.plan.Restore(memo.plan)
	r.take(&memo, &masterv1.DesiredState{Version: 2})
	read, err := parseMemo(d.writeMemo())
	if err != nil {
		t.Fatal(err)
	}
	want, got := memo, read["front"]
	// Another wanted restart than the remembered one begins a new rollout; here nobody wants a restart.
	want.plan.Rollout = got.plan.Rollout
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(roleMemo{}, control{})); diff != "" {
		t.Error(diff)
	}
	back := memo.store(0, 16)
	if back.Rollout.Restart != memo.plan.Rollout.RestartBefore.UnixNano() || back.Rollout.Reason != "it failed" || back.Rollout.LastReason != "exited with code 7" || !back.Rollout.NewVersion {
		t.Errorf("rollout %+v", back.Rollout)
	}
}

func TestAMemoKeepsAllFailuresThatFit(t *testing.T) {
	d := &Master{log: slog.New(slog.DiscardHandler), roles: newRoles("web", 1), app: "web"}
	r := d.roles.named("")
	r.plan.SetDesired(plan.Desired{Version: 1, Restart: plan.Restart{MaxFailures: 50}}, time.Now())
	var failures []time.Time
	for i := range int64(40) {
		failures = append(failures, time.UnixMilli(1_700_000_000_000+i))
	}
	r.plan.Restore(plan.Memo{Slots: []plan.SlotMemo{{Number: 1, Version: 1, Failures: failures}}})
	read, err := parseMemo(d.writeMemo())
	if err != nil || len(read[""].plan.Slots) != 1 || len(read[""].plan.Slots[0].Failures) != 40 {
		t.Errorf("%v, %v", read[""].plan.Slots, err)
	}
}

func TestAMemoOfManyFailuresFitsAndKeepsTheNewest(t *testing.T) {
	d := &Master{log: slog.New(slog.DiscardHandler), roles: newRoles("web", 1), app: "web"}
	r := d.roles.named("")
	r.plan.SetDesired(plan.Desired{Version: 1}, time.Now())
	var memo plan.Memo
	last := time.UnixMilli(1_700_000_000_000)
	for i := range 2000 {
		slot := plan.SlotMemo{Number: i + 1, Version: 1, Restarts: 6}
		for j := range 6 {
			slot.Failures = append(slot.Failures, last.Add(time.Duration(j-5)*time.Minute))
		}
		memo.Slots = append(memo.Slots, slot)
	}
	r.plan.Restore(memo)
	raw := d.writeMemo()
	if len(raw) == 0 || len(raw) > memoLimit {
		t.Fatalf("the memo has %d bytes", len(raw))
	}
	read, err := parseMemo(raw)
	if err != nil {
		t.Fatal(err)
	}
	slots := read[""].plan.Slots
	if n := len(slots); n != 2000 || len(slots[0].Failures) == 0 || !slots[0].Failures[len(slots[0].Failures)-1].Equal(last) {
		t.Errorf("%d slots, the first with failures %v", n, slots[0].Failures)
	}
}

func FuzzMemo(f *testing.F) {
	f.Add([]byte(`{"t":1700000000000,"r":{"":{"s":[[1,2,0,0,5,10]],"n":{"n1":[3]},"o":{"v":2,"s":1,"p":3},"i":3}}}`))
	f.Add([]byte(`{"r":{"":{"s":[[]]}}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		memo, err := parseMemo(raw)
		if err != nil {
			return
		}
		now := time.UnixMilli(1_700_000_000_000)
		for name, role := range memo {
			p := plan.New("web", 2)
			p.SetDesired(plan.Desired{Count: 2, Version: 2, Restart: plan.Restart{Window: time.Minute, MaxFailures: 5, Backoff: time.Second, MaxBackoff: time.Minute}}, now)
			p.Restore(role.plan)
			if actions, _ := p.Next(now); len(actions) > 4*(len(role.plan.Slots)+3) {
				t.Errorf("role %q calls for %d actions: %s", name, len(actions), fmt.Sprint(actions))
			}
		}
	})
}
