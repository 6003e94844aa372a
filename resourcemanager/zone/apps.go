package zone

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/fsm"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/keys"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/shares"
)

// apps are the apps of the zone: which there are, which state each is in, and which are touched.
type apps struct {
	*turn
	config    *config
	access    *access.Rules
	scheduler *scheduling
	damage    *damage
	views     *views
	table     fsm.Table[lifecycle.AppState, lifecycle.AppEvent]
	// record has the number of the newest app.
	record *storev1.Zone
	byID   map[id.App]*app
	byName map[string]*app
	// inOrder are all apps in the order of their submission; nil if that is to be found out anew.
	inOrder []*app
	// touched are the apps that have changed in the present turn.
	touched map[id.App]*app
}

// get is the app with an id; nil if there is none.
func (as *apps) get(appID id.App) *app { return as.byID[appID] }

// withName is the app with a name; nil if there is none.
func (as *apps) withName(name string) *app { return as.byName[name] }

func (as *apps) count() int { return len(as.byID) }

func (as *apps) index(a *app) { as.byID[a.id], as.byName[a.record.GetName()], as.inOrder = a, a, nil }

func (as *apps) remove(a *app) {
	a.removed, as.inOrder = true, nil
	delete(as.byID, a.id)
	delete(as.byName, a.record.GetName())
}

// nextID is the id of the app that is submitted next.
func (as *apps) nextID() id.App {
	return id.App{ClusterStart: as.config.identity.ClusterStart.UnixMilli(), Seq: as.record.GetAppSequence() + 1}
}

// usedID keeps a number from being given to another app.
func (as *apps) usedID(seq int64) {
	if seq > as.record.GetAppSequence() {
		as.record.AppSequence = seq
		as.Save(keys.KindZone, "zone", as.record)
	}
}

// announce publishes that an app has its name from now on, or that nobody has it any more if the app was removed.
func (as *apps) announce(a *app) {
	named := NamedApp{Name: a.record.GetName()}
	if !a.removed {
		named.ID = a.id.String()
	}
	as.out.Named = append(as.out.Named, named)
}

func (as *apps) load(stored Records) error {
	return loadRecords(stored, kindApp, func(record *storev1.App) error {
		appID, err := id.ParseApp(record.GetId())
		if err != nil {
			return err
		}
		a := newApp(appID, record)
		a.wait.recover(record.GetWaiting())
		as.index(a)
		return nil
	})
}

// joinQueues adds all apps to the scheduler after a start.
func (as *apps) joinQueues(Records) error {
	for _, a := range as.sorted() {
		if err := as.scheduler.Apply(a.recoveredApp()); err != nil {
			a.queueLost = as.damage.standsStill()
			as.Fault("an app has no place in the queue tree", "app", a.record.GetName(), "error", err)
		}
	}
	return nil
}

// rejoinQueue adds an app to the scheduler whose queue was lost and is there again.
func (as *apps) rejoinQueue(a *app) error {
	err := as.scheduler.Apply(a.recoveredApp())
	if err != nil {
		return fmt.Errorf("%s has no place: %w; set the queue tree first, as it was before, with \"mammoth queue set\": %w", a.record.GetName(), err, errdefs.ErrFailedPrecondition)
	}
	a.queueLost = false
	return nil
}

// recoveredApp is the app as it is added to the scheduler after a restart.
func (a *app) recoveredApp() scheduler.AddApp {
	spec := a.record.GetSpec()
	return scheduler.AddApp{App: a.id, Name: spec.GetName(), Queue: id.Queue(spec.GetQueue()), User: a.record.GetUser(), Priority: spec.GetPriority(), Recovered: true}
}

func (as *apps) begin() { as.touched = map[id.App]*app{} }

// touch has an app settled, published and shown at the end of the turn. Whatever people see of the app changes with it.
func (as *apps) touch(a *app) {
	as.touched[a.id] = a
	as.views.changed(a)
}

// touchedInOrder are the touched apps in the order of their submission.
func (as *apps) touchedInOrder() []*app {
	return slices.SortedFunc(maps.Values(as.touched), bySubmission)
}

// allTouched are the touched apps in no order.
func (as *apps) allTouched() iter.Seq[*app] { return maps.Values(as.touched) }

// all are the apps in no order, for sums.
func (as *apps) all() iter.Seq[*app] { return maps.Values(as.byID) }

// sorted are all apps in the order of their submission. The slice never changes: there is a new one after apps have come or gone.
func (as *apps) sorted() []*app {
	if as.inOrder == nil {
		as.inOrder = slices.SortedFunc(maps.Values(as.byID), bySubmission)
	}
	return as.inOrder
}

func bySubmission(a, b *app) int { return a.id.Compare(b.id) }

