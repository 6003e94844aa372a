package zone

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/resource"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/calendar"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

const (
	defaultNotice = 2 * time.Minute
	defaultGrace  = 30 * time.Second
	longestNotice = 24 * time.Hour
	// The calendar is read again this often, or when the last window that it gave opens.
	readCalendarEvery = 12 * time.Hour
	// mostContracts is how many there may be: each pass of the scheduler looks at all of them.
	mostContracts = 100
	// A ledger that grows is written down this often.
	saveLedgerEvery = time.Minute
)

// contract is one lending contract. What is not in its record is lost when the ResourceManager ends.
type contract struct {
	record *storev1.Contract
	// windows are the present and the next ones, by the calendar and by hand. They were worked out from the record windowsOf, and are
	// good until readAgain.
	windows   []scheduler.Window
	windowsOf *storev1.Contract
	readAgain time.Time
	// before is what the ledger came to before this ResourceManager was started.
	before *apiv1.Ledger
	// state is the one of the last event, saved is when the ledger was stored last.
	state apiv1.Contract_State
	saved time.Time
}

// lending is the contracts by which queues lend each other parts of their guarantees. What is lent is the scheduler's to work out. A ledger
// is what a contract came to; a window is the time in which it lends; the hand-back returns what is lent at the close of a window.
type lending struct {
	*turn
	config    *config
	units     *units
	scheduler *scheduling
	access    *access.Rules
	damage    *damage
	byName    map[string]*contract
	// withoutQueues are contracts whose queues were lost.
	withoutQueues map[string]*contract
	// readCalendarAt is when the windows of contracts are worked out again.
	readCalendarAt time.Time
	// outdated says that the states of contracts may have changed.
	outdated bool
}

func (k *contract) name() string { return k.record.GetSpec().GetName() }

// handBackTakes is how long before the close of a window its hand-back begins.
func (k *contract) handBackTakes() time.Duration { return notice(k.record) + grace(k.record) }

func notice(record *storev1.Contract) time.Duration {
	return durationOr(record.GetSpec().GetNotice(), defaultNotice)
}

func grace(record *storev1.Contract) time.Duration {
	return durationOr(record.GetSpec().GetGrace(), defaultGrace)
}

func durationOr(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}

// open reports whether a window is open at now, and which.
func (k *contract) open(now time.Time) (scheduler.Window, bool) {
	for _, w := range k.windows {
		if !now.Before(w.Open) && now.Before(w.Close) {
			return w, true
		}
	}
	return scheduler.Window{}, false
}

func (l *lending) load(stored Records) error {
	contracts := map[string]*contract{}
	err := loadRecords(stored, kindContract, func(record *storev1.Contract) error {
		contracts[record.GetSpec().GetName()] = &contract{record: record, before: record.GetLedger(), state: apiv1.Contract_RESTING}
		return nil
	})
	if err != nil || len(contracts) == 0 {
		return l.damage.tolerate(err)
	}
	if err = l.set(contracts); err != nil && l.damage.standsStill() {
		l.withoutQueues = contracts
	}
	return l.damage.tolerate(err)
}

// restore gives the scheduler the contracts whose queues were lost and are there again.
func (l *lending) restore() error {
	if l.withoutQueues == nil {
		return nil
	}
	if err := l.set(l.withoutQueues); err != nil {
		return fmt.Errorf("the lending contracts have no queues: %w; set the queue tree first, as it was before, with \"mammoth queue set\": %w", err, errdefs.ErrFailedPrecondition)
	}
	l.withoutQueues = nil
	return nil
}

func (l *lending) sorted() []*contract { return byPosition(l.byName) }

func byPosition(contracts map[string]*contract) []*contract {
	return slices.SortedFunc(maps.Values(contracts), func(a, b *contract) int {
		return cmp.Compare(a.record.GetPosition(), b.record.GetPosition())
	})
}

func (l *lending) named(name string) (*contract, error) {
	k := l.byName[name]
	if k == nil {
		return nil, fmt.Errorf("no lending contract is named %q; \"mammoth lend ls\" lists those that there are: %w", name, errdefs.ErrNotFound)
	}
	return k, nil
}

// changeable finds a contract that somebody wants to change.
func (l *lending) changeable(who peer.User, name string) (*contract, error) {
	k, err := l.named(name)
	if err != nil {
		return nil, err
	}
	return k, l.access.MayLend(who, k.record.GetSpec().GetLender())
}

// checkContract finds what is wrong with a contract by itself. The queues are the scheduler's to check.
func checkContract(record *storev1.Contract) error {
	spec := record.GetSpec()
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("lending contract %s: "+format+": %w", append(append([]any{spec.GetName()}, args...), errdefs.ErrInvalidArgument)...)
	}
	for _, length := range []time.Duration{notice(record), grace(record)} {
		if length < 0 || length > longestNotice {
			return refuse("notice and grace are up to a day, not %s", length)
		}
	}
	window, planned := calendarWindow(spec)
	if err := specs.CheckQueueName("a contract", spec.GetName()); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if !planned {
		return nil
	}
	if err := window.Check(); err != nil {
		return fmt.Errorf("lending contract %s: %w", spec.GetName(), err)
	}
	if takes := notice(record) + grace(record); window.Duration <= takes {
		return refuse("its window of %s is no longer than its notice and grace, %s, in which nothing is lent", window.Duration, takes)
	}
	return nil
}

