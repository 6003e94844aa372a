package zone

import (
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/peer"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
)

// keepVersions is how many versions before the present one are kept, and keepBytes how large they may be together: a master
// and whoever asks for an app's history are sent all of them in one message.
const (
	keepVersions = 20
	keepBytes    = 2 << 20
)

// versions are the spec that each app is to have, the earlier ones, and what the app's master says of its work on the present one.
//
// A version is a spec with which instances run. It is stable if its master has noted that it came up, and not that it failed (spec.Stable).
type versions struct {
	*turn
	access   *access.Rules
	packages *packages
	apps     *apps
	damage   *damage
	desired  *desired

	views *views
}

// change makes a spec the desired one, as a new version if instances have to be replaced.
func (vs *versions) change(a *app, spec *apiv1.AppSpec, cause string) {
	specs.KeepOnce(a.record.GetSpec(), spec)
	if specs.NeedsNewInstances(a.record.GetSpec(), spec) {
		vs.setVersion(a, spec, cause)
		return
	}
	vs.setSpec(a, spec)
}

// complete adds the versions to what a master is sent.
func (vs *versions) complete(a *app, desired *masterv1.DesiredState) {
	r := a.record
	desired.Version, desired.Revised, desired.FromVersion, desired.FromRoles = r.GetVersion(), r.GetRevised(), r.GetFromVersion(), r.GetFromRoles()
	desired.Versions = make(map[int32]*apiv1.AppSpec, len(r.GetVersions()))
	for _, version := range r.GetVersions() {
		desired.Versions[version.GetVersion()] = version.GetSpec()
		desired.Notes = append(desired.Notes, &masterv1.VersionNote{Version: version.GetVersion(), CameUp: version.GetCameUp(), Failure: version.GetFailure()})
	}
}

// setVersion makes a spec the desired one, as a new version.
func (vs *versions) setVersion(a *app, spec *apiv1.AppSpec, cause string) {
	r := a.record
	r.Version++
	r.Spec, r.Revised, r.FromVersion, r.FromRoles = spec, false, 0, nil
	vs.desired.refreshCounts(a)
	versions := make([]*apiv1.AppHistory_Version, 0, len(r.GetVersions())+1)
	for _, version := range r.GetVersions() {
		if version.GetCurrent() {
			version = proto.CloneOf(version)
			version.Current = false
		}
		versions = append(versions, version)
	}
	r.Versions = append(versions, &apiv1.AppHistory_Version{
		Version: r.GetVersion(), CreatedAt: timestamppb.New(vs.now), Cause: cause, Spec: spec, Current: true,
	})
	vs.saveVersion(a, r.Versions[len(r.Versions)-1])
	vs.dropVersions(a)
	if r.GetVersion() > 1 {
		vs.Emit(&apiv1.Event{Kind: "app", App: r.GetName(), From: a.state().String(), To: a.state().String(), Message: fmt.Sprintf("version %d of %s is wanted: %s", r.GetVersion(), r.GetName(), cause)})
	}
	vs.apps.changed(a)
}

// saveVersion stores a version.
func (vs *versions) saveVersion(a *app, version *apiv1.AppHistory_Version) {
	vs.Save(kindVersion, versionKey(a, version), &storev1.Version{AppId: a.id.String(), Version: version})
}

// dropVersions forgets the oldest versions if there are too many, or they are too large. The newest stable version stays.
func (vs *versions) dropVersions(a *app) {
	var good int32
	for _, version := range a.record.GetVersions() {
		if specs.Stable(version) {
			good = version.GetVersion()
		}
	}
	var kept []*apiv1.AppHistory_Version
	count, size := 0, 0
	for _, version := range slices.Backward(a.record.GetVersions()) {
		count++
		size += proto.Size(version)
		if version.GetCurrent() || version.GetVersion() == good || count <= 1+keepVersions && size <= keepBytes {
			kept = append(kept, version)
			continue
		}
		vs.Forget(kindVersion, versionKey(a, version))
	}
	slices.Reverse(kept)
	a.record.Versions = kept
}

// forgetVersions forgets the versions of an app that is gone.
func (vs *versions) forgetVersions(a *app) {
	for _, version := range a.record.GetVersions() {
		vs.Forget(kindVersion, versionKey(a, version))
	}
}

// versionKey orders the versions of an app by their numbers.
func versionKey(a *app, version *apiv1.AppHistory_Version) string {
	return fmt.Sprintf("%s/%010d", a.id, version.GetVersion())
}

// withoutVersions is the part of an app's record that is stored with every change.
func withoutVersions(record *storev1.App) *storev1.App {
	written := &storev1.App{}
	fields := record.ProtoReflect().Descriptor().Fields()
	record.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field != fields.ByName("spec") && field != fields.ByName("versions") {
			written.ProtoReflect().Set(field, value)
		}
		return true
	})
	return written
}

