package shares

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/id"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/calendar"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

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

func byPosition(contracts map[string]*contract) []*contract {
	return slices.SortedFunc(maps.Values(contracts), func(a, b *contract) int {
		return cmp.Compare(a.record.GetPosition(), b.record.GetPosition())
	})
}
