package shares

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/calendar"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

const (
	defaultNotice = 2 * time.Minute
	defaultGrace  = 30 * time.Second
	longestNotice = 24 * time.Hour
	// The calendar is read again this often, or when the last known window opens.
	readCalendarEvery = 12 * time.Hour
	// mostContracts is how many there may be: each pass of the scheduler looks at all of them.
	mostContracts = 100
	// A ledger that grows is stored this often.
	saveLedgerEvery = time.Minute
)

// Lending is the contracts by which queues lend each other parts of their guarantees. What is lent is the scheduler's to work out.
type Lending struct {
	zone   Zone
	byName map[string]*contract
	// withoutQueues are contracts whose queues were lost.
	withoutQueues map[string]*contract
	// readCalendarAt is when the windows of contracts are worked out again.
	readCalendarAt time.Time
	// outdated says that the states of contracts may have changed.
	outdated bool
}

// Load takes in the stored contracts. If it fails because queues are missing, Restore tries again.
func (l *Lending) Load(records []*storev1.Contract) error {
	if len(records) == 0 {
		return nil
	}
	contracts := map[string]*contract{}
	for _, record := range records {
		contracts[record.GetSpec().GetName()] = &contract{record: record, before: record.GetLedger(), state: apiv1.Contract_RESTING}
	}
	err := l.set(contracts)
	if err != nil {
		l.withoutQueues = contracts
	}
	return err
}

// Restore gives the scheduler the contracts whose queues were lost and are there again.
func (l *Lending) Restore() error {
	if l.withoutQueues == nil {
		return nil
	}
	if err := l.set(l.withoutQueues); err != nil {
		return fmt.Errorf("the lending contracts have no queues: %w; set the queue tree first, as it was before, with \"mammoth queue set\": %w", err, errdefs.ErrFailedPrecondition)
	}
	l.withoutQueues = nil
	return nil
}

func (l *Lending) sorted() []*contract { return byPosition(l.byName) }

// named is the contract with a name, or an error for a person who asked for it.
func (l *Lending) named(name string) (*contract, error) {
	k := l.byName[name]
	if k == nil {
		return nil, fmt.Errorf("no lending contract is named %q; \"mammoth lend ls\" lists those that there are: %w", name, errdefs.ErrNotFound)
	}
	return k, nil
}

// Contract is how a contract stands. It fails with errdefs.ErrNotFound if there is none of the name.
func (l *Lending) Contract(name string) (*apiv1.Contract, error) {
	k, err := l.named(name)
	if err != nil {
		return nil, err
	}
	return l.view(k, l.ledgers()[name]), nil
}

// changeable finds a contract that somebody wants to change.
func (l *Lending) changeable(who peer.User, name string) (*contract, error) {
	k, err := l.named(name)
	if err != nil {
		return nil, err
	}
	return k, l.zone.Access.MayLend(who, k.record.GetSpec().GetLender())
}

// set replaces all contracts, or changes nothing.
func (l *Lending) set(contracts map[string]*contract) error {
	specs, err := withWindows(contracts, l.zone.Turn.Now())
	if err != nil {
		return err
	}
	if err := l.zone.Scheduler.Apply(scheduler.SetContracts{Contracts: specs}); err != nil {
		return err
	}
	l.noteSet(contracts, specs)
	return nil
}

// preview is how contracts would stand if they replaced all others; nothing changes. How much one lends
// is known only after the scheduler's pass, and is left out of those that would be new.
func (l *Lending) preview(contracts map[string]*contract) (*apiv1.ListContractsResponse, error) {
	specs, err := withWindows(contracts, l.zone.Turn.Now())
	if err != nil {
		return nil, err
	}
	if err := scheduler.CheckContracts(specs, l.queueSpecs()); err != nil {
		return nil, err
	}
	ledgers := l.ledgers()
	response := &apiv1.ListContractsResponse{}
	for i, k := range byPosition(contracts) {
		would, ledger := *k, ledgers[k.name()]
		if would.windows = specs[i].Windows; k != l.byName[k.name()] {
			window, open := would.open(l.zone.Turn.Now())
			ledger.Open, ledger.Closing = open, window.Close
			ledger.Lent, ledger.Borrowed = resource.Vector{}, resource.Vector{}
		}
		response.Contracts = append(response.Contracts, l.view(&would, ledger))
	}
	return response, nil
}

