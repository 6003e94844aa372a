package term

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func (z *testZone) lending() apiv1.LendingClient { return apiv1.NewLendingClient(z.conn) }

// setTree divides the zone: services are guaranteed 70 % of it, batch 30 %.
func (z *testZone) setTree() {
	z.t.Helper()
	share := func(percent float64) *apiv1.Capacity { return &apiv1.Capacity{Percent: &percent} }
	_, err := apiv1.NewQueuesClient(z.conn).SetQueues(context.Background(), &apiv1.SetQueuesRequest{Queues: []*apiv1.QueueSpec{
		{Name: "root"},
		{Name: "services", Parent: "root", Guaranteed: share(70)},
		{Name: "batch", Parent: "root", Guaranteed: share(30), Notice: durationpb.New(5 * time.Second)},
	}})
	if err != nil {
		z.t.Fatal(err)
	}
}

func (z *testZone) addContract(spec *apiv1.ContractSpec) {
	z.t.Helper()
	if _, err := z.lending().AddContracts(context.Background(), &apiv1.AddContractsRequest{Contracts: []*apiv1.ContractSpec{spec}}); err != nil {
		z.t.Fatal(err)
	}
}

func (z *testZone) contract(name string) *apiv1.Contract {
	z.t.Helper()
	k, err := z.lending().GetContract(context.Background(), &apiv1.GetContractRequest{Name: name})
	if err != nil {
		z.t.Fatal(err)
	}
	return k
}

func nightly() *apiv1.ContractSpec {
	return &apiv1.ContractSpec{
		Name: "nightly", Lender: "services", Borrowers: []string{"batch"}, LendPercent: 60, FloorPercent: 25,
		Window: &apiv1.LendingWindow{Cron: "0 22 * * *", Duration: durationpb.New(9 * time.Hour)},
		Notice: durationpb.New(10 * time.Second), Grace: durationpb.New(10 * time.Second),
	}
}

// master deploys an app of a queue and runs its master on the node.
func (z *testZone) master(n *fakeNode, name, queue string) *fakeMaster {
	z.t.Helper()
	spec := webSpec(1)
	spec.Name, spec.Queue = name, queue
	z.deploy(spec)
	return n.launchMaster()
}

// ask asks for containers of half a core and runs those that are granted.
func (m *fakeMaster) ask(n *fakeNode, count int32) []string {
	m.z.t.Helper()
	wanted := ask1("work")
	wanted.Count = count
	var names []string
	for _, granted := range allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{wanted}})) {
		name := granted.GetLease().GetContainerId()
		n.run(name, nil)
		names = append(names, name)
	}
	return names
}

func notices(answers []*masterv1.AllocateResponse) []*masterv1.PreemptionNotice {
	var all []*masterv1.PreemptionNotice
	for _, answer := range answers {
		all = append(all, answer.GetPreemptions()...)
	}
	return all
}

func TestWhatIsBorrowedIsGivenBackAfterANotice(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.setTree()
		batch := z.master(n, "crunch", "batch")
		// 4 cores less two masters of 0.1 are room for seven of these.
		held := batch.ask(n, 8)
		if len(held) != 7 {
			t.Fatalf("batch was given %d containers of an idle zone, want 7", len(held))
		}
		services := z.master(n, "web", "services")
		if got := services.ask(n, 2); len(got) != 0 {
			t.Fatalf("services were given %d containers of a full zone", len(got))
		}
		given := notices(batch.heard())
		if len(given) != 2 {
			t.Fatalf("batch was given the notices %v, want two", given)
		}
		for _, notice := range given {
			left := time.Until(notice.GetDeadline().AsTime())
			if left <= 4*time.Second || left > 5*time.Second || !strings.Contains(notice.GetReason(), "services") {
				t.Errorf("notice %v, with %s left; the queue's notice is 5s", notice, left)
			}
			if n.stopped(notice.GetContainerId()) {
				t.Errorf("%s was stopped before its notice ran out", notice.GetContainerId())
			}
		}
		explanation, err := z.apps().ExplainApp(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		if text := explanation.String(); !strings.Contains(text, "room is being made: 2 containers of crunch are under notice until ") {
			t.Errorf("while the notices run services are told %s", text)
		}
		// A master that was away hears them again.
		batch.openStream()
		if again := notices(batch.heard()); len(again) != 2 {
			t.Errorf("after it came back batch was given the notices %v, want two", again)
		}

		n.mu.Lock()
		n.deaf.Store(true) // the stop takes its time, and the room is not free until then
		n.mu.Unlock()
		z.pass(6 * time.Second)
		if got := allocated(services.heard()); len(got) != 0 {
			t.Fatalf("services were given %v while the room was still held", got)
		}
		for _, notice := range given {
			if !n.stopped(notice.GetContainerId()) {
				t.Errorf("%s was not stopped after its notice", notice.GetContainerId())
			}
			n.done(notice.GetContainerId(), &corev1.Exit{Reason: corev1.Exit_PREEMPTED, Code: 143})
		}
		z.pass(time.Second)
		if got := allocated(services.heard()); len(got) != 2 {
			t.Errorf("services were given %d containers after the hand-back, want 2", len(got))
		}
		said := z.events("crunch")
		for _, words := range []string{"is to be gone by", "is to be stopped", "preempted"} {
			if !slices.ContainsFunc(said, func(e *apiv1.Event) bool { return strings.Contains(e.GetMessage(), words) }) {
				t.Errorf("no event of crunch says %q", words)
			}
		}
	})
}

