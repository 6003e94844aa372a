package node

import (
	"testing"

	"github.com/containerd/errdefs"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestOnlyMastersAndCompanionAppsRunProgramsOfTheNode(t *testing.T) {
	program := &corev1.ContainerSpec{Runtime: corev1.ContainerSpec_PROCESS, Command: []string{"/bin/true"}}
	packed := &corev1.ContainerSpec{Runtime: corev1.ContainerSpec_PROCESS, Image: "app@sha256:0"}
	image := &corev1.ContainerSpec{Runtime: corev1.ContainerSpec_DOCKER, Image: "app@sha256:0"}
	app, master, companion := &corev1.Lease{}, &corev1.Lease{Master: true}, &corev1.Lease{Companion: true}
	for _, test := range []struct {
		lease   *corev1.Lease
		spec    *corev1.ContainerSpec
		refused bool
	}{
		{app, program, true},
		{app, packed, false},
		{app, image, false},
		{master, program, false},
		{companion, program, false},
		{companion, image, false},
	} {
		if err := programAllowed(test.lease, test.spec); errdefs.IsPermissionDenied(err) != test.refused {
			t.Errorf("%v under %v: %v", test.spec, test.lease, err)
		}
	}
}
