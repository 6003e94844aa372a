package zone

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/peer"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/commands"
)

// endWithin is how long a master may take to end its app's instances before the ResourceManager does it.
const endWithin = 5 * time.Minute

// desired is what people and the calendar want of apps: it takes requests, starts and ends apps, and has masters sent the desired state.
type desired struct {
	*turn
	access     *access.Rules
	scheduler  *scheduling
	apps       *apps
	packages   *packages
	asks       *asks
	attempts   *attempts
	companions *companions
	leases     *leases
	masters    *masters
	commands   *commands.Commands
	versions   *versions
	explainer  *explainer
	views      *views
}

// deploy creates an app or replaces its spec. The spec was checked and is complete.
func (ds *desired) deploy(who peer.User, request *apiv1.DeployRequest) (*apiv1.DeployResponse, error) {
	spec := request.GetSpec()
	a := ds.apps.withName(spec.GetName())
	if err := checkGeneration(a, spec.GetName(), request.GetIfGeneration()); err != nil {
		return nil, err
	}
	if a != nil && a.state() == lifecycle.AppRemoving {
		return nil, fmt.Errorf("%s is being removed; wait until \"mammoth app ls\" does not list it any more: %w", spec.GetName(), errdefs.ErrFailedPrecondition)
	}
	if err := ds.access.MayRunPrograms(who, spec, "deploy"); err != nil {
		return nil, err
	}
	if a != nil {
		if err := ds.access.MayChange(who, a.owned(), "deploy over"); err != nil {
			return nil, err
		}
	}
	if a == nil || a.record.GetSpec().GetQueue() != spec.GetQueue() {
		if err := ds.access.MaySubmit(who, spec.GetQueue()); err != nil {
			return nil, err
		}
	}
	if a != nil && a.external() {
		return nil, a.notForExternal("nothing can be deployed over it; choose another name")
	}
	if a != nil && a.record.GetSpec().GetKind() != spec.GetKind() {
		return nil, fmt.Errorf("%s is deployed as another kind, and an app cannot become a companion app, nor a companion app an app; remove it first, or choose another name: %w", spec.GetName(), errdefs.ErrFailedPrecondition)
	}
	if a != nil && a.record.GetSpec().GetFramework() != spec.GetFramework() {
		return nil, fmt.Errorf("%s is deployed with the framework %s, and an app keeps its framework; remove it first, or choose another name: %w",
			spec.GetName(), a.record.GetSpec().GetFramework(), errdefs.ErrFailedPrecondition)
	}
	if err := ds.packages.Check(spec); err != nil {
		return nil, err
	}
	var counted []string
	for _, role := range spec.GetRoles() {
		switch {
		case role.GetInstances() == 0:
			role.Instances = a.presentCount(role.GetName())
		default:
			counted = append(counted, role.GetName())
		}
	}
	if err := ds.apps.checkClaims(spec); err != nil {
		return nil, err
	}
	owner := who.Name
	if a != nil {
		specs.KeepOnce(a.record.GetSpec(), spec)
		owner = a.record.GetUser()
	}
	plan, err := ds.explainer.plan(a, owner, spec)
	if err != nil {
		return nil, err
	}
	if request.GetDryRun() {
		plan.App = &apiv1.App{Name: spec.GetName(), Queue: spec.GetQueue(), Wanted: specs.Instances(spec), Spec: spec}
		if a != nil {
			plan.App.State = a.record.GetState()
			if proto.Equal(spec, a.record.GetSpec()) && len(plan.GetPlacements())+len(plan.GetExplanation().GetObstacles()) == 0 {
				plan.Unchanged, plan.Explanation.Summary = true, fmt.Sprintf("nothing of %s would change", spec.GetName())
			}
		}
		return plan, nil
	}
	if a == nil {
		if a, err = ds.create(who, spec); err != nil {
			return nil, err
		}
		ds.noteCounts(a, roleNames(spec)...)
	} else {
		if err := ds.replaceSpec(a, spec, "deploy"); err != nil {
			return nil, err
		}
		ds.noteCounts(a, counted...)
		ds.notifyMaster(a)
	}
	return &apiv1.DeployResponse{App: ds.views.answer(a)}, nil
}

