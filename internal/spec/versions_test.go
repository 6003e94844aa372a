package spec_test

import (
	"testing"

	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func TestARollbackGoesToTheNewestVersionThatHeldAndDiffers(t *testing.T) {
	version := func(number int32, image string, instances int32, cameUp bool, failure string) *apiv1.AppHistory_Version {
		return &apiv1.AppHistory_Version{Version: number, CameUp: cameUp, Failure: failure, Spec: &apiv1.AppSpec{
			Name: "web", Roles: []*apiv1.RoleSpec{{Image: image, Instances: instances}},
		}}
	}
	for name, c := range map[string]struct {
		want     int32
		versions []*apiv1.AppHistory_Version
	}{
		"none":                         {0, nil},
		"the first":                    {0, []*apiv1.AppHistory_Version{version(1, "web:1", 1, true, "")}},
		"nothing is known":             {1, []*apiv1.AppHistory_Version{version(1, "web:1", 1, false, ""), version(2, "web:2", 1, false, "")}},
		"the one before did not hold":  {1, []*apiv1.AppHistory_Version{version(1, "web:1", 1, true, ""), version(2, "web:2", 1, true, "it exits"), version(3, "web:3", 1, false, "")}},
		"the one before never came up": {1, []*apiv1.AppHistory_Version{version(1, "web:1", 1, true, ""), version(2, "web:2", 1, false, ""), version(3, "web:3", 1, false, "")}},
		"only the count differs":       {1, []*apiv1.AppHistory_Version{version(1, "web:1", 1, true, ""), version(2, "web:2", 1, true, ""), version(3, "web:2", 5, true, "")}},
		"no version held":              {0, []*apiv1.AppHistory_Version{version(1, "web:1", 1, false, "it exits"), version(2, "web:2", 1, true, "")}},
	} {
		if got := spec.Earlier(c.versions).GetVersion(); got != c.want {
			t.Errorf("%s: it goes to version %d, want %d", name, got, c.want)
		}
	}
}

func TestARoleGoesBackToTheNewestVersionInWhichItDiffers(t *testing.T) {
	version := func(number int32, front, db string, cameUp bool) *apiv1.AppHistory_Version {
		roles := []*apiv1.RoleSpec{{Name: "front", Image: front}}
		if db != "" {
			roles = append(roles, &apiv1.RoleSpec{Name: "db", Image: db})
		}
		return &apiv1.AppHistory_Version{Version: number, CameUp: cameUp, Spec: &apiv1.AppSpec{Name: "shop", Roles: roles}}
	}
	first, second, third := version(1, "front:1", "", true), version(2, "front:2", "db:1", true), version(3, "front:2", "db:2", false)
	for name, c := range map[string]struct {
		role     string
		want     int32
		versions []*apiv1.AppHistory_Version
	}{
		"the first":                  {"front", 0, []*apiv1.AppHistory_Version{first}},
		"the one before is the same": {"front", 1, []*apiv1.AppHistory_Version{first, second, third}},
		"the one before differs":     {"db", 2, []*apiv1.AppHistory_Version{first, second, third}},
		"it was not there":           {"db", 0, []*apiv1.AppHistory_Version{first, second}},
		"there is no such role":      {"cache", 0, []*apiv1.AppHistory_Version{first, second, third}},
		"the others never came up":   {"db", 2, []*apiv1.AppHistory_Version{second, third, version(4, "front:3", "db:3", false)}},
		"nothing is known":           {"db", 1, []*apiv1.AppHistory_Version{version(1, "front:1", "db:1", false), version(2, "front:2", "db:2", false)}},
	} {
		if got := spec.EarlierOf(c.role, c.versions).GetVersion(); got != c.want {
			t.Errorf("%s: %s goes to version %d, want %d", name, c.role, got, c.want)
		}
	}
}

func TestARolloutStaysAsItIsUnlessContainersOrThePolicyChange(t *testing.T) {
	role := func(change func(*apiv1.RoleSpec)) *apiv1.RoleSpec {
		role := &apiv1.RoleSpec{Name: "front", Image: "front:1", Instances: 2, Update: &apiv1.UpdatePolicy{MaxSurge: 1}}
		change(role)
		return role
	}
	before := role(func(*apiv1.RoleSpec) {})
	for name, c := range map[string]struct {
		same  bool
		after *apiv1.RoleSpec
	}{
		"another count":        {true, role(func(r *apiv1.RoleSpec) { r.Instances = 3 })},
		"a strategy for one":   {true, role(func(r *apiv1.RoleSpec) { r.Update.Once = &apiv1.UpdatePolicy_OneRollout{CanaryPercent: 10} })},
		"another policy":       {false, role(func(r *apiv1.RoleSpec) { r.Update.MaxSurge = 2 })},
		"no policy":            {false, role(func(r *apiv1.RoleSpec) { r.Update = nil })},
		"another image":        {false, role(func(r *apiv1.RoleSpec) { r.Image = "front:2" })},
		"no role of that name": {false, nil},
	} {
		if got := spec.SameRollout(before, c.after); got != c.same {
			t.Errorf("%s: %t, want %t", name, got, c.same)
		}
	}
}

func TestWhatIsSaidForOneVersionStandsAsLongAsThat(t *testing.T) {
	app := func(front, db string, percent int32) *apiv1.AppSpec {
		role := &apiv1.RoleSpec{Name: "front", Image: front, Instances: 2, Update: &apiv1.UpdatePolicy{MaxSurge: 1}}
		if percent > 0 {
			role.Update.Once = &apiv1.UpdatePolicy_OneRollout{CanaryPercent: percent}
		}
		return &apiv1.AppSpec{Name: "shop", Roles: []*apiv1.RoleSpec{role, {Name: "db", Image: db, Update: &apiv1.UpdatePolicy{MaxSurge: 1}}}}
	}
	present := app("front:2", "db:1", 10)
	for name, c := range map[string]struct {
		next *apiv1.AppSpec
		want int32
	}{
		"the same version":           {app("front:2", "db:1", 0), 10},
		"another version of another": {app("front:2", "db:2", 0), 10},
		"something else is said":     {app("front:2", "db:1", 30), 30},
		"another version of it":      {app("front:3", "db:1", 0), 0},
	} {
		spec.KeepOnce(present, c.next)
		if got := c.next.GetRoles()[0].GetUpdate().GetOnce().GetCanaryPercent(); got != c.want || c.next.GetRoles()[1].GetUpdate().GetOnce() != nil {
			t.Errorf("%s: %d %%, want %d %%; %v", name, got, c.want, c.next.GetRoles()[1])
		}
	}
	spec.DropOnce(present.GetRoles()[0])
	if present.GetRoles()[0].GetUpdate().GetOnce() != nil {
		t.Error("it is not dropped")
	}
}
