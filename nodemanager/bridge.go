package nodemanager

import (
	"context"
	"net/url"
	"time"

	"github.com/mammoth-os/mammoth/nodemanager/registry"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// bridged is a runtime whose containers have a network of their own.
type bridged interface {
	// Gateway is the host's address in it. ErrUnavailable while the engine does not answer.
	Gateway(ctx context.Context) (string, error)
}

const (
	envRegistry = "MAMMOTH_REGISTRY"
	// faceWithin is how long a start may wait for the registry's face.
	faceWithin = 2 * time.Second
	// facePort is the fact that says where it listens.
	facePort = "registry port"
)

// newFace makes the registry's face towards containers; nil where no runtime has a bridge.
func (nm *NodeManager) newFace() *registry.Face {
	engine, ok := nm.config.Runtimes[corev1.ContainerSpec_DOCKER].(bridged)
	if !ok {
		return nil
	}
	return registry.New(registry.Config{
		Upstream: nm.config.ResourceManager, Gateway: engine.Gateway, Logger: nm.log.With("node", nm.config.NodeID),
		Keep: func(port int) (int, error) {
			kept, err := nm.records.Fact(facePort, int64(port))
			return int(kept), err
		},
	})
}

// withRegistry has a container on the bridge reach the registry by way of its node: where the ResourceManager listens it may not
// get to, and is to have no business.
func (nm *NodeManager) withRegistry(ctx context.Context, spec runtime.Spec) runtime.Spec {
	where, err := url.Parse(spec.Env[envRegistry])
	if nm.face == nil || spec.Network != runtime.Bridge || err != nil || where.Host == "" {
		return spec
	}
	ctx, cancel := context.WithTimeout(ctx, faceWithin)
	defer cancel()
	address, err := nm.face.Address(ctx)
	if err != nil {
		nm.log.Warn("a container cannot reach the registry", "container", spec.ID.String(), "node", nm.config.NodeID, "error", err)
		return spec
	}
	where.Host = address
	spec.Env[envRegistry] = where.String() // the map is this spec's own
	return spec
}
