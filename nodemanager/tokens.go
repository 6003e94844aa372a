package nodemanager

import (
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/id"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/token"
	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// verify gives the claims of a token that is good for this node.
func (o *owner) verify(signed *corev1.ContainerToken) (*corev1.TokenClaims, error) {
	if len(o.keys) == 0 {
		return nil, fmt.Errorf("node %s has not registered with its ResourceManager yet and cannot check tokens: %w", o.nm.config.NodeID, errdefs.ErrUnavailable)
	}
	claims, err := token.Verify(o.keys, signed)
	if err != nil {
		return nil, err
	}
	if claims.GetNodeId() != o.nm.config.NodeID {
		return nil, fmt.Errorf("the container token is for node %q, this is %q: %w", claims.GetNodeId(), o.nm.config.NodeID, errdefs.ErrPermissionDenied)
	}
	return claims, nil
}

// reach finds the container that a token is used for.
func (o *owner) reach(signed *corev1.ContainerToken, containerID string) (*held, error) {
	claims, err := o.verify(signed)
	if err != nil {
		return nil, err
	}
	granted := claims.GetScope() == corev1.TokenClaims_NODE ||
		claims.GetScope() == corev1.TokenClaims_CONTAINER && claims.GetLease().GetContainerId() == containerID
	if !granted {
		return nil, fmt.Errorf("the token does not give access to container %q: %w", containerID, errdefs.ErrPermissionDenied)
	}
	key, err := id.ParseContainer(containerID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	h := o.containers[key]
	if h == nil {
		return nil, fmt.Errorf("node %s has no container %s: %w", o.nm.config.NodeID, containerID, errdefs.ErrNotFound)
	}
	return h, nil
}

// leased gives the container that a token allows to start.
func (o *owner) leased(signed *corev1.ContainerToken) (id.Container, *corev1.TokenClaims, error) {
	claims, err := o.verify(signed)
	if err != nil {
		return id.Container{}, nil, err
	}
	lease := claims.GetLease()
	if claims.GetScope() != corev1.TokenClaims_CONTAINER || lease.GetNodeId() != "" && lease.GetNodeId() != o.nm.config.NodeID {
		return id.Container{}, nil, fmt.Errorf("the token does not allow a start on node %s: %w", o.nm.config.NodeID, errdefs.ErrPermissionDenied)
	}
	key, err := id.ParseContainer(lease.GetContainerId())
	if err != nil {
		return id.Container{}, nil, fmt.Errorf("the token's lease: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return key, claims, nil
}

// admit begins a container, or gives the one that began before under the same lease.
func (o *owner) admit(signed *corev1.ContainerToken, spec *corev1.ContainerSpec) (*held, error) {
	key, claims, err := o.leased(signed)
	if err != nil {
		return nil, err
	}
	if h := o.containers[key]; h != nil {
		return h, nil
	}
	if token.Expired(claims, o.now) {
		return nil, fmt.Errorf("the token for container %s has expired: %w", key, errdefs.ErrPermissionDenied)
	}
	if err := o.acceptable(claims.GetLease(), spec); err != nil {
		return nil, fmt.Errorf("container %s: %w", key, err)
	}
	h := o.hold(key, claims.GetLease(), spec)
	delete(o.leaving, placeOf(h))
	h.core.KeepUntil = claims.GetExpiresAt().AsTime()
	if claims.GetExpiresAt() == nil {
		h.core.KeepUntil = time.Time{}
	}
	o.log(h).Info("container accepted")
	o.perform(h, o.machine.Accept(o.now, h.core))
	return h, nil
}

// refuse keeps a container that never runs, so that the end of its lease is reported and a start that comes too
// late finds it ended.
func (o *owner) refuse(key id.Container, lease *corev1.Lease, spec *corev1.ContainerSpec, exit container.Exit) {
	h := o.hold(key, lease, spec)
	o.log(h).Info("container refused", "reason", exit.Message)
	o.perform(h, o.machine.Refuse(o.now, h.core, exit))
}

// hold makes the entry of a container.
func (o *owner) hold(key id.Container, lease *corev1.Lease, spec *corev1.ContainerSpec) *held {
	h := &held{
		core: &container.Container{
			ID:          key,
			MemoryBytes: lease.GetResources().GetMemoryBytes(),
			Probed:      spec.GetHealth().GetProbe() != nil,
			StartPeriod: defaults.StartPeriod,
			Grace:       defaults.StopGrace,
		},
		lease: lease, spec: spec, runtime: o.nm.config.Runtimes[spec.GetRuntime()],
	}
	if period := spec.GetHealth().GetStartPeriod().AsDuration(); period > 0 {
		h.core.StartPeriod = period
	}
	if grace := spec.GetStopGrace(); grace != nil {
		h.core.Grace = grace.AsDuration()
	}
	o.containers[key] = h
	return h
}

// acceptable says why this node will not run a spec.
func (o *owner) acceptable(lease *corev1.Lease, spec *corev1.ContainerSpec) error {
	if o.nm.config.Runtimes[spec.GetRuntime()] == nil {
		return fmt.Errorf("node %s has no %s runtime: %w", o.nm.config.NodeID, strings.ToLower(spec.GetRuntime().String()), errdefs.ErrFailedPrecondition)
	}
	if _, err := wire.Vector(o.nm.config.Schema, lease.GetResources()); err != nil {
		return err
	}
	if err := programAllowed(lease, spec); err != nil {
		return err
	}
	if spec.GetNetwork() == corev1.ContainerSpec_HOST && !o.nm.config.HostNetwork {
		return fmt.Errorf("node %s does not allow network: host; use a bridge, or have its operator allow it: %w", o.nm.config.NodeID, errdefs.ErrPermissionDenied)
	}
	return specs.CheckContainer(spec)
}
