package node

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/nodemanager/container"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// The values of the core and of the protocol are in the same order; a test holds them together.

func stateMessage(state container.State) corev1.ContainerStatus_State {
	return corev1.ContainerStatus_State(state) + corev1.ContainerStatus_NEW
}

func healthMessage(health container.Health) corev1.ContainerStatus_Health {
	return corev1.ContainerStatus_Health(health)
}

func reasonMessage(reason container.Reason) corev1.Exit_Reason { return corev1.Exit_Reason(reason) }

// stopReason is why an end is wanted, as the core knows it; who says nothing has it stopped.
func stopReason(reason corev1.Exit_Reason) container.Reason {
	if reason == corev1.Exit_REASON_UNSPECIFIED {
		return container.StopAsked
	}
	return container.Reason(reason)
}

// status writes what is known of a container.
func (h *Held) status(address string) *corev1.ContainerStatus {
	c := h.Core
	status := &corev1.ContainerStatus{
		Lease:        h.Lease,
		State:        stateMessage(c.State),
		Health:       healthMessage(c.Health),
		HealthDetail: c.HealthDetail,
		StartedAt:    timeMessage(c.Seen.StartedAt),
		RuntimeId:    c.Seen.RuntimeID,
		Labels:       h.Spec.GetLabels(),
		Sequence:     c.Sequence,
		Reason:       c.Reason,
	}
	switch {
	case c.Health == container.Healthy:
		status.HealthySince = timeMessage(c.HealthySince)
	case c.Health == container.NoProbe && c.State == container.Running:
		status.HealthySince = status.GetStartedAt()
	}
	for _, port := range c.Seen.Ports {
		status.Ports = append(status.Ports, &corev1.PortMapping{
			Name: port.Name, ContainerPort: int32(port.Container), HostPort: int32(port.Host), HostAddress: address,
		})
	}
	for _, phase := range c.Phases {
		message := &corev1.Phase{Name: phase.Name, StartedAt: timeMessage(phase.StartedAt), Error: phase.Error, Bytes: phase.Bytes}
		if phase.Duration >= 0 {
			// A phase that is over has a duration, so that it can be told from one that lasts.
			message.DurationMs = int32(max(1, (phase.Duration+time.Millisecond-1)/time.Millisecond))
		}
		status.Phases = append(status.Phases, message)
	}
	if c.Exit != nil {
		status.Exit = &corev1.Exit{Reason: reasonMessage(c.Exit.Reason), Code: int32(c.Exit.Code), Message: c.Exit.Message}
	}
	return status
}

func timeMessage(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
