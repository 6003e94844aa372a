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
)

// endWithin is how long a master may take to end its app's instances before the ResourceManager does it.
const endWithin = 5 * time.Minute

// deploy creates an app or replaces its spec, which was checked and is complete.
func (z *Core) deploy(who peer.User, request *apiv1.DeployRequest) (*apiv1.DeployResponse, error) {
	spec := request.GetSpec()
	a := z.apps.lookup(spec.GetName())
	if err := checkGeneration(a, spec.GetName(), request.GetIfGeneration()); err != nil {
		return nil, err
	}
	if a != nil && a.state() == lifecycle.AppRemoving {
		return nil, fmt.Errorf("%s is being removed; wait until \"mammoth app ls\" does not list it any more: %w", spec.GetName(), errdefs.ErrFailedPrecondition)
	}
	if err := z.access.MayRunPrograms(who, spec, "deploy"); err != nil {
		return nil, err
	}
	if a != nil {
		if err := z.access.MayChange(who, a.owned(), "deploy over"); err != nil {
			return nil, err
		}
	}
	if a == nil || a.record.GetSpec().GetQueue() != spec.GetQueue() {
		if err := z.access.MaySubmit(who, spec.GetQueue()); err != nil {
			return nil, err
		}
	}
	if a != nil && a.record.GetSpec().GetKind() != spec.GetKind() {
		return nil, fmt.Errorf("%s is deployed as another kind, and an app cannot become a framework, nor a framework an app; remove it first, or choose another name: %w", spec.GetName(), errdefs.ErrFailedPrecondition)
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
	if err := z.apps.checkClaims(spec); err != nil {
		return nil, err
	}
	owner := who.Name
	if a != nil {
		owner = a.record.GetUser()
	}
	plan, err := z.plan(a, owner, spec)
	if err != nil {
		return nil, err
	}
	if request.GetDryRun() {
		if err := z.planReplacements(a, spec, plan); err != nil {
			return nil, err
		}
		plan.App = &apiv1.App{Name: spec.GetName(), Queue: spec.GetQueue(), Wanted: wantedInstances(spec), Spec: spec}
		return plan, nil
	}
	if a == nil {
		if a, err = z.createApp(who, spec); err != nil {
			return nil, err
		}
		z.said(a, roleNames(spec)...)
	} else {
		if err := z.replaceSpec(a, spec, "deploy"); err != nil {
			return nil, err
		}
		z.said(a, counted...)
		z.masters.response(a).Wanted = z.wanted(a)
	}
	return &apiv1.DeployResponse{App: z.viewApp(a)}, nil
}

// presentCount is how many instances a role has when nobody says: as many as before, or one.
func (a *app) presentCount(name string) int32 {
	if a != nil {
		for _, role := range a.record.GetSpec().GetRoles() {
			if role.GetName() == name {
				return role.GetInstances()
			}
		}
	}
	return 1
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

func (z *Core) createApp(who peer.User, spec *apiv1.AppSpec) (*app, error) {
	appID := z.apps.nextID()
	err := z.scheduler.Apply(scheduler.AddApp{
		App: appID, Name: spec.GetName(), Queue: id.Queue(spec.GetQueue()), User: who.Name, Priority: spec.GetPriority(), Allowed: true,
	})
	if err != nil {
		return nil, err
	}
	z.apps.usedID(appID.Seq)
	a := newApp(appID, &storev1.App{
		Id: appID.String(), Name: spec.GetName(), CreatedAt: timestamppb.New(z.now), Attempt: &storev1.Attempt{}, User: who.Name,
	})
	z.apps.insert(a)
	z.setVersion(a, spec, "deploy")
	a.record.Generation = 1
	z.out.Named = append(z.out.Named, NamedApp{spec.GetName(), appID.String()})
	z.apps.move(a, lifecycle.AppSubmitted, "deployed")
	z.apps.changed(a)
	return a, nil
}

// replaceSpec makes spec the wanted one, whose queue was found to be open to whom it comes from. A stopped or degraded app
// starts again. Its owner stays who deployed it first.
func (z *Core) replaceSpec(a *app, spec *apiv1.AppSpec, cause string) error {
	err := z.scheduler.Apply(scheduler.AddApp{
		App: a.id, Name: spec.GetName(), Queue: id.Queue(spec.GetQueue()), User: a.record.GetUser(), Priority: spec.GetPriority(), Allowed: true,
	})
	if err != nil {
		return err
	}
	if specs.NeedsNewInstances(a.record.GetSpec(), spec) {
		z.setVersion(a, spec, cause)
	} else {
		keepCourse(a.record.GetSpec(), spec)
		if canaryPercent(spec) != canaryPercent(a.record.GetSpec()) {
			a.record.CanaryPercent = 0
		}
		z.setSpec(a, spec)
	}
	z.startApp(a, cause)
	z.wish(a)
	return nil
}

func (z *Core) scale(who peer.User, request *apiv1.ScaleAppRequest) (*apiv1.App, error) {
	a, err := z.apps.changeable(who, request.GetName(), "scale")
	if err != nil {
		return nil, err
	}
	if err := a.notRemoving(); err != nil {
		return nil, err
	}
	after := proto.CloneOf(a.record.GetSpec())
	role, err := chooseRole(after, request.GetRole())
	if err != nil {
		return nil, err
	}
	if role.GetInstances() == request.GetInstances() && len(role.GetSchedule()) == 0 {
		return z.viewApp(a), nil
	}
	before := role.GetInstances()
	for _, held := range z.holds(a) {
		if held.GetRole() == role.GetName() {
			before = held.GetInstances()
		}
	}
	role.Instances = request.GetInstances()
	if err := specs.CheckInstances(after); err != nil {
		return nil, fmt.Errorf("app %s: %w", after.GetName(), err)
	}
	z.emit(&apiv1.Event{Kind: "app", App: a.record.GetName(), From: a.state().String(), To: a.state().String(), Message: fmt.Sprintf(
		"%s is scaled from %d to %d instances", a.record.GetName(), before, request.GetInstances())})
	z.setSpec(a, after)
	z.said(a, role.GetName())
	z.wish(a)
	return z.viewApp(a), nil
}

func roleNames(spec *apiv1.AppSpec) []string {
	var names []string
	for _, role := range spec.GetRoles() {
		names = append(names, role.GetName())
	}
	return names
}

func chooseRole(spec *apiv1.AppSpec, name string) (*apiv1.RoleSpec, error) {
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
	if name == "" {
		return nil, fmt.Errorf("%s has several roles; name one of %s: %w", spec.GetName(), strings.Join(names, ", "), errdefs.ErrInvalidArgument)
	}
	return nil, fmt.Errorf("%s has no role named %q; it has %s: %w", spec.GetName(), name, strings.Join(names, ", "), errdefs.ErrInvalidArgument)
}

func (z *Core) restart(who peer.User, name string) (*apiv1.App, error) {
	a, err := z.apps.changeable(who, name, "restart")
	if err != nil {
		return nil, err
	}
	if err := a.notRemoving(); err != nil {
		return nil, err
	}
	switch a.state() {
	case lifecycle.AppStopped, lifecycle.AppStopping:
		z.beginAnew(a)
	case lifecycle.AppAccepted, lifecycle.AppRunning:
		a.record.RestartBefore = timestamppb.New(z.now)
		z.emit(&apiv1.Event{Kind: "app", App: name, From: a.state().String(), To: a.state().String(), Message: fmt.Sprintf("%s is restarted, a few instances at a time", name)})
	}
	z.startApp(a, "restart")
	z.wish(a)
	return z.viewApp(a), nil
}

// beginAnew has an app that was stopped start with a rollout of its own, unless one was under way: what the one before came to is
// not where this one stands.
func (z *Core) beginAnew(a *app) {
	if state := a.rollout().GetState(); state == apiv1.Rollout_PROGRESSING || state == apiv1.Rollout_PAUSED {
		return
	}
	a.record.RestartBefore = timestamppb.New(z.now)
	if a.attemptState() != lifecycle.AttemptRegistered {
		a.record.Rollout = nil
	}
}

// startApp lets a stopped, stopping or degraded app run, with a clean record of failures.
func (z *Core) startApp(a *app, cause string) {
	if a.state() == lifecycle.AppRunning {
		return
	}
	if a.state() != lifecycle.AppAccepted {
		a.record.Failures, a.record.AvoidNodes, a.record.RetryAt = nil, nil, nil
	}
	a.record.EndBy = nil
	z.apps.move(a, lifecycle.AppStart, cause)
	z.asks.submit(a)
	if a.attemptState() == lifecycle.AttemptRegistered {
		z.apps.move(a, lifecycle.AppMasterRegistered, "its application master is still at work")
	}
}

func (z *Core) stop(who peer.User, name string) (*apiv1.App, error) {
	a, err := z.apps.changeable(who, name, "stop")
	if err != nil {
		return nil, err
	}
	if err := a.notRemoving(); err != nil {
		return nil, err
	}
	z.endApp(a, lifecycle.AppStop, access.ByWhom(who)+" stopped it")
	return z.viewApp(a), nil
}

func (z *Core) remove(who peer.User, name string) (*apiv1.App, error) {
	a, err := z.apps.changeable(who, name, "remove")
	if err != nil {
		return nil, err
	}
	if a.state() != lifecycle.AppRemoving {
		z.endApp(a, lifecycle.AppRemove, access.ByWhom(who)+" removed it")
	}
	return z.viewApp(a), nil
}

// endApp has every instance of an app end: by its master, or without one by the ResourceManager.
func (z *Core) endApp(a *app, event lifecycle.AppEvent, reason string) {
	before := a.state()
	z.apps.move(a, event, reason)
	if a.state() == before {
		return
	}
	a.record.EndBy = timestamppb.New(z.now.Add(endWithin))
	z.asks.submit(a)
	z.wish(a)
}

// wish tells the master that people want something else now.
func (z *Core) wish(a *app) {
	a.record.Generation++
	z.masters.response(a).Wanted = z.wanted(a)
	z.apps.changed(a)
}

// settleApp does what an app's state asks for.
func (z *Core) settleApp(a *app) {
	if a.removed {
		return
	}
	switch a.state() {
	case lifecycle.AppAccepted, lifecycle.AppRunning:
		if !a.attemptState().Live() {
			z.attempts.start(a)
		}
	case lifecycle.AppStopping, lifecycle.AppRemoving:
		z.settleEnding(a)
	}
	if a.framework() {
		z.frameworks.settle(a)
	}
}

// settleEnding ends the master once its instances are gone; without a master, or when it takes too long, it ends the
// instances too: out of the registry first, and stopped once balancers know.
func (z *Core) settleEnding(a *app) {
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
	late := a.record.GetEndBy() != nil && z.now.After(a.record.GetEndBy().AsTime())
	switch {
	case held == 0:
		z.attempts.finish(a, "its app has ended")
		z.endInstances(a)
		z.apps.move(a, lifecycle.AppEmpty, "")
		z.emptied(a)
	case workers == 0:
		z.attempts.finish(a, "its app has ended")
	case abandoned || late:
		z.attempts.finish(a, "its app is to end")
		z.endpoints.withdrawAll(a)
	}
}

// emptied is about an app of which nothing is left to run.
func (z *Core) emptied(a *app) {
	if a.state() != lifecycle.AppRemoved {
		return
	}
	a.removed = true
	z.scheduler.apply(scheduler.RemoveApp{App: a.id})
	z.apps.remove(a)
	z.out.Named = append(z.out.Named, NamedApp{a.record.GetName(), ""})
	for _, c := range sortedContainers(a.containers) {
		z.leases.drop(c)
	}
	for _, version := range a.record.GetVersions() {
		z.forget(kindVersion, versionKey(a, version))
	}
	z.forget(kindMemo, a.id.String())
	z.forget(kindApp, a.id.String())
}

// endInstances forgets what a master reported and asked for: nothing of it is there any more.
func (z *Core) endInstances(a *app) {
	z.masters.forgetInstances(a)
	z.endpoints.forgetInstances(a)
	z.asks.dropAll(a)
	a.record.RestartBefore = nil
	z.apps.changed(a)
}

// wanted is what people want of the app now, as its master is told.
func (z *Core) wanted(a *app) *masterv1.Wanted {
	versions := make(map[int32]*apiv1.AppSpec, len(a.record.GetVersions()))
	for _, version := range a.record.GetVersions() {
		versions[version.GetVersion()] = version.GetSpec()
	}
	return &masterv1.Wanted{
		Spec:          z.heldSpec(a),
		Version:       a.record.GetVersion(),
		Generation:    a.record.GetGeneration(),
		Stopped:       a.state() == lifecycle.AppStopping || a.state() == lifecycle.AppStopped,
		Removing:      a.state() == lifecycle.AppRemoving,
		RestartBefore: a.record.GetRestartBefore(),
		Versions:      versions,
		Reverted:      a.record.GetReverted(),
		Paused:        a.record.GetPaused(),
		CanaryPercent: a.record.GetCanaryPercent(),
	}
}

func wantedInstances(spec *apiv1.AppSpec) int32 {
	var sum int32
	for _, role := range spec.GetRoles() {
		sum += role.GetInstances()
	}
	return sum
}
