package spec

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// rolesOf makes roles of texts as in "front: db cache".
func rolesOf(texts ...string) []*apiv1.RoleSpec {
	var roles []*apiv1.RoleSpec
	for _, text := range texts {
		name, after, _ := strings.Cut(text, ":")
		roles = append(roles, &apiv1.RoleSpec{Name: name, After: strings.Fields(after)})
	}
	return roles
}

func TestRolesComeBehindThoseThatTheyStartAfter(t *testing.T) {
	for want, roles := range map[string][]*apiv1.RoleSpec{
		"b a":       rolesOf("b", "a"),
		"db front":  rolesOf("front: db", "db"),
		"d c b a":   rolesOf("a: b c", "b: c", "c: d", "d"),
		"c a b":     rolesOf("a: b", "b: a", "c"), // a circle comes last
		"x y front": rolesOf("front: y x", "x", "y"),
	} {
		var names []string
		for _, role := range StartOrder(roles) {
			names = append(names, role.GetName())
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%v: %s, want %s", roles, got, want)
		}
	}
}

func TestRolesThatCannotBeOrdered(t *testing.T) {
	for name, c := range map[string]struct {
		roles []*apiv1.RoleSpec
		want  []string
	}{
		"none":       {rolesOf("a", "b: a", "c: a b"), nil},
		"itself":     {rolesOf("a: a", "b"), []string{`a after: role "a" cannot start after itself`}},
		"an unknown": {rolesOf("a: db", "b"), []string{`a after: the app has no role "db"; after names other roles of it`}},
		"no roles":   {rolesOf(": db"), []string{` after: the app has no role "db"; after names other roles of it`}},
		"a circle of two": {
			rolesOf("a: b", "b: a", "c"), []string{"a after: these roles wait for each other: a after b after a; take one of them out of after"},
		},
		"a circle behind another role": {
			rolesOf("front: x", "x: y", "y: z", "z: x"), []string{"x after: these roles wait for each other: x after y after z after x; take one of them out of after"},
		},
	} {
		c1 := &checker{}
		c1.checkOrder(c.roles)
		var got []string
		for _, fault := range c1.faults {
			got = append(got, fmt.Sprintf("%s %s: %s", fault.Role, strings.Join(fault.Key, "."), fault.Sentence))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// The order is no property of a container: to change it replaces none.
func TestTheOrderOfRolesReplacesNothing(t *testing.T) {
	before := &apiv1.AppSpec{Roles: rolesOf("front", "db")}
	after := &apiv1.AppSpec{Roles: rolesOf("front: db", "db")}
	if NeedsNewInstances(before, after) {
		t.Error("another order needs new instances")
	}
}
