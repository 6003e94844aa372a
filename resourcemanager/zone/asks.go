package zone

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// appAsks are an app's asks.
type appAsks struct {
	// byID are the asks that are not done: some of their containers wait or are held.
	byID map[string]*storev1.Ask
	// total is how many containers they are for, those that were granted included; an ask for none counts as one.
	total int64
	// last is the position of the ask that came last.
	last int64
}

func newAppAsks() appAsks { return appAsks{byID: map[string]*storev1.Ask{}} }

func (x *appAsks) put(name string, record *storev1.Ask) {
	x.remove(name)
	x.byID[name] = record
	x.total += weight(record.GetAsk())
}

func (x *appAsks) remove(name string) {
	if known := x.byID[name]; known != nil {
		x.total -= weight(known.GetAsk())
		delete(x.byID, name)
	}
}

// weight is what an ask adds to the total of its app.
func weight(ask *masterv1.Ask) int64 { return int64(max(1, ask.GetCount())) }

// asks are what masters ask for. An ask is done when it is granted in full, or withdrawn, and none of its containers is held.
type asks struct {
	*turn
	scheduler *scheduling
	apps      *apps
	attempts  *attempts
}

// dropAll forgets what an app asked for: nothing of it is there any more.
func (qs *asks) dropAll(a *app) {
	qs.submit(a)
	for _, name := range id.SortedKeys(a.asks.byID) {
		qs.Forget(kindAsk, askKey(a, name))
		a.asks.remove(name)
	}
}

// parsedAsk is a master's ask, and the same as the scheduler reads it.
type parsedAsk struct {
	message *masterv1.Ask
	ask     scheduler.Ask
}

// parseAll reads all asks of a request before any of them counts.
func (qs *asks) parseAll(a *app, messages []*masterv1.Ask) ([]parsedAsk, error) {
	asks := make([]parsedAsk, 0, len(messages))
	for _, message := range messages {
		ask, err := qs.parse(message)
		if err != nil {
			return nil, fmt.Errorf("ask %q of %s: %w", message.GetId(), a.record.GetName(), err)
		}
		asks = append(asks, parsedAsk{message, ask})
	}
	return asks, nil
}

func (qs *asks) parse(message *masterv1.Ask) (scheduler.Ask, error) {
	switch {
	case message.GetId() == "":
		return scheduler.Ask{}, fmt.Errorf("an ask needs an id: %w", errdefs.ErrInvalidArgument)
	case message.GetCount() < 0:
		return scheduler.Ask{}, fmt.Errorf("the count must not be negative, but is %d: %w", message.GetCount(), errdefs.ErrInvalidArgument)
	}
	ask, err := qs.scheduler.shape(message.GetResources(), message.GetPlacement())
	if err != nil {
		return ask, err
	}
	ask.ID, ask.Priority = message.GetId(), message.GetPriority()
	ask.Group, ask.Gang = message.GetGroup(), message.GetGang()
	ask.Duration = message.GetDuration().AsDuration()
	ask.Service, ask.Replaces = message.GetService(), message.GetReplaces()
	for _, name := range message.GetAvoidNodes() {
		ask.Avoid = append(ask.Avoid, id.Node(name))
	}
	return ask, nil
}

// set replaces the ask with the same id, if there is one.
func (qs *asks) set(a *app, ask parsedAsk) error {
	name := ask.ask.ID
	known := a.asks.byID[name]
	record := &storev1.Ask{AppId: a.id.String(), Ask: ask.message, Granted: known.GetGranted(), Position: known.GetPosition()}
	if known != nil && proto.Equal(known, record) {
		return nil
	}
	if known.GetAsk().GetCount() <= known.GetGranted() {
		// Nothing of it waits yet: it comes after all asks that wait.
		a.asks.last++
		record.Position = a.asks.last
	}
	ask.ask.Pending = a.pending(record)
	if err := qs.scheduler.Apply(scheduler.SetAsk{App: a.id, Ask: ask.ask}); err != nil {
		return fmt.Errorf("ask %q of %s: %w", name, a.record.GetName(), err)
	}
	a.asks.put(name, record)
	qs.Save(kindAsk, askKey(a, name), record)
	qs.dropDone(a, name)
	qs.apps.touch(a)
	return nil
}

// pending is how much of an ask is still to be granted: nothing once the app is to end.
func (a *app) pending(record *storev1.Ask) int {
	if a.ending() {
		return 0
	}
	return int(max(0, record.GetAsk().GetCount()-record.GetGranted()))
}

