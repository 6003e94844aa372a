package spec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestARoleWithoutPortsHasThoseOfItsImage(t *testing.T) {
	many := make([]string, 17)
	for i := range many {
		many[i] = fmt.Sprintf("%d/tcp", 1000+i)
	}
	for _, test := range []struct {
		role    *apiv1.RoleSpec
		exposed string
		want    string
	}{
		{&apiv1.RoleSpec{}, "8080/tcp", "http=8080"},
		{&apiv1.RoleSpec{}, "22/tcp 80/tcp 443/tcp", "http=80 port22=22 port443=443"},
		{&apiv1.RoleSpec{}, "53/udp 9000/tcp 5000", "http=5000 port9000=9000"},
		{&apiv1.RoleSpec{}, "", ""},
		{&apiv1.RoleSpec{}, strings.Join(many, " "), ""},
		{&apiv1.RoleSpec{Network: corev1.ContainerSpec_HOST}, "8080/tcp", ""},
		{&apiv1.RoleSpec{Ports: []*corev1.Port{{Name: "own", ContainerPort: 1}}}, "8080/tcp", "own=1"},
	} {
		spec.TakePorts(test.role, strings.Fields(test.exposed))
		var got []string
		for _, port := range test.role.GetPorts() {
			got = append(got, fmt.Sprintf("%s=%d", port.GetName(), port.GetContainerPort()))
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("of an image with %q a role has %v, want %s", test.exposed, got, test.want)
		}
	}
}

// A probe of a port that only the image can tell of is no fault yet.
func TestADraftLeavesPortsToItsImage(t *testing.T) {
	app := &apiv1.AppSpec{Name: "web", Roles: []*apiv1.RoleSpec{{
		Image: "web:1", Health: &corev1.HealthCheck{Probe: &corev1.HealthCheck_Http_{Http: &corev1.HealthCheck_Http{Path: "/"}}},
		Expose: &apiv1.Expose{Http: &apiv1.Expose_Http{Host: "a.test", Port: "admin"}},
	}}}
	spec.Complete(app)
	if err := spec.CheckDraft(app); err != nil {
		t.Error(err)
	}
	if err := spec.Check(app); err == nil {
		t.Error("without a port the probe is right")
	}
	app.Roles[0].Ports = []*corev1.Port{{Name: "http", ContainerPort: 8080}}
	if err := spec.CheckDraft(app); err == nil || !strings.Contains(err.Error(), "admin") {
		t.Errorf("with a port of its own: %v", err)
	}
}
