package node

import (
	"fmt"
	"slices"
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

// Verify returns the claims of a token that is valid for this node.
func (n *Node) Verify(signed *corev1.ContainerToken) (*corev1.TokenClaims, error) {
	if len(n.keys) == 0 {
		return nil, fmt.Errorf("node %s has not registered with its ResourceManager yet and cannot check tokens: %w", n.settings.ID, errdefs.ErrUnavailable)
	}
	claims, err := token.Verify(n.keys, signed)
	if err != nil {
		return nil, err
	}
	if claims.GetNodeId() != n.settings.ID {
		return nil, fmt.Errorf("the container token is for node %q, this is %q: %w", claims.GetNodeId(), n.settings.ID, errdefs.ErrPermissionDenied)
	}
	return claims, nil
}

// ContainerFor returns the container that a token gives access to.
func (n *Node) ContainerFor(signed *corev1.ContainerToken, containerID string) (*Entry, error) {
	claims, err := n.Verify(signed)
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
	h := n.containers[key]
	if h == nil {
		return nil, fmt.Errorf("node %s has no container %s: %w", n.settings.ID, containerID, errdefs.ErrNotFound)
	}
	return h, nil
}

// leaseOf returns the container that a token allows to start.
func (n *Node) leaseOf(signed *corev1.ContainerToken) (id.Container, *corev1.TokenClaims, error) {
	claims, err := n.Verify(signed)
	if err != nil {
		return id.Container{}, nil, err
	}
	lease := claims.GetLease()
	if claims.GetScope() != corev1.TokenClaims_CONTAINER || lease.GetNodeId() != "" && lease.GetNodeId() != n.settings.ID {
		return id.Container{}, nil, fmt.Errorf("the token does not allow a start on node %s: %w", n.settings.ID, errdefs.ErrPermissionDenied)
	}
	key, err := id.ParseContainer(lease.GetContainerId())
	if err != nil {
		return id.Container{}, nil, fmt.Errorf("the token's lease: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return key, claims, nil
}

// Admit accepts a container, or returns the one that was accepted under the same lease.
func (n *Node) Admit(signed *corev1.ContainerToken, spec *corev1.ContainerSpec) (*Entry, error) {
	key, claims, err := n.leaseOf(signed)
	if err != nil {
		return nil, err
	}
	if h := n.containers[key]; h != nil {
		return h, nil
	}
	if token.Expired(claims, n.now) {
		return nil, fmt.Errorf("the token for container %s has expired: %w", key, errdefs.ErrPermissionDenied)
	}
	if err := n.checkSpec(claims.GetLease(), spec); err != nil {
		return nil, fmt.Errorf("container %s: %w", key, err)
	}
	h := n.addContainer(key, claims.GetLease(), spec)
	h.Core.KeepUntil = claims.GetExpiresAt().AsTime()
	if claims.GetExpiresAt() == nil {
		h.Core.KeepUntil = time.Time{}
	}
	n.note(Note{Entry: h, Text: "container accepted"})
	n.perform(h, n.settings.Machine.Accept(n.now, h.Core))
	return h, nil
}

// refuse records a container that never runs, so that the end of its lease is reported and a late start finds it ended.
func (n *Node) refuse(key id.Container, lease *corev1.Lease, spec *corev1.ContainerSpec, exit container.Exit) {
	h := n.addContainer(key, lease, spec)
	n.note(Note{Entry: h, Text: "container refused", Reason: exit.Message})
	n.perform(h, n.settings.Machine.Refuse(n.now, h.Core, exit))
}

// addContainer adds the entry of a container.
func (n *Node) addContainer(key id.Container, lease *corev1.Lease, spec *corev1.ContainerSpec) *Entry {
	h := &Entry{
		Core: &container.Container{
			ID:          key,
			MemoryBytes: lease.GetResources().GetMemoryBytes(),
			HasProbe:    spec.GetHealth().GetProbe() != nil,
			StartPeriod: defaults.StartPeriod,
			Grace:       defaults.StopGrace,
		},
		Lease: lease, Spec: spec,
	}
	if period := spec.GetHealth().GetStartPeriod().AsDuration(); period > 0 {
		h.Core.StartPeriod = period
	}
	if grace := spec.GetStopGrace(); grace != nil {
		h.Core.Grace = grace.AsDuration()
	}
	n.containers[key] = h
	return h
}

// checkSpec returns an error if this node does not run a spec.
func (n *Node) checkSpec(lease *corev1.Lease, spec *corev1.ContainerSpec) error {
	if !slices.Contains(n.settings.Runtimes, spec.GetRuntime()) {
		return fmt.Errorf("node %s has no %s runtime: %w", n.settings.ID, strings.ToLower(spec.GetRuntime().String()), errdefs.ErrFailedPrecondition)
	}
	if _, err := wire.Vector(n.settings.Schema, lease.GetResources()); err != nil {
		return err
	}
	if err := programAllowed(lease, spec); err != nil {
		return err
	}
	if spec.GetNetwork() == corev1.ContainerSpec_HOST && !n.settings.HostNetwork {
		return fmt.Errorf("node %s does not allow network: host; use a bridge, or have its operator allow it: %w", n.settings.ID, errdefs.ErrPermissionDenied)
	}
	return specs.CheckContainer(spec)
}

// programAllowed refuses programs of the node, which run as the NodeManager's own user, unless the ResourceManager has
// permitted them in the lease. The request of an application master does not count.
func programAllowed(lease *corev1.Lease, spec *corev1.ContainerSpec) error {
	if spec.GetRuntime() != corev1.ContainerSpec_PROCESS || spec.GetImage() != "" || lease.GetMaster() || lease.GetCompanion() || lease.GetExternal() {
		return nil
	}
	return fmt.Errorf("only a companion app may run a program of the node; give the app an image: %w", errdefs.ErrPermissionDenied)
}