// app is one app of the zone. What is not in a record is lost when the ResourceManager ends.
type app struct {
	id     id.App
	record *storev1.App
	// instances are what the app's master reports, by their names.
	instances map[string]*storev1.Instance
	// containers are the held ones and, for a while, those that have ended.
	containers map[id.Container]*container
	// queueLost says that the scheduler does not know the app, since the record of its queue was lost.
	queueLost bool
	// removed is set when the app is gone; nothing finds it any more.
	removed bool

	// What each part alone knows of the app.
	counts    appCounts
	status    appStatus
	attempt   appAttempt
	master    appMaster
	asks      appAsks
	endpoints endpoints.State
	leases    appLeases
	view      appView
	wait      appWait
}

func newApp(appID id.App, record *storev1.App) *app {
	return &app{
		id: appID, record: record,
		instances: map[string]*storev1.Instance{}, containers: map[id.Container]*container{},
		leases: newAppLeases(),
		asks:   newAppAsks(), endpoints: endpoints.NewState(appID),
	}
}

func (a *app) state() lifecycle.AppState { return lifecycle.AppState(a.record.GetState()) }

func (a *app) ending() bool {
	switch a.state() {
	case lifecycle.AppStopping, lifecycle.AppStopped, lifecycle.AppRemoving, lifecycle.AppRemoved:
		return true
	}
	return false
}

func (a *app) notRemoving() error {
	if a.state() == lifecycle.AppRemoving {
		return fmt.Errorf("%s is being removed: %w", a.record.GetName(), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// owned is what decides about an app who may change it.
func (a *app) owned() access.App {
	return access.App{Name: a.record.GetName(), Owner: a.record.GetUser(), Queue: a.record.GetSpec().GetQueue()}
}

func (a *app) companion() bool { return a.record.GetSpec().GetKind() == apiv1.AppSpec_COMPANION }

// role is the spec of a role in the desired version.
func (a *app) role(name string) (*apiv1.RoleSpec, bool) {
	for _, role := range a.record.GetSpec().GetRoles() {
		if role.GetName() == name {
			return role, true
		}
	}
	return nil, false
}

// named is the app with a name, or an error for a person who asked for it.
func (as *apps) named(name string) (*app, error) {
	if a := as.byName[name]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("no app is named %q; \"mammoth app ls\" lists those that there are: %w", name, errdefs.ErrNotFound)
}

// ofRecord is the app with the id that a record has; nil if there is none.
func (as *apps) ofRecord(text string) *app {
	appID, err := id.ParseApp(text)
	if err != nil {
		return nil
	}
	return as.byID[appID]
}

// changeable finds an app that somebody wants to change.
func (as *apps) changeable(who peer.User, name, doing string) (*app, error) {
	a, err := as.named(name)
	if err != nil {
		return nil, err
	}
	return a, as.access.MayChange(who, a.owned(), doing)
}

// mayExec refuses who may not run commands in an app. Instances may be of any version that is kept.
func (as *apps) mayExec(who peer.User, name string) error {
	const doing = "run commands in"
	a, err := as.changeable(who, name, doing)
	if err != nil {
		return err
	}
	for _, version := range a.record.GetVersions() {
		if err := as.access.MayExec(who, version.GetSpec(), doing); err != nil {
			return err
		}
	}
	return nil
}

// move applies an event to the state of an app.
func (as *apps) move(a *app, event lifecycle.AppEvent, reason string) {
	from := a.state()
	to, ok := as.table.Next(from, event)
	if !ok || to == from {
		return
	}
	a.record.State = apiv1.App_State(to)
	a.record.Reason = ""
	if to != lifecycle.AppRunning {
		a.record.Reason = reason
	}
	as.Emit(&apiv1.Event{
		Kind: "app", App: a.record.GetName(), Queue: a.record.GetSpec().GetQueue(), From: stateName(from), To: to.String(),
		Message: appSentence(a.record.GetName(), to, reason),
	})
	as.changed(a)
}

func appSentence(name string, state lifecycle.AppState, reason string) string {
	switch state {
	case lifecycle.AppAccepted:
		return because(name+" waits for its application master", reason)
	case lifecycle.AppRunning:
		return name + " is run by its application master"
	case lifecycle.AppStopping:
		return because(name+" is stopping", reason)
	case lifecycle.AppStopped:
		return name + " is stopped"
	case lifecycle.AppDegraded:
		return because(name+" has no application master; its instances go on serving", reason)
	case lifecycle.AppRemoving:
		return because(name+" is being removed", reason)
	}
	return name + " is removed"
}

// changed has an app stored, settled and shown.
func (as *apps) changed(a *app) {
	if !a.removed {
		as.Save(kindApp, a.id.String(), a.record)
	}
	as.touch(a)
}

// queuedApps are all apps with their queues, in the order of their submission.
func (as *apps) queuedApps() []shares.QueuedApp {
	var all []shares.QueuedApp
	for _, a := range as.sorted() {
		all = append(all, shares.QueuedApp{App: a.record.GetName(), Queue: id.Queue(a.record.GetSpec().GetQueue())})
	}
	return all
}