func checkGeneration(a *app, name string, ifGeneration int64) error {
	switch {
	case ifGeneration < 0:
		return nil
	case ifGeneration == 0 && a != nil:
		return fmt.Errorf("an app named %q exists already; deploy over it with its generation, %d: %w", name, a.record.GetGeneration(), errdefs.ErrAlreadyExists)
	case ifGeneration > 0 && a == nil:
		return fmt.Errorf("no app is named %q; leave the generation out to create it: %w", name, errdefs.ErrAborted)
	case ifGeneration > 0 && a.record.GetGeneration() != ifGeneration:
		return fmt.Errorf("%s was changed meanwhile: it is at generation %d, not %d; look at it and try again: %w",
			name, a.record.GetGeneration(), ifGeneration, errdefs.ErrAborted)
	}
	return nil
}

func (ds *desired) create(who peer.User, spec *apiv1.AppSpec) (*app, error) {
	appID := ds.apps.nextID()
	err := ds.scheduler.Apply(scheduler.AddApp{
		App: appID, Name: spec.GetName(), Queue: id.Queue(spec.GetQueue()), User: who.Name, Priority: spec.GetPriority(), Allowed: true,
	})
	if err != nil {
		return nil, err
	}
	ds.apps.usedID(appID.Seq)
	a := newApp(appID, &storev1.App{
		Id: appID.String(), Name: spec.GetName(), CreatedAt: timestamppb.New(ds.now), Attempt: &storev1.Attempt{}, User: who.Name,
	})
	ds.apps.index(a)
	ds.versions.setVersion(a, spec, "deploy")
	a.record.Generation = 1
	ds.apps.announce(a)
	ds.apps.move(a, lifecycle.AppSubmitted, "deployed")
	ds.apps.changed(a)
	return a, nil
}

// replaceSpec makes a spec the desired one. The caller has checked that whoever it comes from may submit to its queue. A stopped or degraded
// app starts again.
// The owner stays the one who deployed the app first.
func (ds *desired) replaceSpec(a *app, spec *apiv1.AppSpec, cause string) error {
	err := ds.scheduler.Apply(scheduler.AddApp{
		App: a.id, Name: spec.GetName(), Queue: id.Queue(spec.GetQueue()), User: a.record.GetUser(), Priority: spec.GetPriority(), Allowed: true,
	})
	if err != nil {
		return err
	}
	ds.versions.change(a, spec, cause)
	ds.start(a, cause)
	ds.changed(a)
	return nil
}

// startMaster lets a program outside of the zone be the master of an app. The app is created if there is none of that name.
func (ds *desired) startMaster(who peer.User, spec *apiv1.AppSpec) (*apiv1.StartMasterResponse, error) {
	const doing = "start the application master of"
	if err := ds.access.MayRunPrograms(who, spec, doing); err != nil {
		return nil, err
	}
	a := ds.apps.withName(spec.GetName())
	switch {
	case a == nil:
		if err := ds.access.MaySubmit(who, spec.GetQueue()); err != nil {
			return nil, err
		}
		var err error
		if a, err = ds.create(who, spec); err != nil {
			return nil, err
		}
	case !a.external():
		return nil, fmt.Errorf("%s is deployed, and the zone runs its application master; choose another name: %w", spec.GetName(), errdefs.ErrFailedPrecondition)
	default:
		if err := ds.access.MayChange(who, a.owned(), doing); err != nil {
			return nil, err
		}
		if err := a.notRemoving(); err != nil {
			return nil, err
		}
		if a.state() == lifecycle.AppStopping {
			return nil, fmt.Errorf("%s is being stopped; try again once it has stopped: %w", spec.GetName(), errdefs.ErrFailedPrecondition)
		}
		ds.start(a, "its application master is started")
	}
	ds.changed(a)
	return ds.attempts.begin(a), nil
}

func (ds *desired) scale(who peer.User, request *apiv1.ScaleAppRequest) (*apiv1.App, error) {
	a, err := ds.apps.changeable(who, request.GetName(), "scale")
	if err != nil {
		return nil, err
	}
	if err := a.notRemoving(); err != nil {
		return nil, err
	}
	if a.external() {
		return nil, a.notForExternal("it decides itself how many instances there are")
	}
	after := proto.CloneOf(a.record.GetSpec())
	role, err := chooseRole(after, request.GetRole())
	if err != nil {
		return nil, err
	}
	if role.GetInstances() == request.GetInstances() && len(role.GetSchedule()) == 0 {
		return ds.views.answer(a), nil
	}
	before := role.GetInstances()
	for _, count := range ds.scheduledCounts(a) {
		if count.GetRole() == role.GetName() {
			before = count.GetInstances()
		}
	}
	role.Instances = request.GetInstances()
	if err := specs.CheckInstances(after); err != nil {
		return nil, fmt.Errorf("app %s: %w", after.GetName(), err)
	}
	ds.Emit(&apiv1.Event{Kind: "app", App: a.record.GetName(), From: a.state().String(), To: a.state().String(), Message: fmt.Sprintf(
		"%s is scaled from %d to %d instances", a.record.GetName(), before, request.GetInstances())})
	ds.versions.setSpec(a, after)
	ds.noteCounts(a, role.GetName())
	ds.changed(a)
	return ds.views.answer(a), nil
}