// setSpec changes the desired spec without a new version.
func (vs *versions) setSpec(a *app, spec *apiv1.AppSpec) {
	r := a.record
	r.Spec = spec
	vs.desired.refreshCounts(a)
	r.Versions = slices.Clone(r.GetVersions())
	last := proto.CloneOf(r.GetVersions()[len(r.GetVersions())-1])
	last.Spec = spec
	r.Versions[len(r.GetVersions())-1] = last
	vs.saveVersion(a, last)
	vs.apps.changed(a)
}

// note stores in the history what became of a version that is kept.
func (vs *versions) note(a *app, note *masterv1.VersionNote) {
	r := a.record
	i := slices.IndexFunc(r.GetVersions(), func(v *apiv1.AppHistory_Version) bool { return v.GetVersion() == note.GetVersion() })
	if i < 0 {
		return
	}
	cameUp := r.GetVersions()[i].GetCameUp() || note.GetCameUp()
	if r.GetVersions()[i].GetCameUp() == cameUp && r.GetVersions()[i].GetFailure() == note.GetFailure() {
		return
	}
	noted := proto.CloneOf(r.GetVersions()[i])
	noted.CameUp, noted.Failure = cameUp, note.GetFailure()
	r.Versions = slices.Clone(r.GetVersions())
	r.Versions[i] = noted
	vs.saveVersion(a, noted)
	vs.desired.notifyMaster(a) // it goes by the notes when it revises
	vs.apps.changed(a)
}

// rollback makes an earlier version the desired one again, because a person wants it: of the whole app or, unless it is empty, of one role.
func (vs *versions) rollback(who peer.User, name string, version int32, role string) (*apiv1.App, error) {
	a, err := vs.apps.changeable(who, name, "roll back")
	if err != nil {
		return nil, err
	}
	if err := a.notRemoving(); err != nil {
		return nil, err
	}
	what, cause, roles := name, "rollback", []string(nil)
	if role != "" {
		if _, err := chooseRole(a.record.GetSpec(), role); err != nil {
			return nil, err
		}
		what, cause, roles = fmt.Sprintf("role %s of %s", role, name), "rollback of "+role, []string{role}
	}
	old, err := a.earlier(role, what)
	if version != 0 {
		old, err = a.version(version)
	}
	if err != nil {
		return nil, err
	}
	spec, err := specWith(a.record.GetSpec(), old, roles)
	if err != nil {
		return nil, err
	}
	if !specs.NeedsNewInstances(a.record.GetSpec(), spec) {
		return nil, fmt.Errorf("%s runs what version %d says already: %w", what, old.GetVersion(), errdefs.ErrFailedPrecondition)
	}
	if spec.GetQueue() != a.record.GetSpec().GetQueue() {
		if err := vs.access.MaySubmit(who, spec.GetQueue()); err != nil {
			return nil, err
		}
	}
	if err := vs.packages.Check(spec); err != nil {
		return nil, err
	}
	if err := vs.apps.checkClaims(spec); err != nil {
		return nil, err
	}
	if err := vs.desired.replaceSpec(a, spec, fmt.Sprintf("%s to %d", cause, old.GetVersion())); err != nil {
		return nil, err
	}
	vs.repeats(a, old, roles)
	return vs.views.answer(a), nil
}

// earlier finds the version that a rollback of what goes to unless one is named: of the whole app or, unless it is empty, of one role.
func (a *app) earlier(role, what string) (*apiv1.AppHistory_Version, error) {
	r := a.record
	if len(r.GetVersions()) < 2 {
		return nil, fmt.Errorf("%s has no version before the present one: %w", r.GetName(), errdefs.ErrFailedPrecondition)
	}
	version := specs.Earlier(r.GetVersions())
	if role != "" {
		version = specs.EarlierOf(role, r.GetVersions())
	}
	if version != nil {
		return version, nil
	}
	return nil, fmt.Errorf("no earlier version of %s that came up and held differs from the present one; \"mammoth app history %s\" lists those that are kept, name one with --to: %w",
		what, r.GetName(), errdefs.ErrFailedPrecondition)
}

// version finds a kept version.
func (a *app) version(number int32) (*apiv1.AppHistory_Version, error) {
	for _, version := range a.record.GetVersions() {
		if version.GetVersion() == number {
			return version, nil
		}
	}
	return nil, fmt.Errorf("%s has no version %d; \"mammoth app history %s\" lists those that are kept: %w",
		a.record.GetName(), number, a.record.GetName(), errdefs.ErrNotFound)
}

