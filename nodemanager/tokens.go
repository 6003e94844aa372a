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

// verify returns the claims of a token that is valid for this node.
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

// containerFor returns the container that a token gives access to.
func (o *owner) containerFor(signed *corev1.ContainerToken, containerID string) (*entry, error) {
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

// leaseOf returns the container that a token allows to start.
func (o *owner) leaseOf(signed *corev1.ContainerToken) (id.Container, *corev1.TokenClaims, error) {
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

// admit accepts a container, or returns the one that was accepted under the same lease.
func (o *owner) admit(signed *corev1.ContainerToken, spec *corev1.ContainerSpec) (*entry, error) {
	key, claims, err := o.leaseOf(signed)
	if err != nil {
		return nil, err
	}
	if h := o.containers[key]; h != nil {
		return h, nil
	}
	if token.Expired(claims, o.now) {
		return nil, fmt.Errorf("the token for container %s has expired: %w", key, errdefs.ErrPermissionDenied)
	}
	if err := o.checkSpec(claims.GetLease(), spec); err != nil {
		return nil, fmt.Errorf("container %s: %w", key, err)
	}
	h := o.addContainer(key, claims.GetLease(), spec)
	delete(o.removing, stateDir(h))
	h.core.KeepUntil = claims.GetExpiresAt().AsTime()
	if claims.GetExpiresAt() == nil {
		h.core.KeepUntil = time.Time{}
	}
	o.log(h).Info("container accepted")
	o.perform(h, o.machine.Accept(o.now, h.core))
	return h, nil
}

// refuse records a container that never runs, so that the end of its lease is reported and a late start finds it ended.
func (o *owner) refuse(key id.Container, lease *corev1.Lease, spec *corev1.ContainerSpec, exit container.Exit) {
	h := o.addContainer(key, lease, spec)
	o.log(h).Info("container refused", "reason", exit.Message)
	o.perform(h, o.machine.Refuse(o.now, h.core, exit))
}

// addContainer adds the entry of a container.
func (o *owner) addContainer(key id.Container, lease *corev1.Lease, spec *corev1.ContainerSpec) *entry {
	h := &entry{
		core: &container.Container{
			ID:          key,
			MemoryBytes: lease.GetResources().GetMemoryBytes(),
			HasProbe:    spec.GetHealth().GetProbe() != nil,
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

// checkSpec returns an error if this node does not run a spec.
func (o *owner) checkSpec(lease *corev1.Lease, spec *corev1.ContainerSpec) error {
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
