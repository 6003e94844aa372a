package mastertest

import (
	"slices"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// SetDesired changes the desired state and raises the generation.
func (z *Zone) SetDesired(change func(*masterv1.DesiredState)) {
	z.mu.Lock()
	defer z.mu.Unlock()
	desired := proto.CloneOf(z.desired)
	change(desired)
	desired.Generation++
	z.setDesired(desired)
}

// Deploy makes a new version the desired one.
func (z *Zone) Deploy(change func(*apiv1.RoleSpec)) {
	z.SetDesired(func(desired *masterv1.DesiredState) {
		change(desired.GetSpec().GetRoles()[0])
		desired.Version++
		clearRevision(desired)
	})
}

// DeployRoles makes a new version with these roles the desired one.
func (z *Zone) DeployRoles(roles ...*apiv1.RoleSpec) {
	z.SetDesired(func(desired *masterv1.DesiredState) {
		desired.Spec.Roles = nil
		for _, role := range roles {
			desired.Spec.Roles = append(desired.Spec.Roles, proto.CloneOf(role))
		}
		desired.Version++
		clearRevision(desired)
	})
}

// clearRevision marks the desired version as a deployment: it repeats no version.
func clearRevision(desired *masterv1.DesiredState) {
	desired.Revised, desired.FromVersion, desired.FromRoles = false, 0, nil
}

// setDesired sets the desired state and sends it.
func (z *Zone) setDesired(desired *masterv1.DesiredState) {
	version := desired.GetVersion()
	desired.Versions[version] = proto.CloneOf(desired.GetSpec())
	if !slices.ContainsFunc(desired.GetNotes(), func(n *masterv1.VersionNote) bool { return n.GetVersion() == version }) {
		desired.Notes = append(desired.Notes, &masterv1.VersionNote{Version: version})
	}
	z.desired = desired
	z.send(func(answer *masterv1.AllocateResponse) { answer.Desired = desired })
}

// noted is a desired state with a master's note on a version; nil if there is no such version.
func noted(present *masterv1.DesiredState, note *masterv1.VersionNote) *masterv1.DesiredState {
	desired := proto.CloneOf(present)
	i := slices.IndexFunc(desired.GetNotes(), func(n *masterv1.VersionNote) bool { return n.GetVersion() == note.GetVersion() })
	if i < 0 {
		return nil
	}
	desired.Notes[i] = &masterv1.VersionNote{
		Version: note.GetVersion(), CameUp: desired.Notes[i].GetCameUp() || note.GetCameUp(), Failure: note.GetFailure(),
	}
	return desired
}

// revised is a desired state with the spec of an earlier version, or with that of some of its roles; nil if it cannot be. The counts of
// instances stay.
func revised(present *masterv1.DesiredState, revise *masterv1.Revise) *masterv1.DesiredState {
	earlier, known := present.GetVersions()[revise.GetToVersion()]
	if revise.GetVersion() != present.GetVersion() || !known {
		return nil
	}
	desired := proto.CloneOf(present)
	roles := map[string]*apiv1.RoleSpec{}
	for _, role := range proto.CloneOf(earlier).GetRoles() {
		roles[role.GetName()] = role
	}
	if len(revise.GetRoles()) == 0 {
		desired.Spec = proto.CloneOf(earlier)
	}
	for i, role := range desired.GetSpec().GetRoles() {
		if len(revise.GetRoles()) == 0 || slices.Contains(revise.GetRoles(), role.GetName()) {
			if roles[role.GetName()] == nil {
				return nil
			}
			desired.Spec.Roles[i] = roles[role.GetName()]
		}
		for _, now := range present.GetSpec().GetRoles() {
			if now.GetName() == role.GetName() {
				desired.Spec.Roles[i].Instances = now.GetInstances()
			}
		}
	}
	desired.Version++
	desired.Generation++
	desired.Revised, desired.FromVersion, desired.FromRoles = true, revise.GetToVersion(), revise.GetRoles()
	return desired
}