func calendarWindow(spec *apiv1.ContractSpec) (w calendar.Window, planned bool) {
	given := spec.GetWindow()
	return calendar.Window{Cron: given.GetCron(), Duration: given.GetDuration().AsDuration(), Timezone: given.GetTimezone()}, given != nil
}

// windowsOf works out a contract's windows from now on.
func windowsOf(record *storev1.Contract, now time.Time) ([]scheduler.Window, error) {
	var windows []scheduler.Window
	if planned, ok := calendarWindow(record.GetSpec()); ok {
		foreseen, err := windowsAhead(planned, now)
		if err != nil {
			return nil, fmt.Errorf("lending contract %s: %w", record.GetSpec().GetName(), err)
		}
		for _, w := range foreseen {
			if stopped := record.GetStoppedUntil(); stopped == nil || !w.Open.Before(stopped.AsTime()) {
				windows = append(windows, w)
			}
		}
	}
	if until := record.GetLendUntil(); until != nil && until.AsTime().After(now) {
		windows = append(windows, scheduler.Window{Open: record.GetLendFrom().AsTime(), Close: until.AsTime()})
	}
	return calendar.Merge(windows), nil
}

// windowsAhead gives the window that is open and at least one to come, if there is one.
func windowsAhead(w calendar.Window, now time.Time) ([]scheduler.Window, error) {
	windows, err := w.Ahead(now)
	if err != nil {
		return nil, err
	}
	if len(windows) == 0 {
		return nil, fmt.Errorf("the cron expression %q never comes true, so the window would never open: %w", w.Cron, errdefs.ErrInvalidArgument)
	}
	return windows, nil
}

// set replaces all contracts, or changes nothing.
func (l *lending) set(contracts map[string]*contract) error {
	specs, err := withWindows(contracts, l.now)
	if err != nil {
		return err
	}
	if err := l.scheduler.Apply(scheduler.SetContracts{Contracts: specs}); err != nil {
		return err
	}
	l.noteSet(contracts, specs)
	return nil
}

// preview is how contracts would stand if they replaced all others; nothing changes. How much one lends
// is known only after the scheduler's pass, and is left out of those that would be new.
func (l *lending) preview(contracts map[string]*contract) (*apiv1.ListContractsResponse, error) {
	specs, err := withWindows(contracts, l.now)
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
			window, open := would.open(l.now)
			ledger.Open, ledger.Closing = open, window.Close
			ledger.Lent, ledger.Borrowed = resource.Vector{}, resource.Vector{}
		}
		response.Contracts = append(response.Contracts, l.view(&would, ledger))
	}
	return response, nil
}

// withWindows are contracts for the scheduler, with their windows from now on.
func withWindows(contracts map[string]*contract, now time.Time) ([]scheduler.Contract, error) {
	specs := []scheduler.Contract{}
	for _, k := range byPosition(contracts) {
		windows := k.windows
		if k.windowsOf != k.record || !now.Before(k.readAgain) {
			var err error
			if windows, err = windowsOf(k.record, now); err != nil {
				return nil, err
			}
		}
		specs = append(specs, coreContract(k.record, windows))
	}
	return specs, nil
}

// noteSet notes the contracts that the scheduler has taken in.
func (l *lending) noteSet(contracts map[string]*contract, specs []scheduler.Contract) {
	l.byName, l.readCalendarAt, l.outdated = contracts, l.now.Add(readCalendarEvery), true
	for _, spec := range specs {
		k := contracts[spec.Name]
		if k.windowsOf != k.record || !l.now.Before(k.readAgain) {
			k.windows, k.windowsOf, k.readAgain = spec.Windows, k.record, l.now.Add(readCalendarEvery)
			if last := len(k.windows) - 1; last >= 0 && k.windows[last].Open.After(l.now) && k.windows[last].Open.Before(k.readAgain) {
				k.readAgain = k.windows[last].Open
			}
		}
		if k.readAgain.Before(l.readCalendarAt) {
			l.readCalendarAt = k.readAgain
		}
	}
}

func coreContract(record *storev1.Contract, windows []scheduler.Window) scheduler.Contract {
	spec := record.GetSpec()
	k := scheduler.Contract{
		Name: spec.GetName(), Lender: id.Queue(spec.GetLender()),
		LendPercent: spec.GetLendPercent(), FloorPercent: spec.GetFloorPercent(),
		Notice: notice(record), Grace: grace(record), Windows: windows,
	}
	for _, name := range spec.GetBorrowers() {
		k.Borrowers = append(k.Borrowers, id.Queue(name))
	}
	return k
}

func (l *lending) queueSpecs() []scheduler.QueueSpec {
	var specs []scheduler.QueueSpec
	for _, usage := range l.scheduler.Queues() {
		specs = append(specs, usage.Spec)
	}
	return specs
}

