package service_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/spec/spectest"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
)

// TestSpecs replays testdata/specs: a spec, and either the complete spec or the error.
func TestSpecs(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			spec := &apiv1.AppSpec{}
			if err := protojson.Unmarshal([]byte(d.Input), spec); err != nil {
				d.Fatalf(t, "%v", err)
			}
			switch err := service.Complete(spec); {
			case err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, errdefs.ErrNotImplemented):
				d.Fatalf(t, "the class of %v", err)
			case err != nil:
				return wire.Sentence(err) + "\n"
			}
			if d.Cmd == "fine" {
				return "fine\n"
			}
			return stable(t, spec)
		})
	})
}

// stable is a spec's text in one form: protojson varies its blanks.
func stable(t *testing.T, spec *apiv1.AppSpec) string {
	t.Helper()
	raw, err := protojson.MarshalOptions{Multiline: true, Indent: " "}.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for i, b := range raw {
		if b == ' ' && i > 0 && raw[i-1] == ' ' && i > 1 && raw[i-2] == ':' {
			continue
		}
		out = append(out, b)
	}
	return string(out) + "\n"
}

func TestCompletingTwiceChangesNothing(t *testing.T) {
	spec := &apiv1.AppSpec{Name: "web", Roles: []*apiv1.RoleSpec{{Image: "web:1"}}}
	if err := service.Complete(spec); err != nil {
		t.Fatal(err)
	}
	once := proto.CloneOf(spec)
	if err := service.Complete(spec); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(once, spec) {
		t.Errorf("once: %v\ntwice: %v", once, spec)
	}
}

// The command line fills in what is left out before it sends a spec, and the ResourceManager what still is.
func TestNothingMeansTheSameToTheCommandLineAndToTheResourceManager(t *testing.T) {
	role := defaults.Role()
	role.Image, role.Health = "web:1", defaults.Probe()
	role.Health.Probe = &corev1.HealthCheck_Exec_{Exec: &corev1.HealthCheck_Exec{Command: []string{"true"}}}
	silent := &apiv1.RoleSpec{Image: "web:1", Instances: 1, Health: &corev1.HealthCheck{Probe: role.GetHealth().GetProbe()}}
	filled := &apiv1.AppSpec{Name: "web", Roles: []*apiv1.RoleSpec{role}}
	empty := &apiv1.AppSpec{Name: "web", Roles: []*apiv1.RoleSpec{silent}}
	for _, spec := range []*apiv1.AppSpec{filled, empty} {
		if err := service.Complete(spec); err != nil {
			t.Fatal(err)
		}
	}
	if !proto.Equal(filled, empty) {
		t.Errorf("the one is %v,\nthe other %v", filled, empty)
	}
}

func TestASpecIsRefusedWithTheSentenceThatEverybodyIsTold(t *testing.T) {
	for _, c := range spectest.Cases() {
		if err := service.Complete(c.Broken()); err == nil || wire.Sentence(err) != "app web: "+c.Sentence {
			t.Errorf("%s: %v, want %q", c.Name, err, c.Sentence)
		}
	}
}

func TestASpecHasTheNamesThatEverybodyTakes(t *testing.T) {
	for name, sentence := range spectest.Names() {
		named, role := spectest.App(), spectest.App()
		named.Name, role.Roles[0].Name = name, name
		for want, app := range map[string]*apiv1.AppSpec{fmt.Sprintf(sentence, "an app"): named, "app web: " + fmt.Sprintf(sentence, "a role"): role} {
			if err := service.Complete(app); err == nil || wire.Sentence(err) != want {
				t.Errorf("%q: %v, want %q", name, err, want)
			}
		}
	}
}