func roleNames(spec *apiv1.AppSpec) []string {
	var names []string
	for _, role := range spec.GetRoles() {
		names = append(names, role.GetName())
	}
	return names
}

func chooseRole(spec *apiv1.AppSpec, name string) (*apiv1.RoleSpec, error) {
	if !specs.HasRoles(spec) {
		return nil, fmt.Errorf("%s has no roles: how much of it runs is in its options; change them in its manifest and deploy it: %w", spec.GetName(), errdefs.ErrInvalidArgument)
	}
	if name == "" && len(spec.GetRoles()) == 1 {
		return spec.GetRoles()[0], nil
	}
	var names []string
	for _, role := range spec.GetRoles() {
		if role.GetName() == name {
			return role, nil
		}
		names = append(names, strconv.Quote(role.GetName()))
	}
	if len(names) == 1 && names[0] == `""` {
		return nil, fmt.Errorf("%s has no roles with names; leave the role out: %w", spec.GetName(), errdefs.ErrInvalidArgument)
	}
	if name == "" {
		return nil, fmt.Errorf("%s has several roles; name one of %s: %w", spec.GetName(), strings.Join(names, ", "), errdefs.ErrInvalidArgument)
	}
	return nil, fmt.Errorf("%s has no role named %q; it has %s: %w", spec.GetName(), name, strings.Join(names, ", "), errdefs.ErrInvalidArgument)
}

func (ds *desired) restart(who peer.User, name string) (*apiv1.App, error) {
	a, err := ds.apps.changeable(who, name, "restart")
	if err != nil {
		return nil, err
	}
	if err := a.notRemoving(); err != nil {
		return nil, err
	}
	if a.external() {
		return nil, a.notForExternal(fmt.Sprintf("\"mammoth app run %s -- COMMAND\" starts it", name))
	}
	switch a.state() {
	case lifecycle.AppStopped, lifecycle.AppStopping:
		a.record.RestartBefore = timestamppb.New(ds.now)
		if a.attemptState() != lifecycle.AttemptRegistered {
			ds.versions.forgetStatus(a)
		}
	case lifecycle.AppAccepted, lifecycle.AppRunning:
		a.record.RestartBefore = timestamppb.New(ds.now)
		ds.Emit(&apiv1.Event{Kind: "app", App: name, From: a.state().String(), To: a.state().String(), Message: fmt.Sprintf("%s is restarted, a few instances at a time", name)})
	}
	ds.start(a, "restart")
	ds.changed(a)
	return ds.views.answer(a), nil
}

// start lets a stopped, stopping or degraded app run; its failures so far do not count.
func (ds *desired) start(a *app, cause string) {
	if a.state() == lifecycle.AppRunning {
		return
	}
	if a.state() != lifecycle.AppAccepted {
		ds.attempts.forgive(a)
	}
	if a.record.GetOutcome() != apiv1.App_OUTCOME_NONE {
		// This is other work: what is left of the work before is not for its master.
		ds.masters.forgetMemo(a)
		ds.versions.forgetStatus(a)
		for _, c := range sortedContainers(a.containers) {
			ds.leases.acknowledge(c)
		}
	}
	a.record.EndBy, a.record.Outcome = nil, apiv1.App_OUTCOME_NONE
	ds.apps.move(a, lifecycle.AppStart, cause)
	ds.asks.submit(a)
	if a.attemptState() == lifecycle.AttemptRegistered {
		ds.apps.move(a, lifecycle.AppMasterRegistered, "its application master is still at work")
	}
}

func (ds *desired) stop(who peer.User, name string) (*apiv1.App, error) {
	a, err := ds.apps.changeable(who, name, "stop")
	if err != nil {
		return nil, err
	}
	if err := a.notRemoving(); err != nil {
		return nil, err
	}
	ds.end(a, lifecycle.AppStop, access.ByWhom(who)+" stopped it")
	if ds.packages.ends(a) && a.record.GetOutcome() == apiv1.App_OUTCOME_NONE {
		a.record.Outcome = apiv1.App_KILLED
	}
	return ds.views.answer(a), nil
}