// Work that is saved is not lost with its container. The newest containers would be preempted otherwise.
func TestContainersThatHaveSavedTheirWorkArePreemptedFirst(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.setTree()
		batch := z.master(n, "crunch", "batch")
		held := batch.ask(n, 8)
		z.pass(time.Hour)
		batch.say(&masterv1.AllocateRequest{Checkpoints: []string{held[0], held[3], "container_of_nobody"}})
		z.pass(time.Second)
		z.master(n, "web", "services").ask(n, 2)
		var given []string
		for _, notice := range notices(batch.heard()) {
			given = append(given, notice.GetContainerId())
		}
		slices.Sort(given)
		if want := []string{held[0], held[3]}; !slices.Equal(given, want) {
			t.Errorf("%v were given notices, want %v, which have saved their work", given, want)
		}
	})
}

func TestANoticeIsTakenBackWhenTheRoomIsNotNeeded(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.setTree()
		batch := z.master(n, "crunch", "batch")
		batch.ask(n, 8)
		services := z.master(n, "web", "services")
		services.ask(n, 1)
		given := notices(batch.heard())
		if len(given) != 1 {
			t.Fatalf("notices: %v, want one", given)
		}
		services.ask(n, 0)
		back := notices(batch.heard())
		if len(back) != 1 || !back[0].GetWithdrawn() || back[0].GetContainerId() != given[0].GetContainerId() {
			t.Fatalf("after services had withdrawn their ask batch was told %v", back)
		}
		z.pass(time.Minute)
		if n.stopped(given[0].GetContainerId()) {
			t.Error("a container was stopped whose notice was taken back")
		}
	})
}

