package driver

import (
	"fmt"

	"github.com/mammoth-os/mammoth/internal/id"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// containers owns the containers of the app of which the lease has not ended.
type containers struct{ byID map[string]*container }

// container is one of them. Its methods alone change it.
type container struct {
	allocation *masterv1.Allocation
	id         id.Container
	// role is nil until it is known which role the container is for.
	role *role
	// sequence is the number of the newest status.
	sequence int64
	// gone is true once the container was seen gone. Its lease has not ended yet.
	gone bool
}

// track records a container of the app.
func (c *containers) track(allocation *masterv1.Allocation) error {
	name := allocation.GetLease().GetContainerId()
	parsed, err := id.ParseContainer(name)
	if err != nil {
		return fmt.Errorf("the container %q: %w", name, err)
	}
	c.byID[name] = &container{allocation: allocation, id: parsed}
	return nil
}

// at is a container, nil if it is not known.
func (c *containers) at(name string) *container { return c.byID[name] }

// forget forgets a container of which the lease has ended.
func (c *containers) forget(name string) { delete(c.byID, name) }

// leaseOf is the lease of a container that was not seen gone, nil if there is none.
func (c *containers) leaseOf(name string) *corev1.Lease {
	if held := c.byID[name]; held != nil && !held.gone {
		return held.allocation.GetLease()
	}
	return nil
}

// assign records which role the container is for.
func (c *container) assign(to *role) { c.role = to }

// observe records a status, unless a newer one is known.
func (c *container) observe(status *corev1.ContainerStatus) (newest bool) {
	if status.GetSequence() < c.sequence {
		return false
	}
	c.sequence, c.gone = status.GetSequence(), status.GetState() == corev1.ContainerStatus_DONE
	return true
}

// restart has the next status count whatever its number is: the node counts from the beginning.
func (c *container) restart() { c.sequence = 0 }