// notDeclared refuses to change a contract that the queue file holds.
func (l *lending) notDeclared(k *contract) error {
	if l.config.QueueFile != "" && k.record.GetDeclared() {
		return fmt.Errorf("contract %s is declared in %s; change that file, which takes effect within a second: %w", k.name(), l.config.QueueFile, errdefs.ErrFailedPrecondition)
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
func (l *lending) declare(declared []*apiv1.ContractSpec) (contractChange, error) {
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
	change.specs, err = withWindows(contracts, l.now)
	return change, err
}

// adopt notes a change that the scheduler has taken in.
func (l *lending) adopt(change contractChange) {
	l.noteSet(change.contracts, change.specs)
	for _, k := range change.removed {
		l.removed(k)
	}
	for _, k := range change.set {
		l.added(k)
	}
}

// add adds contracts, or replaces those of the same names, all or none. A ledger goes on under its name. The answer is a preview if one
// was asked for, and otherwise nil: how contracts stand is known after the scheduler's next pass.
func (l *lending) add(who peer.User, request *apiv1.AddContractsRequest) (*apiv1.ListContractsResponse, error) {
	if len(request.GetContracts()) == 0 {
		return nil, fmt.Errorf("no lending contract was given: %w", errdefs.ErrInvalidArgument)
	}
	for _, spec := range request.GetContracts() {
		if known := l.byName[spec.GetName()]; known != nil {
			if err := l.access.MayLend(who, known.record.GetSpec().GetLender()); err != nil {
				return nil, err
			}
			if err := l.notDeclared(known); err != nil {
				return nil, err
			}
		}
		if err := l.access.MayLend(who, spec.GetLender()); err != nil {
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
func (l *lending) with(specs []*apiv1.ContractSpec) (map[string]*contract, error) {
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

func (l *lending) remove(who peer.User, name string) error {
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

// lendNow opens a window by hand.
func (l *lending) lendNow(who peer.User, request *apiv1.LendNowRequest) error {
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
	until := l.now.Add(length)
	if open, is := k.open(l.now); is && open.Close.Equal(calendar.Forever()) {
		return fmt.Errorf("contract %s is always open, since its windows follow each other without a break: %w", k.name(), errdefs.ErrFailedPrecondition)
	} else if is && !until.After(open.Close) {
		return fmt.Errorf("contract %s lends until %s already, which is not sooner than in %s; say a longer time to extend it, or end it with \"mammoth lend stop %s\": %w",
			k.name(), open.Close.UTC().Format("2006-01-02 15:04:05 MST"), length, k.name(), errdefs.ErrFailedPrecondition)
	}
	return l.alter(k, func(record *storev1.Contract) {
		record.LendFrom, record.LendUntil = timestamppb.New(l.now), timestamppb.New(until)
		if stopped := record.GetStoppedUntil(); stopped != nil && stopped.AsTime().Equal(calendar.Forever()) {
			record.StoppedUntil = nil // one that is always open opens again in no other way
		}
	})
}

// stop ends the open window; it opens again at the calendar's next one.
func (l *lending) stop(who peer.User, name string) error {
	k, err := l.changeable(who, name)
	if err != nil {
		return err
	}
	open, is := k.open(l.now)
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
func (l *lending) alter(k *contract, change func(*storev1.Contract)) error {
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

func (l *lending) ledgers() map[string]scheduler.Ledger {
	ledgers := map[string]scheduler.Ledger{}
	for _, ledger := range l.scheduler.Ledgers() {
		ledgers[ledger.Contract] = ledger
	}
	return ledgers
}

// due reads the calendar again before the known windows are over.
func (l *lending) due() {
	if len(l.byName) == 0 {
		return
	}
	l.outdated = true
	if !l.now.Before(l.readCalendarAt) {
		if err := l.set(l.byName); err != nil {
			l.fault("read the calendar of lending contracts", "error", err)
			l.readCalendarAt = l.now.Add(time.Minute)
		}
	}
}

// updateStates emits events about windows that have opened and closed, and stores ledgers.
func (l *lending) updateStates() {
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
		if moved || l.now.Sub(k.saved) >= saveLedgerEvery && !proto.Equal(k.record.GetLedger(), now.GetLedger()) {
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

func (l *lending) saveContract(k *contract) {
	k.saved = l.now
	l.save(kindContract, k.name(), k.record)
}

func (l *lending) emitEvent(k *contract, from, to, message string) {
	l.emit(&apiv1.Event{Kind: "lending", Queue: k.record.GetSpec().GetLender(), From: from, To: to, Message: message})
}

func (l *lending) added(k *contract) {
	l.saveContract(k)
	spec := k.record.GetSpec()
	l.emitEvent(k, "", "", fmt.Sprintf("contract %s was set: %s lends %g%% of its guarantee", k.name(), spec.GetLender(), spec.GetLendPercent()))
}

func (l *lending) removed(k *contract) {
	l.forget(kindContract, k.name())
	l.emitEvent(k, "", "", fmt.Sprintf("contract %s was removed", k.name()))
}
