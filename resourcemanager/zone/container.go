package zone

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/id"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

func (c *container) state() lifecycle.ContainerState {
	return lifecycle.ContainerState(c.record.GetStatus().GetState())
}

func (c *container) held() bool { return c.state().Held() }

// container is the container with an id, while the app has it; nil otherwise.
func (a *app) container(text string) *container {
	cid, err := id.ParseContainer(text)
	if err != nil {
		return nil
	}
	return a.containers[cid]
}

// nodeOf is the name of the node of a container; empty if the app does not have it.
func (a *app) nodeOf(container string) string {
	if c := a.container(container); c != nil {
		return string(c.node)
	}
	return ""
}

// instance is the name of its instance; empty before it was started.
func (c *container) instance() string { return c.record.GetStatus().GetLabels()["instance"] }

// role is empty in an app of one role.
func (c *container) role() string { return c.record.GetLease().GetRole() }

// name is what a person calls it.
func (c *container) name() string {
	switch {
	case c.record.GetLease().GetMaster():
		return fmt.Sprintf("the application master of %s", c.app.record.GetName())
	case c.instance() != "":
		return c.instance()
	}
	return c.id.String()
}

// status is the last status that a container's node has sent; nil if there is no container.
func (c *container) status() *corev1.ContainerStatus {
	if c == nil {
		return nil
	}
	return c.record.GetStatus()
}

// grace is the grace period that the node is sent when the container is to stop: that of the present spec, and not the one with which the
// container was started. The zone stops containers, also those of an app without a master, so it reads this part of a spec. It is nil for
// a master, and for a container without a role of the app.
func (c *container) grace() *durationpb.Duration {
	if c == nil || c.record.GetLease().GetMaster() {
		return nil
	}
	role, _ := c.app.role(c.role())
	return role.GetStop().GetGrace()
}

// graceText says how long the container may take to stop; it is empty if that is not known.
func (c *container) graceText() string {
	if grace := c.grace(); grace != nil {
		return fmt.Sprintf("the grace period is %s", grace.AsDuration())
	}
	return ""
}

func (c *container) stopCommand() *trackerv1.NodeCommand {
	command := stopCommand(c.id.String(), c.record.GetStopReason(), c.record.GetStopMessage())
	command.GetStop().Grace = c.grace()
	return command
}

func stopCommand(container string, reason corev1.Exit_Reason, message string) *trackerv1.NodeCommand {
	return &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Stop_{
		Stop: &trackerv1.NodeCommand_Stop{ContainerId: container, Reason: reason, Message: message},
	}}
}

func byAge(a, b *container) int { return a.id.Compare(b.id) }

func sortedContainers(containers map[id.Container]*container) []*container {
	return slices.SortedFunc(maps.Values(containers), byAge)
}
