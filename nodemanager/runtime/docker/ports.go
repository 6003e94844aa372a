package docker

import (
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/docker/go-connections/nat"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// hostPorts owns the host ports of containers: those that are leased, and those that the engine is offered to bind.
type hostPorts struct {
	// address is that of published ports.
	address string
	leases  *network.Leases
	// listed is true once the ports of containers from before a restart are leased too.
	listed atomic.Bool
}

// bind leases host ports, or offers some for the engine to bind.
func (h *hostPorts) bind(spec runtime.Spec) ([]runtime.Port, nat.PortMap, func(), error) {
	ports := slices.Clone(spec.Ports)
	settle := func() {}
	if spec.Network == runtime.Host {
		h.leases.Release(spec.ID) // of an earlier attempt
		hosts, err := h.leases.Lease(spec.ID, len(ports))
		if err != nil {
			return nil, nil, nil, err
		}
		for i := range ports {
			ports[i].Host = hosts[i]
		}
		return ports, nil, settle, nil
	}
	bindings := make(nat.PortMap, len(ports))
	for _, port := range ports {
		if port.Container < 1 || port.Container > 65535 {
			settle()
			return nil, nil, nil, fmt.Errorf("port %q has no number in the container: %w", port.Name, errdefs.ErrInvalidArgument)
		}
		offer, settleOne, err := h.leases.Offer()
		if err != nil {
			settle()
			return nil, nil, nil, err
		}
		before := settle
		settle = func() { settleOne(); before() }
		inner := nat.Port(strconv.Itoa(port.Container) + "/tcp")
		if bindings[inner] == nil { // two names of one port share its binding
			bindings[inner] = []nat.PortBinding{{HostIP: h.address, HostPort: offer.String()}}
		}
	}
	return ports, bindings, settle, nil
}

// hold leases the port of a container that has it already.
func (h *hostPorts) hold(key id.Container, port int) { h.leases.Hold(key, port) }

// release ends the leases of a container.
func (h *hostPorts) release(key id.Container) { h.leases.Release(key) }

// setComplete records that the ports of all containers from before a restart are leased.
func (h *hostPorts) setComplete() { h.listed.Store(true) }

// complete reports whether they are.
func (h *hostPorts) complete() bool { return h.listed.Load() }
