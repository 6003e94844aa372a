package manifest

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Diff lists the keys of a manifest in which two specs of an app differ, and the effect on each role. Both specs are complete;
// before is nil if there is no app yet.
func Diff(before, after *apiv1.AppSpec) *apiv1.AppDiff {
	diff := &apiv1.AppDiff{Fields: compare(appKeys(before), appKeys(after))}
	now := map[string]*apiv1.RoleSpec{}
	for _, role := range before.GetRoles() {
		now[role.GetName()] = role
	}
	for _, role := range after.GetRoles() {
		diff.Roles = append(diff.Roles, diffRole(now[role.GetName()], role))
		delete(now, role.GetName())
	}
	for _, role := range before.GetRoles() {
		if now[role.GetName()] != nil {
			diff.Roles = append(diff.Roles, diffRole(role, nil))
		}
	}
	return diff
}

// Differs reports whether a diff has any difference.
func Differs(diff *apiv1.AppDiff) bool {
	if len(diff.GetFields()) > 0 {
		return true
	}
	for _, role := range diff.GetRoles() {
		if role.GetEffect() != apiv1.RoleDiff_UNCHANGED {
			return true
		}
	}
	return false
}

func diffRole(before, after *apiv1.RoleSpec) *apiv1.RoleDiff {
	diff := &apiv1.RoleDiff{Role: before.GetName(), Fields: compare(roleKeys(before), roleKeys(after))}
	switch {
	case before == nil:
		diff.Role, diff.Effect = after.GetName(), apiv1.RoleDiff_ADDED
	case after == nil:
		diff.Effect, diff.Fields = apiv1.RoleDiff_REMOVED, nil // its keys are not listed
		return diff
	case !spec.SameContainers(before, after):
		diff.Effect = apiv1.RoleDiff_REPLACED
	case len(diff.GetFields()) > 0:
		diff.Effect = apiv1.RoleDiff_IN_PLACE
	}
	if before.GetImage() == after.GetImage() && before.GetImageDigest() != after.GetImageDigest() {
		diff.Fields = append(diff.Fields, &apiv1.FieldDiff{Key: "imageDigest", Before: before.GetImageDigest(), After: after.GetImageDigest()})
	}
	if was, is := before.GetCompanion(), after.GetCompanion(); was.GetPackage() == is.GetPackage() && was.GetVersion() != is.GetVersion() {
		diff.Fields = append(diff.Fields, &apiv1.FieldDiff{Key: "companion.version", Before: was.GetVersion(), After: is.GetVersion()})
	}
	return diff
}

// A keyed is the path of a key in a manifest, such as "update.maxSurge", and its value in one line.
type keyed struct{ key, value string }

func appKeys(app *apiv1.AppSpec) []keyed {
	m := &mapping{}
	if app != nil {
		m.app(app)
	}
	return flat(m.whole(), "", nil)
}

func roleKeys(role *apiv1.RoleSpec) []keyed {
	m := &mapping{}
	if role != nil {
		m.role(role)
	}
	return flat(m.whole(), "", nil)
}

// flat flattens mappings. A list is one value, since its items have no names.
func flat(n *yaml.Node, prefix string, into []keyed) []keyed {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := prefix+n.Content[i].Value, n.Content[i+1]
		if value.Kind == yaml.MappingNode && len(value.Content) > 0 {
			into = flat(value, key+".", into)
		} else {
			into = append(into, keyed{key, inOneLine(value)})
		}
	}
	return into
}

func inOneLine(n *yaml.Node) string {
	style(n)
	text, err := yaml.Marshal(n)
	if err != nil {
		return n.Value
	}
	return strings.TrimSuffix(string(text), "\n")
}

// style makes a value, with all values in it, be written in one line.
func style(n *yaml.Node) {
	switch {
	case n.Kind != yaml.ScalarNode:
		n.Style = yaml.FlowStyle
	case strings.ContainsAny(n.Value, "\n\r"):
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, child := range n.Content {
		style(child)
	}
}

// compare returns the keys whose values differ: first those of after in its order, then those that only before has.
func compare(before, after []keyed) []*apiv1.FieldDiff {
	now := map[string]string{}
	for _, one := range before {
		now[one.key] = one.value
	}
	var diffs []*apiv1.FieldDiff
	for _, one := range after {
		if value := now[one.key]; value != one.value {
			diffs = append(diffs, &apiv1.FieldDiff{Key: one.key, Before: value, After: one.value})
		}
		delete(now, one.key)
	}
	for _, one := range before {
		if value, left := now[one.key]; left {
			diffs = append(diffs, &apiv1.FieldDiff{Key: one.key, Before: value})
		}
	}
	return diffs
}