// granted counts a grant, which the scheduler has counted already, and returns the ask.
func (qs *asks) granted(c *container) *masterv1.Ask {
	name := c.record.GetLease().GetAskId()
	known := c.app.asks.byID[name]
	if known == nil {
		return nil
	}
	record := proto.CloneOf(known)
	record.Granted++
	c.app.asks.put(name, record)
	qs.Save(kindAsk, askKey(c.app, name), record)
	return known.GetAsk()
}

// helpOf is what the master says would help if there is no room for an ask; empty if it knows of nothing.
func (a *app) helpOf(ask scheduler.AskExplanation) string {
	return a.asks.byID[ask.Ask].GetAsk().GetHelp()
}

func (a *app) askCount() int { return len(a.asks.byID) }

func (qs *asks) ended(c *container) { qs.dropDone(c.app, c.record.GetLease().GetAskId()) }

// dropDone drops an ask if it is done. Its master does not send it again, since it has seen the containers.
func (qs *asks) dropDone(a *app, name string) {
	record := a.asks.byID[name]
	if record == nil || record.GetAsk().GetCount() > record.GetGranted() {
		return
	}
	if a.heldOf(name) > 0 {
		return
	}
	a.asks.remove(name)
	qs.Forget(kindAsk, askKey(a, name))
}

// withdraw withdraws what an earlier attempt asked for and was not granted: a new attempt decides for itself. What was granted still
// counts when the new attempt asks under the same id.
func (qs *asks) withdraw(a *app) {
	for _, name := range id.SortedKeys(a.asks.byID) {
		known := a.asks.byID[name]
		if known.GetAsk().GetCount() <= known.GetGranted() {
			continue
		}
		ask, err := qs.parse(known.GetAsk())
		if err != nil {
			qs.Fault("a stored ask is unreadable", "app", a.record.GetName(), "ask", name, "error", err)
			continue
		}
		qs.scheduler.apply(scheduler.SetAsk{App: a.id, Ask: ask})
		record := proto.CloneOf(known)
		record.Ask.Count = record.GetGranted()
		a.asks.put(name, record)
		qs.Save(kindAsk, askKey(a, name), record)
		qs.dropDone(a, name)
	}
}

// submit gives the scheduler all asks of an app; none of them waits once the app is to end.
func (qs *asks) submit(a *app) {
	for _, name := range a.asksInOrder() {
		ask, err := qs.parse(a.asks.byID[name].GetAsk())
		if err != nil {
			qs.Fault("a stored ask is unreadable", "app", a.record.GetName(), "ask", name, "error", err)
			continue
		}
		ask.Pending = a.pending(a.asks.byID[name])
		qs.scheduler.apply(scheduler.SetAsk{App: a.id, Ask: ask})
	}
}

// asksInOrder are the names of an app's asks as they wait. Those of an older ResourceManager have no position.
func (a *app) asksInOrder() []string {
	names := id.SortedKeys(a.asks.byID)
	slices.SortStableFunc(names, func(x, y string) int { return cmp.Compare(a.asks.byID[x].GetPosition(), a.asks.byID[y].GetPosition()) })
	return names
}

// askedWith is how many containers an app would ask for with more asks.
func (a *app) askedWith(more []*masterv1.Ask) int64 {
	total, seen := a.asks.total, map[string]*masterv1.Ask{}
	for _, ask := range more {
		before := seen[ask.GetId()]
		if before == nil && a.asks.byID[ask.GetId()] != nil {
			before = a.asks.byID[ask.GetId()].GetAsk()
		}
		if before != nil {
			total -= weight(before)
		}
		total += weight(ask)
		seen[ask.GetId()] = ask
	}
	return total
}

// load reads the asks, and gives them to the scheduler with those for masters.
func (qs *asks) load(stored Records) error {
	err := loadRecords(stored, kindAsk, func(record *storev1.Ask) error {
		if a := qs.apps.ofRecord(record.GetAppId()); a != nil {
			a.asks.put(record.GetAsk().GetId(), record)
			a.asks.last = max(a.asks.last, record.GetPosition())
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, a := range qs.apps.sorted() {
		if !a.queueLost {
			qs.attempts.resubmit(a)
		}
	}
	return nil
}

// asksForMore reports whether an ask is not granted in full.
func (a *app) asksForMore() bool {
	for _, ask := range a.asks.byID {
		if a.pending(ask) > 0 {
			return true
		}
	}
	return false
}

func askKey(a *app, name string) string { return a.id.String() + "/" + name }