func (ds *desired) remove(who peer.User, name string) (*apiv1.App, error) {
	a, err := ds.apps.changeable(who, name, "remove")
	if err != nil {
		return nil, err
	}
	if a.state() != lifecycle.AppRemoving {
		ds.end(a, lifecycle.AppRemove, access.ByWhom(who)+" removed it")
	}
	return ds.views.answer(a), nil
}

// end has an app end: its master ends the instances, or the ResourceManager if there is no master.
func (ds *desired) end(a *app, event lifecycle.AppEvent, reason string) {
	before := a.state()
	ds.apps.move(a, event, reason)
	if a.state() == before {
		return
	}
	a.record.EndBy = timestamppb.New(ds.now.Add(endWithin))
	ds.asks.submit(a)
	ds.changed(a)
}

// noteOutcome notes how the work of an app ended, once its master has said that it is done.
func (ds *desired) noteOutcome(a *app, failed bool) {
	a.record.Outcome = apiv1.App_SUCCEEDED
	if failed {
		a.record.Outcome = apiv1.App_FAILED
	}
}

// changed has the generation rise and the master sent the desired state.
func (ds *desired) changed(a *app) {
	a.record.Generation++
	ds.notifyMaster(a)
	ds.apps.changed(a)
}

// settle does what the state of an app asks for.
func (ds *desired) settle(a *app) {
	if a.removed {
		return
	}
	switch a.state() {
	case lifecycle.AppAccepted, lifecycle.AppRunning:
		if !a.attemptState().Live() {
			ds.attempts.start(a)
		}
	case lifecycle.AppStopping, lifecycle.AppRemoving:
		ds.settleEnding(a)
	}
	if a.companion() {
		ds.companions.settle(a)
	}
}

// settleEnding ends the master once its instances are gone; without a master, or when it takes too long, it ends the
// instances too: they are withdrawn first, and stopped once balancers have confirmed that.
func (ds *desired) settleEnding(a *app) {
	workers, held := 0, 0
	for _, c := range a.containers {
		if c.held() {
			held++
			if !c.record.GetLease().GetMaster() {
				workers++
			}
		}
	}
	abandoned := a.attemptState() != lifecycle.AttemptRegistered
	late := a.record.GetEndBy() != nil && ds.now.After(a.record.GetEndBy().AsTime())
	switch {
	case held == 0:
		ds.attempts.finish(a, "its app has ended")
		ds.forgetInstances(a)
		why := ""
		if a.record.GetOutcome() != apiv1.App_OUTCOME_NONE {
			why = a.record.GetReason() // how its work has ended
		}
		ds.apps.move(a, lifecycle.AppEmpty, why)
		ds.drop(a)
	case workers == 0:
		ds.attempts.finish(a, "its app has ended")
	case abandoned || late:
		ds.attempts.finish(a, "its app is to end")
		if a.endpoints.StopAll() {
			ds.masters.takeOutOfService(a)
		}
	}
}

// drop forgets a removed app of which no container is held any more.
func (ds *desired) drop(a *app) {
	if a.state() != lifecycle.AppRemoved {
		return
	}
	ds.scheduler.apply(scheduler.RemoveApp{App: a.id})
	ds.apps.remove(a)
	ds.apps.announce(a)
	for _, c := range sortedContainers(a.containers) {
		ds.leases.drop(c)
	}
	ds.versions.forgetVersions(a)
	ds.commands.Gone(a.id, a.record.GetName())
	ds.masters.forgetMemo(a)
	ds.Forget(kindApp, a.id.String())
}

// forgetInstances forgets what a master reported and asked for: nothing of it is there any more.
func (ds *desired) forgetInstances(a *app) {
	ds.masters.forgetInstances(a)
	a.endpoints.ForgetAll()
	ds.asks.dropAll(a)
	a.record.RestartBefore = nil
	ds.apps.changed(a)
}

// of is the desired state of an app at present, as its master is sent it.
func (ds *desired) of(a *app) *masterv1.DesiredState {
	state := &masterv1.DesiredState{
		Spec:          ds.spec(a),
		Generation:    a.record.GetGeneration(),
		Stopped:       a.state() == lifecycle.AppStopping || a.state() == lifecycle.AppStopped,
		Removing:      a.state() == lifecycle.AppRemoving,
		RestartBefore: a.record.GetRestartBefore(),
	}
	ds.versions.complete(a, state)
	return state
}

// notifyMaster has the master sent the desired state.
func (ds *desired) notifyMaster(a *app) { ds.masters.response(a).Desired = ds.of(a) }
