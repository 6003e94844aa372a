package scheduler

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// lendingZone is a lender that uses little, and a borrower that takes all that it can get. The borrower's containers end after
// their expected duration or, sometimes, much later, and stop within the grace.
type lendingZone struct {
	core    *Core
	now     time.Time
	live    map[id.Container]time.Time
	stops   map[id.Container]time.Time
	grace   time.Duration
	notices map[id.Container]time.Time
	given   map[id.Container]time.Time
}

func newLendingZone(t *rapid.T, contracts ...Contract) *lendingZone {
	z := &lendingZone{
		core: New(Config{Epoch: 1}), now: start, grace: contracts[0].Grace,
		live: map[id.Container]time.Time{}, stops: map[id.Container]time.Time{}, notices: map[id.Container]time.Time{}, given: map[id.Container]time.Time{},
	}
	percent := func(n int) Capacity { return Capacity{Percent: float64(n), IsPercent: true} }
	apps := rapid.IntRange(1, 100).Draw(t, "apps")
	web := rapid.IntRange(0, 100-apps).Draw(t, "web")
	z.apply(t, SetQueues{Queues: []QueueSpec{
		{Name: "root"},
		{Name: "apps", Parent: "root", Guaranteed: percent(apps)},
		{Name: "batch", Parent: "root", Guaranteed: percent(100 - apps - web)},
		{Name: "web", Parent: "root", Guaranteed: percent(web)},
	}})
	for i := range rapid.IntRange(1, 4).Draw(t, "nodes") {
		size := int64(rapid.IntRange(1, 10).Draw(t, "size"))
		z.apply(t, SetNode{Node: NodeSpec{Name: id.Node(fmt.Sprintf("node-%d", i)), Capacity: resource.Vector{size * 1000, size << 30}}})
	}
	for i, queue := range []id.Queue{"apps", "batch", "web"} {
		z.apply(t, AddApp{App: id.App{ClusterStart: 1, Seq: int64(i + 1)}, Queue: queue})
	}
	z.apply(t, SetContracts{Contracts: contracts})
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
		for ctr, at := range times {
			if !at.After(z.now) {
				z.apply(t, Release{Container: ctr})
				delete(z.live, ctr)
				delete(z.stops, ctr)
			}
		}
	}
	d := z.core.Schedule(z.now)
	for _, grant := range d.Grants {
		end := z.now.Add(time.Hour)
		if runs := z.core.containers.byID[grant.Container].duration; runs > 0 && !rapid.Bool().Draw(t, "overruns") {
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
		z := newLendingZone(t, contract)
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
		root, apps, batch := z.core.tree.root(), z.core.tree.named("apps"), z.core.tree.named("batch")
		for dim := range 2 {
			room := apps.guaranteed[dim] - apps.used[dim]
			if free := z.core.tree.capacity[dim] - root.used[dim]; free < room && batch.used[dim] > batch.guaranteed[dim] {
				t.Fatalf("when the window closed %d were free, the lender had room for %d, and the borrower held %d of %d", free, room, batch.used[dim], batch.guaranteed[dim])
			}
		}
		for _, back := range z.core.lending.ledgers()[0].HandBacks {
			if back.Done.IsZero() || back.Done.After(back.Promised) {
				t.Fatalf("the ledger says %+v", back)
			}
		}
	})
}

func TestEveryLenderHasItsCapacityBackHoweverTheWindowsOverlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		grace := time.Duration(rapid.IntRange(1, 3).Draw(t, "grace")) * time.Second
		var contracts []Contract
		for i := range rapid.IntRange(2, 3).Draw(t, "contracts") {
			lend := rapid.IntRange(1, 100).Draw(t, "lend")
			opens := start.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "opens")) * time.Second)
			contracts = append(contracts, Contract{
				Name: fmt.Sprintf("contract-%d", i), Lender: rapid.SampledFrom([]id.Queue{"apps", "web"}).Draw(t, "lender"), Borrowers: []id.Queue{"batch"},
				LendPercent: float64(lend), FloorPercent: float64(rapid.IntRange(0, 100-lend).Draw(t, "floor")),
				Notice: time.Duration(rapid.IntRange(0, 5).Draw(t, "notice")) * time.Second, Grace: grace,
				Windows: []Window{{opens, opens.Add(time.Duration(rapid.IntRange(10, 25).Draw(t, "length")) * time.Second)}},
			})
		}
		z := newLendingZone(t, contracts...)
		if z.core.tree.named("web").spec.Guaranteed == (Capacity{}) {
			return
		}
		unit := resource.Vector{1000, 1 << 30}
		for range 50 {
			k := Ask{ID: "a", Pending: 50, Policy: Pack, Resources: unit}
			if rapid.Bool().Draw(t, "known") {
				k.Duration = time.Duration(rapid.IntRange(1, 40).Draw(t, "runs")) * time.Second
			}
			z.apply(t, SetAsk{App: id.App{ClusterStart: 1, Seq: 2}, Ask: k})
			z.second(t)
			for _, lc := range contracts {
				if z.now.Equal(lc.Windows[0].Close) {
					z.checkBack(t, contracts)
				}
			}
			z.now = z.now.Add(time.Second)
		}
	})
}

