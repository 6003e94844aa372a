package nodemanager

import (
	"context"
	"net/url"
	"time"

	"github.com/mammoth-os/mammoth/nodemanager/registry"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// bridged is a runtime whose containers have their own network.
type bridged interface {
	// Gateway is the host's address in that network. It fails with ErrUnavailable while the engine does not answer.
	Gateway(ctx context.Context) (string, error)
}

const (
	envRegistry = "MAMMOTH_REGISTRY"
	// proxyTimeout is how long a start may wait for the registry proxy.
	proxyTimeout = 2 * time.Second
	// registryPortFact is the name under which the proxy's port is stored.
	registryPortFact = "registry port"
)

// newRegistryProxy returns the registry proxy for containers; nil without a bridge.
func (nm *NodeManager) newRegistryProxy() *registry.Proxy {
	engine, ok := nm.config.Runtimes[corev1.ContainerSpec_DOCKER].(bridged)
	if !ok {
		return nil
	}
	return registry.New(registry.Config{
		Upstream: nm.config.ResourceManager, Gateway: engine.Gateway, Logger: nm.log.With("node", nm.config.NodeID),
		Keep: func(port int) (int, error) {
			kept, err := nm.records.Fact(registryPortFact, int64(port))
			return int(kept), err
		},
	})
}

// withRegistry lets a container on the bridge reach the registry through its node. The ResourceManager itself need not, and should
// not, be reachable for containers.
func (nm *NodeManager) withRegistry(ctx context.Context, spec runtime.Spec) runtime.Spec {
	where, err := url.Parse(spec.Env[envRegistry])
	if nm.registryProxy == nil || spec.Network != runtime.Bridge || err != nil || where.Host == "" {
		return spec
	}
	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	address, err := nm.registryProxy.Address(ctx)
	if err != nil {
		nm.log.Warn("a container cannot reach the registry", "container", spec.ID.String(), "node", nm.config.NodeID, "error", err)
		return spec
	}
	where.Host = address
	spec.Env[envRegistry] = where.String() // the map belongs to this spec
	return spec
}
