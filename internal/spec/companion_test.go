package spec

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func frontPackage() *apiv1.FrameworkPackage {
	return &apiv1.FrameworkPackage{Name: "front", Version: "2", Companion: &apiv1.CompanionKind{
		Command: []string{"front"}, Args: []string{"-v"}, Resources: &corev1.Resources{CpuMillis: 200},
		Health: &corev1.HealthCheck{Probe: &corev1.HealthCheck_Exec_{Exec: &corev1.HealthCheck_Exec{Command: []string{"true"}}}},
	}}
}

func roleFrom(t *testing.T, text string) *apiv1.RoleSpec {
	t.Helper()
	role := &apiv1.RoleSpec{}
	if err := protojson.Unmarshal([]byte(text), role); err != nil {
		t.Fatal(err)
	}
	return role
}

func TestARoleRunsTheCompanionOfAPackage(t *testing.T) {
	role := roleFrom(t, `{"companion": {"package": "front", "options": {"tlsListen": "0.0.0.0:443", "workers": 3, "quiet": true, "also": ["a", 2]}}}`)
	for range 2 { // what is filled in may be filled in again
		if err := RunCompanion(role, frontPackage()); err != nil {
			t.Fatal(err)
		}
	}
	args, _ := Args(role)
	if want := []string{"-v", "--also=a,2", "--quiet=true", "--tls-listen=0.0.0.0:443", "--workers=3"}; !slices.Equal(args, want) || !slices.Equal(role.GetCommand(), []string{"front"}) {
		t.Errorf("it runs %q with %q, want %q", role.GetCommand(), args, want)
	}
	if role.GetCompanion().GetVersion() != "2" || role.GetResources().GetCpuMillis() != 200 || role.GetHealth().GetExec() == nil {
		t.Errorf("it is %v", role)
	}

	// What the role says itself wins, and an image has its digest.
	p := frontPackage()
	p.Companion.Image, p.Companion.ImageDigest, p.Companion.Command, p.Companion.Args = "front:1", "sha256:01", nil, nil
	role = roleFrom(t, `{"companion": {"package": "front"}, "resources": {"cpuMillis": "50"}, "health": {"tcp": {}}}`)
	if err := RunCompanion(role, p); err != nil {
		t.Fatal(err)
	}
	if role.GetImage() != "front@sha256:01" || role.GetArgs() != nil || role.GetResources().GetCpuMillis() != 50 || role.GetHealth().GetTcp() == nil {
		t.Errorf("it is %v", role)
	}
}

func TestOptionsThatACompanionCannotRead(t *testing.T) {
	for text, want := range map[string]string{
		`{"companion": {"package": "front", "options": {"a-b": 1}}}`:         `"a-b" cannot be an option of a companion, which is a name as in tlsListen`,
		`{"companion": {"package": "front", "options": {"deep": {"a": 1}}}}`: "deep must be a text, a number, true or false, or a list of those without commas: the companion reads it as a flag",
		`{"companion": {"package": "front", "options": {"all": ["a,b"]}}}`:   "all must be a text, a number, true or false, or a list of those without commas: the companion reads it as a flag",
		`{"companion": {"package": "front", "options": {"all": [["a"]]}}}`:   "all must be a text, a number, true or false, or a list of those without commas: the companion reads it as a flag",
		`{"companion": {"package": "front", "options": {"none": null}}}`:     "none must be a text, a number, true or false, or a list of those without commas: the companion reads it as a flag",
		`{"companion": {"package": "front"}, "image": "other:1"}`:            "the role runs the companion front, whose program its package brings; take the image out",
	} {
		role := roleFrom(t, text)
		if err := RunCompanion(role, frontPackage()); err == nil || err.Error() != want || role.GetCommand() != nil {
			t.Errorf("%s: it is refused with %v, want %s; it runs %q", text, err, want, role.GetCommand())
		}
	}
}

func TestPackagesWithABadCompanionAreRefused(t *testing.T) {
	for want, change := range map[string]func(*apiv1.FrameworkPackage){
		"brings neither a master nor a companion; give it one":                          func(p *apiv1.FrameworkPackage) { p.Companion = nil },
		"nginx is the name of a companion that is part of Mammoth; choose another":      func(p *apiv1.FrameworkPackage) { p.Name = "nginx" },
		"the companion has neither an image nor a command; give it one":                 func(p *apiv1.FrameworkPackage) { p.Companion.Command = nil },
		"a companion can have cpu, memory and disk only":                                func(p *apiv1.FrameworkPackage) { p.Companion.Resources.Extended = map[string]int64{"gpu": 1} },
		"a companion can have cpu, memory and disk":                                     func(p *apiv1.FrameworkPackage) { p.Companion.Resources.Ports = 1 },
		"the schema of the options has ":                                                func(p *apiv1.FrameworkPackage) { p.Companion.Options = structOf(strings.Repeat("x", MaxSchema)) },
		"the health check has none of http, tcp and exec; give it one":                  func(p *apiv1.FrameworkPackage) { p.Companion.Health = &corev1.HealthCheck{} },
		"options is the schema of what a master reads, and the package has no master; ": func(p *apiv1.FrameworkPackage) { p.Options = structOf("x") },
	} {
		p := frontPackage()
		change(p)
		CompletePackage(p)
		if err := CheckPackage(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it is refused with %v, want %s", err, want)
		}
	}
	p := frontPackage()
	p.Master = &apiv1.MasterKind{Command: []string{"master"}}
	p.Options = structOf("x")
	CompletePackage(p)
	if err := CheckPackage(p); err != nil {
		t.Errorf("a package with both: %v", err)
	}
}

func structOf(text string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"title": structpb.NewStringValue(text)}}
}