// specWith is the spec of an earlier version, or the present one with some roles of it. The counts of instances stay: an earlier program is
// desired again, and not an earlier load. What was said for that version alone stays out.
func specWith(present *apiv1.AppSpec, old *apiv1.AppHistory_Version, roles []string) (*apiv1.AppSpec, error) {
	now, earlier := map[string]*apiv1.RoleSpec{}, map[string]*apiv1.RoleSpec{}
	whole, part := proto.CloneOf(old.GetSpec()), proto.CloneOf(present)
	for _, role := range present.GetRoles() {
		now[role.GetName()] = role
	}
	for _, role := range whole.GetRoles() {
		earlier[role.GetName()] = role
		if now[role.GetName()] != nil {
			role.Instances = now[role.GetName()].GetInstances()
		}
		specs.DropOnce(role)
	}
	if len(roles) == 0 {
		return whole, nil
	}
	for _, name := range roles {
		if now[name] == nil || earlier[name] == nil {
			return nil, fmt.Errorf("version %d of %s and the present one do not both have a role %q: %w", old.GetVersion(), present.GetName(), name, errdefs.ErrFailedPrecondition)
		}
	}
	for i, role := range part.GetRoles() {
		if slices.Contains(roles, role.GetName()) {
			part.Roles[i] = earlier[role.GetName()]
		}
	}
	// Roles of two versions may wait for each other, or for one that is gone.
	if err := specs.Check(part); err != nil {
		return nil, fmt.Errorf("roles of version %d do not go with the present ones: %w", old.GetVersion(), err)
	}
	return part, nil
}

// revise makes an earlier version the desired one again, because the master wants it.
func (vs *versions) revise(a *app, revise *masterv1.Revise) {
	r := a.record
	if revise.GetVersion() != r.GetVersion() || revise.GetToVersion() == r.GetVersion() || a.ending() {
		return // another version is desired by now
	}
	var spec *apiv1.AppSpec
	earlier, err := a.version(revise.GetToVersion())
	if err == nil {
		spec, err = specWith(r.GetSpec(), earlier, revise.GetRoles())
	}
	if err == nil {
		err = vs.desired.replaceSpec(a, spec, revise.GetCause())
	}
	if err != nil {
		vs.Emit(&apiv1.Event{
			Kind: "app", App: r.GetName(), From: a.state().String(), To: a.state().String(),
			Message: fmt.Sprintf("the application master of %s cannot have version %d again (%s): %v", r.GetName(), revise.GetToVersion(), revise.GetCause(), err),
		})
		return
	}
	r.Revised = true
	vs.repeats(a, earlier, revise.GetRoles())
}

// repeats notes that the present version has the spec of an earlier one, or some of its roles have.
func (vs *versions) repeats(a *app, earlier *apiv1.AppHistory_Version, roles []string) {
	a.record.FromVersion, a.record.FromRoles = earlier.GetVersion(), roles
	vs.desired.notifyMaster(a)
	vs.apps.changed(a)
}

// load gives every app its versions, which are read in the order of their numbers, and the spec of the last one.
func (vs *versions) load(stored Records) error {
	err := loadRecords(stored, kindVersion, func(record *storev1.Version) error {
		if a := vs.apps.ofRecord(record.GetAppId()); a != nil {
			record.Version.Current = record.GetVersion().GetVersion() == a.record.GetVersion()
			a.record.Versions = append(a.record.Versions, record.GetVersion())
			a.record.Spec = record.GetVersion().GetSpec()
		}
		return nil
	})
	for _, a := range vs.apps.sorted() {
		versions := a.record.GetVersions()
		if len(versions) > 0 && versions[len(versions)-1].GetCurrent() {
			continue
		}
		lost := fmt.Errorf("version %d of app %s is not there", a.record.GetVersion(), a.record.GetName())
		if err = errors.Join(err, vs.damage.tolerate(lost)); err != nil {
			return err
		}
		vs.fallBack(a)
	}
	return err
}

// fallBack makes the newest version that is there the present one, if the record of the present one was lost. Without any version the app
// counts as lost.
func (vs *versions) fallBack(a *app) {
	versions := a.record.GetVersions()
	if len(versions) == 0 {
		vs.apps.remove(a)
		vs.Forget(kindApp, a.id.String())
		return
	}
	newest := versions[len(versions)-1]
	newest.Current = true
	a.record.Version, a.record.Spec = newest.GetVersion(), newest.GetSpec()
	vs.Save(kindApp, a.id.String(), a.record)
}

func (vs *versions) history(name string) (*apiv1.AppHistory, error) {
	a, err := vs.apps.named(name)
	if err != nil {
		return nil, err
	}
	return proto.CloneOf(&apiv1.AppHistory{Versions: a.record.GetVersions(), Attempts: a.attemptHistory()}), nil
}
