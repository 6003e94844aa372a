package runtime_test

import (
	"slices"
	"testing"

	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

func TestAContainerIsToldItsPorts(t *testing.T) {
	ports := []runtime.Port{{Name: "http", Container: 8080, Host: 20001}, {Name: "admin-ui", Container: 9090, Host: 20002}}
	spec := runtime.Spec{Env: map[string]string{"GREETING": "hello", "PORT": "1"}}
	for network, want := range map[runtime.Network][]string{
		// With a network of its own, the ports are those inside the container, and the spec can override the variables.
		runtime.Bridge: {"GREETING=hello", "PORT=1", "PORT_ADMIN_UI=9090", "PORT_HTTP=8080"},
		// With the host's network, the variables have the leased ports and cannot be overridden.
		runtime.Host: {"GREETING=hello", "PORT=20001", "PORT_ADMIN_UI=20002", "PORT_HTTP=20001"},
	} {
		spec.Network = network
		if got := runtime.Environment(spec, ports); !slices.Equal(got, want) {
			t.Errorf("network %d: %q, want %q", network, got, want)
		}
	}
	if len(spec.Env) != 2 {
		t.Errorf("the spec's own environment was changed to %v", spec.Env)
	}
}
