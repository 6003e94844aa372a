package scheduler

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// lendingZone is a lender that uses little and a borrower that takes all that it can get, second by second: its
// containers end when they said or, now and then, much later, and stop within the grace when they are told to.
type lendingZone struct {
	core    *Core
	now     time.Time
	live    map[id.Container]time.Time
	stops   map[id.Container]time.Time
	grace   time.Duration
	notices map[id.Container]time.Time
	given   map[id.Container]time.Time
}

func newLendingZone(t *rapid.T, contract *Contract) *lendingZone {
	z := &lendingZone{
		core: New(Config{Epoch: 1}), now: start, grace: contract.Grace,
		live: map[id.Container]time.Time{}, stops: map[id.Container]time.Time{}, notices: map[id.Container]time.Time{}, given: map[id.Container]time.Time{},
	}
	percent := func(n int) Capacity { return Capacity{Percent: float64(n), IsPercent: true} }
	split := rapid.IntRange(1, 100).Draw(t, "split")
	z.apply(t, SetQueues{Queues: []QueueSpec{
		{Name: "root"}, {Name: "apps", Parent: "root", Guaranteed: percent(split)}, {Name: "batch", Parent: "root", Guaranteed: percent(100 - split)},
	}})
	for i := range rapid.IntRange(1, 4).Draw(t, "nodes") {
		size := int64(rapid.IntRange(1, 10).Draw(t, "size"))
		z.apply(t, SetNode{Node: NodeSpec{Name: id.Node(fmt.Sprintf("node-%d", i)), Capacity: resource.Vector{size * 1000, size << 30}}})
	}
	for i, queue := range []id.Queue{"apps", "batch"} {
		z.apply(t, AddApp{App: id.App{ClusterStart: 1, Seq: int64(i + 1)}, Queue: queue})
	}
	z.apply(t, SetContracts{Contracts: []Contract{*contract}})
	return z
}

func (z *lendingZone) apply(t *rapid.T, in Input) {
	if err := z.core.Apply(in); err != nil {
		t.Fatal(err)
	}
}

// second is a pass, and what the containers do until the next.
func (z *lendingZone) second(t *rapid.T) {
	for _, times := range []map[id.Container]time.Time{z.live, z.stops} {
		for k, at := range times {
			if !at.After(z.now) {
				z.apply(t, Release{Container: k})
				delete(z.live, k)
				delete(z.stops, k)
			}
		}
	}
	d := z.core.Schedule(z.now)
	for _, grant := range d.Grants {
		end := z.now.Add(time.Hour)
		if runs := z.core.containers[grant.Container].duration; runs > 0 && !rapid.Bool().Draw(t, "overruns") {
			end = z.now.Add(runs)
		}
		z.live[grant.Container] = end
	}
	for _, notice := range d.Notices {
		z.notices[notice.Container], z.given[notice.Container] = notice.Deadline, z.now
	}
	for _, stop := range d.Stops {
		z.stops[stop.Container] = z.now.Add(z.grace)
	}
}

func TestWhatIsLentIsBackWhenTheWindowClosesEveryTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lend := rapid.IntRange(1, 100).Draw(t, "lend")
		contract := Contract{
			Name: "nightly", Lender: "apps", Borrowers: []id.Queue{"batch"}, LendPercent: float64(lend), FloorPercent: float64(rapid.IntRange(0, 100-lend).Draw(t, "floor")),
			Notice: time.Duration(rapid.IntRange(0, 20).Draw(t, "notice")) * time.Second,
			Grace:  time.Duration(rapid.IntRange(1, 5).Draw(t, "grace")) * time.Second,
		}
		closes := start.Add(60 * time.Second)
		contract.Windows = []Window{{start.Add(5 * time.Second), closes}}
		z := newLendingZone(t, &contract)
		unit := resource.Vector{1000, 1 << 30}
		for z.now.Before(closes) {
			k := Ask{ID: "a", Pending: 100, Policy: Pack, Resources: unit}
			if rapid.Bool().Draw(t, "known") {
				k.Duration = time.Duration(rapid.IntRange(1, 60).Draw(t, "runs")) * time.Second
			}
			z.apply(t, SetAsk{App: id.App{ClusterStart: 1, Seq: 2}, Ask: k})
			if rapid.IntRange(0, 9).Draw(t, "surge") == 0 {
				z.apply(t, SetAsk{App: id.App{ClusterStart: 1, Seq: 1}, Ask: Ask{ID: "a", Pending: rapid.IntRange(0, 5).Draw(t, "instances"), Policy: Spread, Resources: unit}})
			}
			z.second(t)
			z.now = z.now.Add(time.Second)
		}
		z.second(t)
		root, apps, batch := z.core.root(), z.core.queueNamed("apps"), z.core.queueNamed("batch")
		for place := range 2 {
			room := apps.guaranteed[place] - apps.used[place]
			if free := z.core.zone[place] - root.used[place]; free < room && batch.used[place] > batch.guaranteed[place] {
				t.Fatalf("when the window closed %d were free, the lender had room for %d, and the borrower held %d of %d", free, room, batch.used[place], batch.guaranteed[place])
			}
		}
		for _, back := range z.core.Ledgers()[0].HandBacks {
			if back.Done.IsZero() || back.Done.After(back.Promised) {
				t.Fatalf("the ledger says %+v", back)
			}
		}
	})
}

func TestTheFloorStaysFreeForTheLenderWhileTheWindowIsOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		contract := Contract{
			Name: "nightly", Lender: "apps", Borrowers: []id.Queue{"batch"}, LendPercent: 50, FloorPercent: float64(rapid.IntRange(0, 50).Draw(t, "floor")),
			Notice: 5 * time.Second, Grace: time.Second, Windows: []Window{{start, start.Add(time.Hour)}},
		}
		z := newLendingZone(t, &contract)
		for range 10 {
			z.apply(t, SetAsk{App: id.App{ClusterStart: 1, Seq: 2}, Ask: Ask{
				ID: "a", Pending: 100, Policy: Pack, Resources: resource.Vector{int64(rapid.IntRange(1, 4).Draw(t, "cpu")) * 250, 1 << 28},
			}})
			z.second(t)
			z.now = z.now.Add(time.Second)
		}
		apps, batch, root := z.core.queueNamed("apps"), z.core.queueNamed("batch"), z.core.root()
		floor := apps.guaranteed.Percent(contract.FloorPercent)
		for place := range 2 {
			if free := z.core.zone[place] - root.used[place]; free < floor[place] && batch.used[place] > batch.guaranteed[place] {
				t.Fatalf("%d are free, the floor is %d, and the borrower holds %d of %d", free, floor[place], batch.used[place], batch.guaranteed[place])
			}
		}
	})
}
