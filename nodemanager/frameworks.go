package nodemanager

import (
	"context"
	"fmt"
	"maps"
	"net/url"

	"github.com/containerd/errdefs"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Places are what a node's process runtime keeps for frameworks: a folder for each, and what a container has left
// running for the next one. They are named APP, or ROLE.APP.
type Places interface {
	Places() ([]string, error)
	// EndPlace ends what is left running and deletes the folder; ErrFailedPrecondition while a container is there.
	EndPlace(ctx context.Context, place string) error
}

// What the programs of a framework are told, and instances of apps never are.
const (
	envResourceManager = "MAMMOTH_RESOURCEMANAGER"
	envNode            = "MAMMOTH_NODE"
)

// programAllowed says who may run a program of the node itself, as the NodeManager's own user: what the
// ResourceManager has said of the lease counts, not what an application master asks for.
func programAllowed(lease *corev1.Lease, spec *corev1.ContainerSpec) error {
	if spec.GetRuntime() != corev1.ContainerSpec_PROCESS || spec.GetImage() != "" || lease.GetMaster() || lease.GetFramework() {
		return nil
	}
	return fmt.Errorf("only a framework may run a program of the node; give the app an image: %w", errdefs.ErrPermissionDenied)
}

// placeOf is the place of a framework's container; empty for any other.
func placeOf(h *held) string {
	if !h.lease.GetFramework() || h.lease.GetMaster() || h.spec.GetRuntime() != corev1.ContainerSpec_PROCESS {
		return ""
	}
	if role := h.spec.GetLabels()["role"]; role != "" {
		return role + "." + h.lease.GetAppName()
	}
	return h.lease.GetAppName()
}

// environment is a container's, with what a framework's program is told of the zone. Where the ResourceManager listens on every
// address it does not know by which of them a node reaches it, and leaves that to the node.
func (o *owner) environment(h *held) map[string]string {
	env := maps.Clone(h.spec.GetEnv())
	if env == nil {
		env = map[string]string{}
	}
	if where, err := url.Parse(env[envRegistry]); err == nil && env[envRegistry] != "" && where.Host == "" {
		where.Host = o.nm.config.ResourceManager
		env[envRegistry] = where.String()
	}
	if h.lease.GetMaster() && env[envResourceManager] == "" {
		env[envResourceManager] = o.nm.config.ResourceManager
	}
	if placeOf(h) != "" {
		env[envResourceManager], env[envNode] = o.nm.config.ResourceManager, o.nm.config.NodeID
	}
	return env
}

// places are what the node has of frameworks.
func (nm *NodeManager) places() []string {
	if nm.config.Places == nil {
		return nil
	}
	places, err := nm.config.Places.Places()
	if err != nil {
		nm.log.Error("what frameworks have here cannot be listed", "node", nm.config.NodeID, "error", err)
	}
	return places
}

// endPlace ends what a framework has left in a place: once the containers there have ended, which the ResourceManager may
// have given up before they are gone, and unless another one comes meanwhile.
func (o *owner) endPlace(place string) {
	nm := o.nm
	if nm.config.Places == nil {
		return
	}
	o.leaving[place] = struct{}{}
	nm.waiting.Go(func() {
		ctx, cancel := context.WithTimeout(nm.edges, cleanWithin)
		defer cancel()
		err := nm.config.Places.EndPlace(ctx, place)
		switch {
		case err == nil:
			nm.inbox.put(func(o *owner) { delete(o.leaving, place) })
		case nm.edges.Err() == nil:
			nm.log.Warn("what a framework has left here is not ended yet", "place", place, "node", nm.config.NodeID, "error", err)
		}
	})
}

// endLeaving looks at the places again that could not be ended; a container has ended.
func (o *owner) endLeaving() {
	for place := range o.leaving {
		o.endPlace(place)
	}
}
