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