// noteSet notes the contracts that the scheduler has taken in.
func (l *Lending) noteSet(contracts map[string]*contract, specs []scheduler.Contract) {
	l.byName, l.readCalendarAt, l.outdated = contracts, l.zone.Turn.Now().Add(readCalendarEvery), true
	for _, spec := range specs {
		k := contracts[spec.Name]
		if k.windowsOf != k.record || !l.zone.Turn.Now().Before(k.readAgain) {
			k.windows, k.windowsOf, k.readAgain = spec.Windows, k.record, l.zone.Turn.Now().Add(readCalendarEvery)
			if last := len(k.windows) - 1; last >= 0 && k.windows[last].Open.After(l.zone.Turn.Now()) && k.windows[last].Open.Before(k.readAgain) {
				k.readAgain = k.windows[last].Open
			}
		}
		if k.readAgain.Before(l.readCalendarAt) {
			l.readCalendarAt = k.readAgain
		}
	}
}

func (l *Lending) queueSpecs() []scheduler.QueueSpec {
	var specs []scheduler.QueueSpec
	for _, usage := range l.zone.Scheduler.Queues() {
		specs = append(specs, usage.Spec)
	}
	return specs
}

// notDeclared refuses to change a contract that the queue file holds.
func (l *Lending) notDeclared(k *contract) error {
	if l.zone.File != "" && k.record.GetDeclared() {
		return fmt.Errorf("contract %s is declared in %s; change that file, which takes effect within a second: %w", k.name(), l.zone.File, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// contractChange is what follows from the contracts of the queue file.
type contractChange struct {
	contracts map[string]*contract
	specs     []scheduler.Contract
	// removed are the contracts that the file does not hold any more, set those that it holds anew or differently.
	removed, set []*contract
}

// declare works out what follows from the contracts of the queue file. Contracts that people have added stay.
func (l *Lending) declare(declared []*apiv1.ContractSpec) (contractChange, error) {
	contracts, err := l.with(declared)
	if err != nil {
		return contractChange{}, err
	}
	change := contractChange{contracts: contracts}
	for _, k := range l.sorted() {
		if k.record.GetDeclared() && !slices.ContainsFunc(declared, func(spec *apiv1.ContractSpec) bool { return spec.GetName() == k.name() }) {
			delete(contracts, k.name())
			change.removed = append(change.removed, k)
		}
	}
	for _, spec := range declared {
		k := contracts[spec.GetName()]
		known := l.byName[spec.GetName()]
		if known == nil || !known.record.GetDeclared() || !proto.Equal(known.record.GetSpec(), spec) {
			change.set = append(change.set, k)
		}
		k.record.Declared = true
	}
	change.specs, err = withWindows(contracts, l.zone.Turn.Now())
	return change, err
}

// adopt notes a change that the scheduler has taken in.
func (l *Lending) adopt(change contractChange) {
	l.noteSet(change.contracts, change.specs)
	for _, k := range change.removed {
		l.removed(k)
	}
	for _, k := range change.set {
		l.added(k)
	}
}

// Add adds contracts, or replaces those of the same names, all or none. A ledger goes on under its name. The answer is a preview if one
// was asked for, and otherwise nil: how contracts stand is known after the scheduler's next pass.
func (l *Lending) Add(who peer.User, request *apiv1.AddContractsRequest) (*apiv1.ListContractsResponse, error) {
	if len(request.GetContracts()) == 0 {
		return nil, fmt.Errorf("no lending contract was given: %w", errdefs.ErrInvalidArgument)
	}
	for _, spec := range request.GetContracts() {
		if known := l.byName[spec.GetName()]; known != nil {
			if err := l.zone.Access.MayLend(who, known.record.GetSpec().GetLender()); err != nil {
				return nil, err
			}
			if err := l.notDeclared(known); err != nil {
				return nil, err
			}
		}
		if err := l.zone.Access.MayLend(who, spec.GetLender()); err != nil {
			return nil, err
		}
	}
	contracts, err := l.with(request.GetContracts())
	if err != nil {
		return nil, err
	}
	for _, spec := range request.GetContracts() {
		contracts[spec.GetName()].record.Declared = false
	}
	if request.GetDryRun() {
		return l.preview(contracts)
	}
	if err := l.set(contracts); err != nil {
		return nil, err
	}
	for _, spec := range request.GetContracts() {
		k := l.byName[spec.GetName()]
		l.added(k)
	}
	return nil, nil
}

// with are the present contracts with some added, or replaced by name.
func (l *Lending) with(specs []*apiv1.ContractSpec) (map[string]*contract, error) {
	contracts := maps.Clone(l.byName)
	position := int64(0)
	for _, k := range l.byName {
		position = max(position, k.record.GetPosition())
	}
	given := map[string]bool{}
	for _, spec := range specs {
		if given[spec.GetName()] {
			return nil, fmt.Errorf("lending contract %s is there twice: %w", spec.GetName(), errdefs.ErrInvalidArgument)
		}
		given[spec.GetName()] = true
		position++
		k := &contract{record: &storev1.Contract{Spec: spec, Position: position, Ledger: &apiv1.Ledger{}}, state: apiv1.Contract_RESTING}
		if known := l.byName[spec.GetName()]; known != nil {
			*k = *known
			k.record = proto.CloneOf(known.record)
			k.record.Spec = spec
			if !proto.Equal(known.record.GetSpec().GetWindow(), spec.GetWindow()) {
				k.record.StoppedUntil = nil // other windows were stopped
			}
		}
		if err := checkContract(k.record); err != nil {
			return nil, err
		}
		contracts[spec.GetName()] = k
	}
	if len(contracts) > mostContracts {
		return nil, fmt.Errorf("a zone has %d lending contracts at most; \"mammoth lend rm\" removes one: %w", mostContracts, errdefs.ErrFailedPrecondition)
	}
	return contracts, nil
}

// Remove removes a contract. What it lends is returned.
func (l *Lending) Remove(who peer.User, name string) error {
	k, err := l.changeable(who, name)
	if err != nil {
		return err
	}
	if err := l.notDeclared(k); err != nil {
		return err
	}
	contracts := maps.Clone(l.byName)
	delete(contracts, name)
	if err := l.set(contracts); err != nil {
		return err
	}
	l.removed(k)
	return nil
}

// LendNow opens a window by hand.
func (l *Lending) LendNow(who peer.User, request *apiv1.LendNowRequest) error {
	k, err := l.changeable(who, request.GetName())
	if err != nil {
		return err
	}
	length := request.GetFor().AsDuration()
	switch takes := k.handBackTakes(); {
	case length <= takes:
		return fmt.Errorf("contract %s takes %s to hand back what is lent; lend for longer than that, not %s: %w", k.name(), takes, length, errdefs.ErrInvalidArgument)
	case length > calendar.Longest:
		return fmt.Errorf("a window is open for 31 days at most, not %s: %w", length, errdefs.ErrInvalidArgument)
	}
	until := l.zone.Turn.Now().Add(length)
	if open, is := k.open(l.zone.Turn.Now()); is && open.Close.Equal(calendar.Forever()) {
		return fmt.Errorf("contract %s is always open, since its windows follow each other without a break: %w", k.name(), errdefs.ErrFailedPrecondition)
	} else if is && !until.After(open.Close) {
		return fmt.Errorf("contract %s lends until %s already, which is not sooner than in %s; say a longer time to extend it, or end it with \"mammoth lend stop %s\": %w",
			k.name(), open.Close.UTC().Format("2006-01-02 15:04:05 MST"), length, k.name(), errdefs.ErrFailedPrecondition)
	}
	return l.alter(k, func(record *storev1.Contract) {
		record.LendFrom, record.LendUntil = timestamppb.New(l.zone.Turn.Now()), timestamppb.New(until)
		if stopped := record.GetStoppedUntil(); stopped != nil && stopped.AsTime().Equal(calendar.Forever()) {
			record.StoppedUntil = nil // one that is always open opens again in no other way
		}
	})
}

// Stop ends the open window; it opens again at the calendar's next one.
func (l *Lending) Stop(who peer.User, name string) error {
	k, err := l.changeable(who, name)
	if err != nil {
		return err
	}
	open, is := k.open(l.zone.Turn.Now())
	if !is {
		if l.view(k, l.ledgers()[name]).GetState() == apiv1.Contract_RETURNING {
			return nil
		}
		return fmt.Errorf("contract %s has no open window: %w", name, errdefs.ErrFailedPrecondition)
	}
	return l.alter(k, func(record *storev1.Contract) {
		record.LendFrom, record.LendUntil, record.StoppedUntil = nil, nil, timestamppb.New(open.Close)
	})
}

// alter changes the record of one contract. How it stands is known after the scheduler's next pass.
func (l *Lending) alter(k *contract, change func(*storev1.Contract)) error {
	changed := *k
	changed.record = proto.CloneOf(k.record)
	change(changed.record)
	contracts := maps.Clone(l.byName)
	contracts[k.name()] = &changed
	if err := l.set(contracts); err != nil {
		return err
	}
	l.saveContract(&changed)
	return nil
}

func (l *Lending) ledgers() map[string]scheduler.Ledger {
	ledgers := map[string]scheduler.Ledger{}
	for _, ledger := range l.zone.Scheduler.Ledgers() {
		ledgers[ledger.Contract] = ledger
	}
	return ledgers
}

// Due reads the calendar again before the known windows are over.
func (l *Lending) Due() {
	if len(l.byName) == 0 {
		return
	}
	l.outdated = true
	if !l.zone.Turn.Now().Before(l.readCalendarAt) {
		if err := l.set(l.byName); err != nil {
			l.zone.Turn.Fault("read the calendar of lending contracts", "error", err)
			l.readCalendarAt = l.zone.Turn.Now().Add(time.Minute)
		}
	}
}

// UpdateStates emits events about windows that have opened and closed, and stores ledgers.
func (l *Lending) UpdateStates() {
	if !l.outdated {
		return
	}
	l.outdated = false
	ledgers := l.ledgers()
	for _, k := range l.sorted() {
		now := l.view(k, ledgers[k.name()])
		was := k.state
		k.state = now.GetState()
		handBacks := len(k.record.GetLedger().GetHandBacks())
		moved := was != k.state || handBacks != len(now.GetLedger().GetHandBacks()) ||
			k.record.GetLedger().GetStoppedContainers() != now.GetLedger().GetStoppedContainers() ||
			k.record.GetLedger().GetReturnedContainers() != now.GetLedger().GetReturnedContainers()
		if moved || l.zone.Turn.Now().Sub(k.saved) >= saveLedgerEvery && !proto.Equal(k.record.GetLedger(), now.GetLedger()) {
			record := proto.CloneOf(k.record)
			record.Ledger = now.GetLedger()
			k.record = record
			l.saveContract(k)
		}
		if was != k.state {
			l.emitEvent(k, was.String(), k.state.String(), stateSentence(now))
		}
	}
}

func stateSentence(k *apiv1.Contract) string {
	name, lender := k.GetSpec().GetName(), k.GetSpec().GetLender()
	closes := k.GetClosesAt().AsTime().Format(time.RFC3339)
	switch k.GetState() {
	case apiv1.Contract_LENDING:
		if k.GetClosesAt() == nil {
			return fmt.Sprintf("contract %s lends of %s's guarantee, and is always open", name, lender)
		}
		return fmt.Sprintf("contract %s lends of %s's guarantee until %s", name, lender, closes)
	case apiv1.Contract_RETURNING:
		return fmt.Sprintf("what contract %s lends is fetched back; %s has it all at %s", name, lender, closes)
	}
	return fmt.Sprintf("contract %s lends nothing now", name)
}

func (l *Lending) saveContract(k *contract) {
	k.saved = l.zone.Turn.Now()
	l.zone.Turn.Save(KindContract, k.name(), k.record)
}

func (l *Lending) emitEvent(k *contract, from, to, message string) {
	l.zone.Turn.Emit(&apiv1.Event{Kind: "lending", Queue: k.record.GetSpec().GetLender(), From: from, To: to, Message: message})
}

func (l *Lending) added(k *contract) {
	l.saveContract(k)
	spec := k.record.GetSpec()
	l.emitEvent(k, "", "", fmt.Sprintf("contract %s was set: %s lends %g%% of its guarantee", k.name(), spec.GetLender(), spec.GetLendPercent()))
}

func (l *Lending) removed(k *contract) {
	l.zone.Turn.Forget(KindContract, k.name())
	l.emitEvent(k, "", "", fmt.Sprintf("contract %s was removed", k.name()))
}