func TestAContractLendsByTheCalendarAndByHand(t *testing.T) {
	daysInZone(t, func(z *testZone) { // the bubble's clock begins at midnight of 2000-01-01, in the middle of a window
		z.addNode("node-1")
		z.setTree()
		z.addContract(nightly())
		k := z.contract("nightly")
		if k.GetState() != apiv1.Contract_LENDING || k.GetClosesAt().AsTime().Format("15:04") != "07:00" || k.GetOpensAt().AsTime().Format("15:04") != "22:00" {
			t.Fatalf("at midnight: %v", k)
		}
		if lent := k.GetLent().GetCpuMillis(); lent != 1680 {
			t.Errorf("%d millicores are lent, want 60 %% of 70 %% of 4 cores", lent)
		}
		stopped, err := z.lending().StopLending(context.Background(), &apiv1.GetContractRequest{Name: "nightly"})
		if err != nil || stopped.GetState() != apiv1.Contract_RETURNING {
			t.Fatalf("stop: %v, %v", stopped, err)
		}
		if again, err := z.lending().StopLending(context.Background(), &apiv1.GetContractRequest{Name: "nightly"}); err != nil || !proto.Equal(again.GetClosesAt(), stopped.GetClosesAt()) {
			t.Errorf("stopped a second time: %v, %v", again, err)
		}
		z.pass(time.Hour)
		z.restart()
		if k := z.contract("nightly"); k.GetState() != apiv1.Contract_RESTING || k.GetOpensAt().AsTime().Format("2 15:04") != "1 22:00" {
			t.Fatalf("an hour after it was stopped, and a restart: %v", k)
		}
		if _, err := z.lending().StopLending(context.Background(), &apiv1.GetContractRequest{Name: "nightly"}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("stop without a window: %v", err)
		}

		now, err := z.lending().LendNow(context.Background(), &apiv1.LendNowRequest{Name: "nightly", For: durationpb.New(30 * time.Minute)})
		if err != nil || now.GetState() != apiv1.Contract_LENDING || time.Until(now.GetClosesAt().AsTime()) > 30*time.Minute {
			t.Fatalf("lend now: %v, %v", now, err)
		}
		// A window that is open is extended, never cut short.
		if k, err := z.lending().LendNow(context.Background(), &apiv1.LendNowRequest{Name: "nightly", For: durationpb.New(20 * time.Minute)}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("lend for less: %v, %v", k, err)
		}
		z.pass(10 * time.Minute)
		if k, err := z.lending().LendNow(context.Background(), &apiv1.LendNowRequest{Name: "nightly", For: durationpb.New(30 * time.Minute)}); err != nil || k.GetClosesAt().AsTime().Sub(now.GetClosesAt().AsTime()).Round(time.Minute) != 10*time.Minute {
			t.Errorf("lend for longer: %v, %v", k, err)
		}
		z.pass(29*time.Minute + 45*time.Second)
		if k := z.contract("nightly"); k.GetState() != apiv1.Contract_RETURNING {
			t.Errorf("15 s before the window closes: %v", k)
		}
		z.pass(time.Minute)
		if k := z.contract("nightly"); k.GetState() != apiv1.Contract_RESTING || len(k.GetLedger().GetHandBacks()) == 0 {
			t.Errorf("after the window: %v", k)
		}
		// Days go by; the windows are worked out again and again.
		z.pass(45 * time.Hour)
		k = z.contract("nightly")
		if k.GetState() != apiv1.Contract_LENDING || k.GetOpensAt() == nil {
			t.Errorf("days later, at night: %v", k)
		}
		var kept int
		for _, back := range k.GetLedger().GetHandBacks() {
			if back.GetKept() {
				kept++
			}
		}
		if kept != len(k.GetLedger().GetHandBacks()) || kept < 3 {
			t.Errorf("%d of the hand-backs %v were in time", kept, k.GetLedger().GetHandBacks())
		}
		for _, words := range []string{"contract nightly lends of services's guarantee", "fetched back", "lends nothing now"} {
			if !slices.ContainsFunc(z.events(""), func(e *apiv1.Event) bool { return e.GetKind() == "lending" && strings.Contains(e.GetMessage(), words) }) {
				t.Errorf("no event says %q", words)
			}
		}
	})
}

func TestALedgerOutlivesTheResourceManager(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.setTree()
		spec := nightly()
		spec.Window = nil
		z.addContract(spec)
		batch := z.master(n, "crunch", "batch")
		held := batch.ask(n, 8)
		if _, err := z.lending().LendNow(context.Background(), &apiv1.LendNowRequest{Name: "nightly", For: durationpb.New(10 * time.Minute)}); err != nil {
			t.Fatal(err)
		}
		z.pass(9*time.Minute + 42*time.Second)
		told := notices(batch.heard())
		if len(told) == 0 {
			t.Fatal("nobody was told of the hand-back")
		}
		// One goes as soon as it hears.
		n.done(told[0].GetContainerId(), &corev1.Exit{Reason: corev1.Exit_EXITED})
		z.pass(8 * time.Second)
		var gone int
		for _, name := range held {
			if n.stopped(name) {
				n.done(name, &corev1.Exit{Reason: corev1.Exit_PREEMPTED, Code: 143})
				gone++
			}
		}
		if gone == 0 {
			t.Fatal("nothing was stopped for the hand-back")
		}
		z.pass(time.Minute)
		report := func() *apiv1.ContractReport {
			answer, err := z.lending().GetReport(context.Background(), &apiv1.GetReportRequest{})
			if err != nil || len(answer.GetContracts()) != 1 {
				t.Fatalf("report: %v, %v", answer, err)
			}
			return answer.GetContracts()[0]
		}
		before := report()
		ledger := before.GetLedger()
		if ledger.GetReturnedContainers() != 1 || ledger.GetHandBacks()[0].GetReturnedContainers() != 1 {
			t.Errorf("one went before its deadline; the report says %v", before)
		}
		if ledger.GetStoppedContainers() != int64(gone) || before.GetHandBacks() != 1 || before.GetHandBacksKept() != 1 || before.GetSlowestHandBack().AsDuration() > 0 {
			t.Errorf("%d were stopped; the report says %v", gone, before)
		}
		if ledger.GetLentCoreSeconds() <= 0 || ledger.GetUsedCoreSeconds() <= 0 || ledger.GetLostCoreSeconds() <= 0 || before.GetLostPercent() <= 0 {
			t.Errorf("the ledger has %v", ledger)
		}
		z.restart()
		if after := report(); !proto.Equal(before, after) {
			t.Errorf("before the restart\n%v\nand after it\n%v", before, after)
		}
	})
}

