package spec

import (
	"errors"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestAnImageIsNamedByItsDigest(t *testing.T) {
	const digest = "sha256:0123"
	for image, want := range map[string]string{
		"web:1.0": "web@sha256:0123", "team/web": "team/web@sha256:0123", "host:5000/web": "host:5000/web@sha256:0123",
		"host:5000/web:2": "host:5000/web@sha256:0123", "web@sha256:0123": "web@sha256:0123", "": "",
	} {
		if got := Pinned(image, digest); got != want {
			t.Errorf("%q became %q, want %q", image, got, want)
		}
	}
	if got := Pinned("web:1.0", ""); got != "web:1.0" {
		t.Errorf("without a digest web:1.0 became %q", got)
	}
}

// nested is a mapping that is so many levels deep.
func nested(depth int) *structpb.Struct {
	inner := structpb.NewBoolValue(true)
	for range depth {
		inner = structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"in": inner}})
	}
	return inner.GetStructValue()
}

func TestAPackageIsBounded(t *testing.T) {
	for _, c := range []struct {
		change func(*apiv1.FrameworkPackage)
		key    string
		want   string
	}{
		{func(*apiv1.FrameworkPackage) {}, "", ""},
		{func(p *apiv1.FrameworkPackage) { p.Options = nested(32) }, "", ""},
		{func(p *apiv1.FrameworkPackage) { p.Options = nested(34) }, "options", "is nested too deep; the limit is 32 levels"},
		{func(p *apiv1.FrameworkPackage) {
			p.Options.Fields["a"] = structpb.NewStringValue(strings.Repeat("x", MaxSchema))
		}, "options", "the schema of the options has 64KiB, but the limit is 64KiB"},
		{func(p *apiv1.FrameworkPackage) { p.Options.Fields["a"] = &structpb.Value{} }, "options.a", "options.a has no value"},
		{func(p *apiv1.FrameworkPackage) { p.Options.Fields["a"] = structpb.NewNumberValue(math.Inf(1)) }, "options.a", "options.a is no number that JSON has"},
		{func(p *apiv1.FrameworkPackage) { p.Master.Args = []string{strings.Repeat("x", MaxPackage)} }, "", "the framework package has 128KiB, but the limit is 128KiB"},
		{func(p *apiv1.FrameworkPackage) { p.Name = DynamicDeploy }, "name", "is part of Mammoth; choose another"},
		{func(p *apiv1.FrameworkPackage) { p.Version = strings.Repeat("1", 41) }, "version", "version has 41 characters, but the limit is 40"},
		{func(p *apiv1.FrameworkPackage) { p.Description = strings.Repeat("d", 257) }, "description", "but the limit is 256"},
		{func(p *apiv1.FrameworkPackage) { p.Master.Command = nil }, "master", "neither an image nor a command"},
		{func(p *apiv1.FrameworkPackage) { p.Master.Env = map[string]string{"MAMMOTH_APP": "x"} }, "master.env.MAMMOTH_APP", "is the ResourceManager's own"},
		{func(p *apiv1.FrameworkPackage) { p.Master.Env = map[string]string{"A B": "x"} }, "master.env.A B", "cannot be the name of an environment variable"},
		{func(p *apiv1.FrameworkPackage) { p.Master.Resources.MemoryBytes = 1 }, "master.resources.memory", "the minimum is 6MiB"},
		{func(p *apiv1.FrameworkPackage) { p.Master.Resources.Ports = 1 }, "master.resources", "a master can have cpu, memory and disk only"},
	} {
		p := &apiv1.FrameworkPackage{
			Name: "ring", Master: &apiv1.MasterKind{Command: []string{"ring"}, Resources: &corev1.Resources{}}, Options: &structpb.Struct{Fields: map[string]*structpb.Value{}},
		}
		c.change(p)
		CompletePackage(p)
		var faults Faults
		errors.As(CheckPackage(p), &faults)
		key, sentence := "", ""
		if len(faults) > 0 {
			key, sentence = strings.Join(faults[0].Key, "."), faults[0].Sentence
		}
		if !strings.HasPrefix(key, c.key) || !strings.Contains(sentence, c.want) || (sentence == "") != (c.want == "") {
			t.Errorf("want %q at %s; it is %q at %q", c.want, c.key, sentence, key)
		}
	}
}

func TestAnAppOfAnotherFrameworkHasOptions(t *testing.T) {
	for _, c := range []struct {
		change func(*apiv1.AppSpec)
		want   string
	}{
		{func(*apiv1.AppSpec) {}, ""},
		{func(a *apiv1.AppSpec) { a.Options = nil }, ""},
		{func(a *apiv1.AppSpec) { a.Options = nested(34) }, "is nested too deep; the limit is 32 levels"},
		{func(a *apiv1.AppSpec) { a.Framework = "Ring" }, `"Ring" cannot be the name of a framework`},
		{func(a *apiv1.AppSpec) { a.Kind = apiv1.AppSpec_COMPANION }, "only DynamicDeploy has apps of another kind than app"},
		{func(a *apiv1.AppSpec) { a.Roles = []*apiv1.RoleSpec{{Image: "web:1"}} }, "roles are DynamicDeploy's, and the framework is ring"},
		{func(a *apiv1.AppSpec) { a.Framework, a.Roles = "", []*apiv1.RoleSpec{{Image: "web:1"}} }, "DynamicDeploy reads no options"},
		{func(a *apiv1.AppSpec) { a.Framework, a.Options = DynamicDeploy, nil }, "the app has no role; give it one with an image"},
	} {
		app := &apiv1.AppSpec{Name: "ring", Framework: "ring", Options: nested(1)}
		c.change(app)
		Complete(app)
		err := Check(app)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q; it is %v", c.want, err)
		}
	}
	before, after := &apiv1.AppSpec{Name: "ring", Framework: "ring", Options: nested(1)}, &apiv1.AppSpec{Name: "ring", Framework: "ring", Options: nested(2)}
	if !NeedsNewInstances(before, after) {
		t.Error("other options are not another version")
	}
}

func TestRolesHaveNamesBeyondTheirApp(t *testing.T) {
	one, front, back := &apiv1.RoleSpec{Name: "one", Instances: 2}, &apiv1.RoleSpec{Name: "front", Instances: 3}, &apiv1.RoleSpec{Name: "back", Instances: 4}
	single, several := &apiv1.AppSpec{Name: "web", Roles: []*apiv1.RoleSpec{one}}, &apiv1.AppSpec{Name: "shop", Roles: []*apiv1.RoleSpec{front, back}}
	for got, want := range map[string]string{
		ServiceName(single, one): "web", ServiceName(several, front): "front.shop", RoleName("dns", ""): "dns", RoleName("dns", "edge"): "edge.dns",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if Instances(several) != 7 || Instances(single) != 2 {
		t.Errorf("they have %d and %d instances", Instances(several), Instances(single))
	}
	for _, app := range []*apiv1.AppSpec{{Kind: apiv1.AppSpec_EXTERNAL}, {Framework: "ring"}} {
		if HasRoles(app) || !HasRoles(single) {
			t.Errorf("%v has roles: %v", app, HasRoles(app))
		}
	}
}
