package nodemanager

import (
	"testing"

	"github.com/mammoth-os/mammoth/nodemanager/container"
	"github.com/mammoth-os/mammoth/nodemanager/node"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestOnlyACompanionAppsProgramIsToldOfTheZone(t *testing.T) {
	o := &owner{nm: &NodeManager{config: Config{NodeID: "node-1", ResourceManager: "127.0.0.1:7070"}}}
	for _, test := range []struct {
		lease *corev1.Lease
		spec  *corev1.ContainerSpec
		place string
	}{
		{&corev1.Lease{AppName: "edge", Companion: true}, &corev1.ContainerSpec{Runtime: corev1.ContainerSpec_PROCESS}, "edge"},
		{&corev1.Lease{AppName: "edge", Companion: true, Role: "dns"}, &corev1.ContainerSpec{Runtime: corev1.ContainerSpec_PROCESS}, "dns.edge"},
		{&corev1.Lease{AppName: "edge", Companion: true}, &corev1.ContainerSpec{Runtime: corev1.ContainerSpec_DOCKER}, ""},
		{&corev1.Lease{AppName: "edge", Companion: true, Master: true}, &corev1.ContainerSpec{Runtime: corev1.ContainerSpec_PROCESS}, ""},
		{&corev1.Lease{AppName: "web"}, &corev1.ContainerSpec{Runtime: corev1.ContainerSpec_PROCESS}, ""},
	} {
		h := &node.Entry{Core: &container.Container{}, Lease: test.lease, Spec: test.spec}
		env := o.environment(h)
		told := stateDir(h) != "" || test.lease.GetMaster()
		if place := stateDir(h); place != test.place || (env["MAMMOTH_RESOURCEMANAGER"] != "") != told || (env["MAMMOTH_NODE"] != "") != (place != "") {
			t.Errorf("%v %v: place %q, environment %v", test.lease, test.spec, place, env)
		}
	}
}

// A ResourceManager that listens on every address does not know by which one a node reaches it.
func TestANodeSaysWhereItsResourceManagerIs(t *testing.T) {
	o := &owner{nm: &NodeManager{config: Config{NodeID: "node-1", ResourceManager: "10.0.0.1:7070"}}}
	for _, test := range []struct{ variable, given, want string }{
		{"MAMMOTH_RESOURCEMANAGER", "", "10.0.0.1:7070"},
		{"MAMMOTH_RESOURCEMANAGER", "zone.test:7070", "zone.test:7070"},
		{"MAMMOTH_REGISTRY", "http://web:key@", "http://web:key@10.0.0.1:7070"},
		{"MAMMOTH_REGISTRY", "http://web:key@zone.test:7070", "http://web:key@zone.test:7070"},
		{"MAMMOTH_REGISTRY", "", ""},
	} {
		spec := &corev1.ContainerSpec{Runtime: corev1.ContainerSpec_PROCESS, Env: map[string]string{test.variable: test.given}}
		h := &node.Entry{Core: &container.Container{}, Lease: &corev1.Lease{AppName: "web", Master: true}, Spec: spec}
		if got := o.environment(h)[test.variable]; got != test.want {
			t.Errorf("%s=%q becomes %q, want %q", test.variable, test.given, got, test.want)
		}
		if spec.GetEnv()[test.variable] != test.given {
			t.Errorf("the spec itself was changed: %v", spec.GetEnv())
		}
	}
}
