package nodemanager

import (
	"context"
	"log/slog"
	"testing"

	"github.com/mammoth-os/mammoth/nodemanager/registry"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

func TestOnlyContainersOnTheBridgeGoByWayOfTheirNode(t *testing.T) {
	proxy := registry.New(registry.Config{
		Upstream: "127.0.0.1:7070", Gateway: func(context.Context) (string, error) { return "127.0.0.1", nil },
	})
	defer func() {
		ended, end := context.WithCancel(context.Background())
		end()
		proxy.Run(ended)
	}()
	address, err := proxy.Address(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const told = "http://web:key@127.0.0.1:7070"
	for _, test := range []struct {
		what    string
		proxy   *registry.Proxy
		network runtime.Network
		told    string
		want    string
	}{
		{"on a bridge", proxy, runtime.Bridge, told, "http://web:key@" + address},
		{"with the host's network", proxy, runtime.Host, told, told},
		{"on a node without a bridge", nil, runtime.Bridge, told, told},
		{"that is told of no registry", proxy, runtime.Bridge, "", ""},
		{"that is told nonsense", proxy, runtime.Bridge, "::", "::"},
	} {
		nm := &NodeManager{registryProxy: test.proxy, log: slog.New(slog.DiscardHandler)}
		spec := nm.withRegistry(t.Context(), runtime.Spec{Network: test.network, Env: map[string]string{envRegistry: test.told}})
		if got := spec.Env[envRegistry]; got != test.want {
			t.Errorf("a container %s is told %q, want %q", test.what, got, test.want)
		}
	}
}