func TestContainersThatEndInTimeAreLeftAloneAfterARestartToo(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.setTree()
		spec := nightly()
		spec.Window = nil
		z.addContract(spec)
		batch := z.master(n, "crunch", "batch")
		if _, err := z.lending().LendNow(context.Background(), &apiv1.LendNowRequest{Name: "nightly", For: durationpb.New(10 * time.Minute)}); err != nil {
			t.Fatal(err)
		}
		wanted := ask1("work")
		wanted.Count, wanted.Duration = 8, durationpb.New(9*time.Minute+45*time.Second)
		granted := allocated(batch.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{wanted}}))
		if len(granted) < 4 {
			t.Fatalf("batch was given %d containers, the test wants it to borrow", len(granted))
		}
		for _, each := range granted {
			n.run(each.GetLease().GetContainerId(), nil)
		}
		z.pass(5 * time.Minute)
		z.restart()
		n.register()
		batch.connect()
		batch.openStream()
		z.pass(4*time.Minute + 42*time.Second)
		if z.contract("nightly").GetState() != apiv1.Contract_RETURNING {
			t.Fatalf("the contract is %s", z.contract("nightly").GetState())
		}
		if told := notices(batch.heard()); len(told) != 0 {
			t.Errorf("they will have ended in time, and were given the notices %v", told)
		}
		for _, each := range granted {
			n.done(each.GetLease().GetContainerId(), &corev1.Exit{Reason: corev1.Exit_EXITED})
		}
		z.pass(time.Minute)
		if ledger := z.contract("nightly").GetLedger(); ledger.GetStoppedContainers() != 0 || len(ledger.GetHandBacks()) != 1 || !ledger.GetHandBacks()[0].GetKept() {
			t.Errorf("the ledger says %v", ledger)
		}
	})
}

