package shares

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/calendar"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// mostHandBacks is how many a ledger remembers one by one.
const mostHandBacks = 100

// ViewAll is how every contract stands, in the order in which they were added.
func (l *Lending) ViewAll() *apiv1.ListContractsResponse {
	ledgers := l.ledgers()
	response := &apiv1.ListContractsResponse{}
	for _, k := range l.sorted() {
		response.Contracts = append(response.Contracts, l.view(k, ledgers[k.name()]))
	}
	return response
}

// view is how a contract stands, by the ledger of the scheduler.
func (l *Lending) view(k *contract, ledger scheduler.Ledger) *apiv1.Contract {
	view := &apiv1.Contract{
		Spec: k.record.GetSpec(), State: apiv1.Contract_RESTING, Ledger: sumLedger(k.before, ledger),
		Lent: l.zone.Units.Resources(ledger.Lent), Borrowed: l.zone.Units.Resources(ledger.Borrowed),
	}
	if ledger.Open {
		view.State = apiv1.Contract_LENDING
		if !ledger.Closing.Equal(calendar.Forever()) {
			view.ClosesAt = timestamppb.New(ledger.Closing)
		}
		if !l.zone.Turn.Now().Before(ledger.Closing.Add(-k.handBackTakes())) {
			view.State = apiv1.Contract_RETURNING
		}
	}
	for _, w := range k.windows {
		if w.Open.After(l.zone.Turn.Now()) {
			view.OpensAt = timestamppb.New(w.Open)
			break
		}
	}
	return view
}

// sumLedger adds what the scheduler has counted since the start to what was stored before it.
func sumLedger(before *apiv1.Ledger, since scheduler.Ledger) *apiv1.Ledger {
	sum := &apiv1.Ledger{
		LentCoreSeconds:    before.GetLentCoreSeconds() + since.LentCoreSeconds,
		UsedCoreSeconds:    before.GetUsedCoreSeconds() + since.UsedCoreSeconds,
		LostCoreSeconds:    before.GetLostCoreSeconds() + since.LostCoreSeconds,
		StoppedContainers:  before.GetStoppedContainers() + int64(since.Stopped),
		ReturnedContainers: before.GetReturnedContainers() + int64(since.Returned),
	}
	sum.ReturnedCoreSeconds = sum.GetLentCoreSeconds() - sum.GetUsedCoreSeconds()
	sum.HandBacks = append(sum.HandBacks, before.GetHandBacks()...)
	for _, back := range since.HandBacks {
		view := &apiv1.HandBack{
			PromisedAt: timestamppb.New(back.Promised), StoppedContainers: int64(back.Stopped), ReturnedContainers: int64(back.Returned),
		}
		if !back.Done.IsZero() {
			view.DoneAt, view.Kept = timestamppb.New(back.Done), !back.Done.After(back.Promised)
		}
		sum.HandBacks = append(sum.HandBacks, view)
	}
	if more := len(sum.GetHandBacks()) - mostHandBacks; more > 0 {
		sum.HandBacks = sum.GetHandBacks()[more:]
	}
	return sum
}

// Report is what every contract has come to, and the sum of that.
func (l *Lending) Report() *apiv1.LendingReport {
	report := &apiv1.LendingReport{Time: timestamppb.New(l.zone.Turn.Now()), Total: &apiv1.Ledger{}}
	for _, k := range l.ViewAll().GetContracts() {
		ledger := k.GetLedger()
		one := &apiv1.ContractReport{
			Name: k.GetSpec().GetName(), Lender: k.GetSpec().GetLender(), Borrowers: k.GetSpec().GetBorrowers(),
			State: k.GetState(), Ledger: ledger,
		}
		if used := ledger.GetUsedCoreSeconds(); used > 0 {
			one.LostPercent = 100 * ledger.GetLostCoreSeconds() / used
		}
		for _, back := range ledger.GetHandBacks() {
			one.HandBacks++
			if back.GetKept() {
				one.HandBacksKept++
			}
			if back.GetDoneAt() == nil {
				continue
			}
			took := back.GetDoneAt().AsTime().Sub(back.GetPromisedAt().AsTime()).Round(time.Millisecond)
			if one.GetSlowestHandBack() == nil || took > one.GetSlowestHandBack().AsDuration() {
				one.SlowestHandBack = durationpb.New(took)
			}
		}
		report.Contracts = append(report.Contracts, one)
		total := report.GetTotal()
		total.LentCoreSeconds += ledger.GetLentCoreSeconds()
		total.UsedCoreSeconds += ledger.GetUsedCoreSeconds()
		total.ReturnedCoreSeconds += ledger.GetReturnedCoreSeconds()
		total.LostCoreSeconds += ledger.GetLostCoreSeconds()
		total.StoppedContainers += ledger.GetStoppedContainers()
		total.ReturnedContainers += ledger.GetReturnedContainers()
	}
	return report
}