// checkBack computes how much of its guarantee each lender must have back when its window has just closed: all except what its
// other contracts continue to lend. The lenders use nothing, so this has to be free, unless the borrower holds no more than its
// guarantee.
func (z *lendingZone) checkBack(t *rapid.T, contracts []Contract) {
	root, batch := z.core.tree.root(), z.core.tree.named("batch")
	for dim := range 2 {
		owed := int64(0)
		for _, name := range []id.Queue{"apps", "web"} {
			closes, lent, floor := false, 0.0, 0.0
			for _, lc := range contracts {
				w := lc.Windows[0]
				if lc.Lender == name && !z.now.Before(w.Open) && z.now.Before(w.Close) {
					lent += lc.LendPercent
					// A floor that began to apply during the hand-back was not known at its beginning.
					if z.now.Sub(w.Open) > 10*time.Second {
						floor = max(floor, lc.FloorPercent)
					}
				}
				closes = closes || lc.Lender == name && z.now.Equal(w.Close)
			}
			if closes {
				owed += z.core.tree.named(name).guaranteed.Percent(100 - min(lent, 100-floor))[dim]
			}
		}
		if free := z.core.tree.capacity[dim] - root.used[dim]; free < owed && batch.used[dim] > batch.guaranteed[dim] {
			t.Fatalf("at %s %d are free, %d are owed, and the borrower holds %d of %d", z.now.Sub(start), free, owed, batch.used[dim], batch.guaranteed[dim])
		}
	}
}

func TestTheFloorStaysFreeForTheLenderWhileTheWindowIsOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		contract := Contract{
			Name: "nightly", Lender: "apps", Borrowers: []id.Queue{"batch"}, LendPercent: 50, FloorPercent: float64(rapid.IntRange(0, 50).Draw(t, "floor")),
			Notice: 5 * time.Second, Grace: time.Second, Windows: []Window{{start, start.Add(time.Hour)}},
		}
		z := newLendingZone(t, contract)
		for range 10 {
			z.apply(t, SetAsk{App: id.App{ClusterStart: 1, Seq: 2}, Ask: Ask{
				ID: "a", Pending: 100, Policy: Pack, Resources: resource.Vector{int64(rapid.IntRange(1, 4).Draw(t, "cpu")) * 250, 1 << 28},
			}})
			z.second(t)
			z.now = z.now.Add(time.Second)
		}
		apps, batch, root := z.core.tree.named("apps"), z.core.tree.named("batch"), z.core.tree.root()
		floor := apps.guaranteed.Percent(contract.FloorPercent)
		for dim := range 2 {
			if free := z.core.tree.capacity[dim] - root.used[dim]; free < floor[dim] && batch.used[dim] > batch.guaranteed[dim] {
				t.Fatalf("%d are free, the floor is %d, and the borrower holds %d of %d", free, floor[dim], batch.used[dim], batch.guaranteed[dim])
			}
		}
	})
}

// TestPreemptionSettles looks whether two queues preempt each other's containers in turn for ever. An app gives up what is
// preempted, and asks for it again.
func TestPreemptionSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lend := rapid.IntRange(1, 100).Draw(t, "lend")
		z := newLendingZone(t, Contract{
			Name: "nightly", Lender: "apps", Borrowers: []id.Queue{"batch"}, LendPercent: float64(lend),
			FloorPercent: float64(rapid.IntRange(0, 100-lend).Draw(t, "floor")), Windows: []Window{{start, start.Add(time.Hour)}},
		})
		asks := map[string]*SetAsk{}
		for seq := range int64(3) {
			for i := range rapid.IntRange(1, 4).Draw(t, "asks") {
				k := &SetAsk{App: id.App{ClusterStart: 1, Seq: seq + 1}, Ask: Ask{ID: fmt.Sprint(seq, i)}}
				k.Ask.Resources = resource.Vector{int64(rapid.IntRange(0, 12).Draw(t, "cpu")) * 250, int64(rapid.IntRange(1, 12).Draw(t, "memory")) << 28}
				k.Ask.Pending, k.Ask.Gang = rapid.IntRange(1, 10).Draw(t, "pending"), rapid.IntRange(0, 3).Draw(t, "gang") == 0
				asks[k.Ask.ID] = k
				z.apply(t, *k)
			}
		}
		for second := range 200 {
			d := z.core.Schedule(z.now)
			for _, grant := range d.Grants {
				asks[grant.Ask].Ask.Pending--
			}
			for _, n := range d.Notices {
				if second > 150 {
					t.Fatalf("after %d s in which nothing has changed, %s is preempted: %s", second, n.Container, n.Reason)
				}
				k := asks[z.core.containers.byID[n.Container].ask]
				k.Ask.Pending++
				z.apply(t, Release{Container: n.Container})
				z.apply(t, *k)
			}
			z.now = z.now.Add(time.Second)
		}
	})
}