func TestAContractThatCannotBeKeptIsRefused(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.setTree()
		z.addContract(nightly())
		for _, c := range []struct {
			name   string
			change func(*apiv1.ContractSpec)
			want   string
		}{
			{"no such lender", func(k *apiv1.ContractSpec) { k.Lender = "gold" }, `"gold", which is no queue`},
			{"no such borrower", func(k *apiv1.ContractSpec) { k.Borrowers = []string{"gold"} }, `"gold", which is no queue`},
			{"lends to itself", func(k *apiv1.ContractSpec) { k.Borrowers = []string{"services"} }, "not apart in the tree"},
			{"no time zone", func(k *apiv1.ContractSpec) { k.Window.Timezone = "Mars/Phobos" }, "is not a time zone"},
			{"no cron", func(k *apiv1.ContractSpec) { k.Window.Cron = "at night" }, "not a cron expression"},
			{"never", func(k *apiv1.ContractSpec) { k.Window.Cron = "0 0 30 2 *" }, "never fires"},
			{"all notice", func(k *apiv1.ContractSpec) {
				k.Window.Duration = durationpb.New(time.Minute)
				k.Notice = durationpb.New(time.Minute)
			}, "no longer than its notice"},
			{"a bad name", func(k *apiv1.ContractSpec) { k.Name = "a/b" }, "cannot be the name"},
			{"too much", func(k *apiv1.ContractSpec) { k.LendPercent = 80 }, "more than the guarantee"},
		} {
			good, bad := nightly(), nightly()
			good.Name, bad.Name = "other", "bad"
			c.change(bad)
			_, err := z.lending().AddContracts(context.Background(), &apiv1.AddContractsRequest{Contracts: []*apiv1.ContractSpec{good, bad}})
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		list, err := z.lending().ListContracts(context.Background(), &apiv1.ListContractsRequest{})
		if err != nil || len(list.GetContracts()) != 1 {
			t.Errorf("after files that were refused the contracts are %v, %v", list, err)
		}
		// A queue of a contract stays, and so does the tree's sum.
		half := 50.0
		_, err = apiv1.NewQueuesClient(z.conn).SetQueues(context.Background(), &apiv1.SetQueuesRequest{Queues: []*apiv1.QueueSpec{
			{Name: "root"}, {Name: "services", Parent: "root", Guaranteed: &apiv1.Capacity{Percent: &half}},
		}})
		if status.Code(err) == codes.OK {
			t.Error("a queue was taken away that a contract names")
		}
		for _, length := range []time.Duration{0, 20 * time.Second, 1000 * time.Hour} {
			if _, err := z.lending().LendNow(context.Background(), &apiv1.LendNowRequest{Name: "nightly", For: durationpb.New(length)}); status.Code(err) != codes.InvalidArgument {
				t.Errorf("lend for %s: %v", length, err)
			}
		}
		if _, err := z.lending().RemoveContract(context.Background(), &apiv1.GetContractRequest{Name: "nightly"}); err != nil {
			t.Error(err)
		}
		if _, err := z.lending().GetContract(context.Background(), &apiv1.GetContractRequest{Name: "nightly"}); status.Code(err) != codes.NotFound {
			t.Errorf("a contract that was removed: %v", err)
		}
		z.restart()
		if list, err := z.lending().ListContracts(context.Background(), &apiv1.ListContractsRequest{}); err != nil || len(list.GetContracts()) != 0 {
			t.Errorf("after a restart: %v, %v", list, err)
		}
	})
}

func TestQueuesStandBehindTheirParent(t *testing.T) {
	inZone(t, func(z *testZone) {
		ctx, queues := context.Background(), apiv1.NewQueuesClient(z.conn)
		tree := []*apiv1.QueueSpec{
			{Name: "root"},
			{Name: "services", Parent: "root"},
			{Name: "batch", Parent: "root"},
			{Name: "shop", Parent: "services"},
			{Name: "night", Parent: "batch"},
			{Name: "search", Parent: "services"},
		}
		dry, err := queues.SetQueues(ctx, &apiv1.SetQueuesRequest{Queues: tree, DryRun: true})
		if err != nil {
			z.t.Fatal(err)
		}
		set, err := queues.SetQueues(ctx, &apiv1.SetQueuesRequest{Queues: tree})
		if err != nil {
			z.t.Fatal(err)
		}
		list, err := queues.ListQueues(ctx, &apiv1.ListQueuesRequest{})
		if err != nil {
			z.t.Fatal(err)
		}
		for what, answer := range map[string]*apiv1.ListQueuesResponse{"a dry run": dry, "the change": set, "the list": list} {
			var names []string
			for _, queue := range answer.GetQueues() {
				names = append(names, queue.GetSpec().GetName())
			}
			if want := []string{"root", "services", "shop", "search", "batch", "night"}; !slices.Equal(names, want) {
				t.Errorf("%s gives %q, want %q", what, names, want)
			}
		}
	})
}

func TestADryRunTellsWhatWouldBe(t *testing.T) {
	inZone(t, func(z *testZone) {
		ctx, queues := context.Background(), apiv1.NewQueuesClient(z.conn)
		n := z.addNode("node-1")
		z.setTree()
		z.master(n, "web", "services")
		present, err := queues.ListQueues(ctx, &apiv1.ListQueuesRequest{})
		if err != nil {
			z.t.Fatal(err)
		}
		half := 50.0
		tree := []*apiv1.QueueSpec{
			{Name: "root"},
			{Name: "more", Parent: "root", Guaranteed: &apiv1.Capacity{Percent: &half}},
			{Name: "services", Parent: "more", Guaranteed: &apiv1.Capacity{Percent: &half}},
		}
		dry, err := queues.SetQueues(ctx, &apiv1.SetQueuesRequest{Queues: tree, DryRun: true})
		if err != nil {
			z.t.Fatal(err)
		}
		after, err := queues.ListQueues(ctx, &apiv1.ListQueuesRequest{})
		if err != nil {
			z.t.Fatal(err)
		}
		if !proto.Equal(present, after) {
			z.t.Errorf("a dry run changed the tree to %v", after)
		}
		set, err := queues.SetQueues(ctx, &apiv1.SetQueuesRequest{Queues: tree})
		if err != nil {
			z.t.Fatal(err)
		}
		if !proto.Equal(dry, set) {
			z.t.Errorf("the dry run told\n%v\nand there is\n%v", dry, set)
		}
		// A queue with an app cannot be given children, which a dry run says as well.
		under := append(slices.Clone(tree), &apiv1.QueueSpec{Name: "below", Parent: "services"})
		if _, err := queues.SetQueues(ctx, &apiv1.SetQueuesRequest{Queues: under, DryRun: true}); status.Code(err) != codes.FailedPrecondition {
			z.t.Errorf("children for a queue with an app: %v", err)
		}

		tree = append(tree, &apiv1.QueueSpec{Name: "batch", Parent: "root"})
		if _, err := queues.SetQueues(ctx, &apiv1.SetQueuesRequest{Queues: tree}); err != nil {
			z.t.Fatal(err)
		}
		request := &apiv1.AddContractsRequest{Contracts: []*apiv1.ContractSpec{nightly()}, DryRun: true}
		would, err := z.lending().AddContracts(ctx, request)
		if err != nil {
			z.t.Fatal(err)
		}
		none, err := z.lending().ListContracts(ctx, &apiv1.ListContractsRequest{})
		if err != nil || len(none.GetContracts()) != 0 {
			z.t.Errorf("a dry run left %v, %v", none, err)
		}
		request.DryRun = false
		is, err := z.lending().AddContracts(ctx, request)
		if err != nil {
			z.t.Fatal(err)
		}
		is.GetContracts()[0].Lent = would.GetContracts()[0].GetLent() // known only once it lends
		if !proto.Equal(would, is) {
			z.t.Errorf("the dry run told\n%v\nand there is\n%v", would, is)
		}
	})
}

func TestWindowsThatFollowEachOtherAreAlwaysOpen(t *testing.T) {
	daysInZone(t, func(z *testZone) {
		z.addNode("node-1")
		z.setTree()
		spec := nightly()
		spec.Window = &apiv1.LendingWindow{Cron: "* * * * *", Duration: durationpb.New(time.Hour)}
		z.addContract(spec)
		k := z.contract("nightly")
		if k.GetState() != apiv1.Contract_LENDING || k.GetClosesAt() != nil || k.GetOpensAt() != nil {
			t.Errorf("a window that opens every minute for an hour: %v", k)
		}
		z.pass(26 * time.Hour)
		if k := z.contract("nightly"); k.GetState() != apiv1.Contract_LENDING || k.GetClosesAt() != nil {
			t.Errorf("after a day: %v", k)
		}
		_, err := z.lending().LendNow(context.Background(), &apiv1.LendNowRequest{Name: "nightly", For: durationpb.New(time.Hour)})
		if err == nil || !strings.Contains(err.Error(), "is always open") {
			t.Errorf("lend now: %v", err)
		}
		if stopped, err := z.lending().StopLending(context.Background(), &apiv1.GetContractRequest{Name: "nightly"}); err != nil || stopped.GetState() != apiv1.Contract_RETURNING {
			t.Errorf("stop: %v, %v", stopped, err)
		}
		z.pass(time.Hour)
		if k := z.contract("nightly"); k.GetState() != apiv1.Contract_RESTING {
			t.Errorf("after it was stopped: %v", k)
		}
		if again, err := z.lending().LendNow(context.Background(), &apiv1.LendNowRequest{Name: "nightly", For: durationpb.New(time.Hour)}); err != nil || again.GetState() != apiv1.Contract_LENDING || again.GetClosesAt() != nil {
			t.Errorf("lend now after a stop: %v, %v", again, err)
		}
	})
}

func TestAZoneHasABoundedNumberOfContracts(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		z.setTree()
		request := &apiv1.AddContractsRequest{}
		for i := range 100 + 1 {
			spec := nightly()
			spec.Name = fmt.Sprintf("nightly-%d", i)
			request.Contracts = append(request.Contracts, spec)
		}
		if _, err := z.lending().AddContracts(context.Background(), request); err == nil || !strings.Contains(err.Error(), "100 lending contracts at most") {
			t.Errorf("%v", err)
		}
	})
}
