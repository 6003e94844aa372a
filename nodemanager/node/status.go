package node

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/nodemanager/container"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// The core and the protocol have these values in the same order; a test checks it.

func stateMessage(state container.State) corev1.ContainerStatus_State {
	return corev1.ContainerStatus_State(state) + corev1.ContainerStatus_NEW
}

func healthMessage(health container.Health) corev1.ContainerStatus_Health {
	return corev1.ContainerStatus_Health(health)
}

func reasonMessage(reason container.Reason) corev1.Exit_Reason { return corev1.Exit_Reason(reason) }

// stopReason converts the reason of a stop; without one it is StopCommanded.
func stopReason(reason corev1.Exit_Reason) container.Reason {
	if reason == corev1.Exit_REASON_UNSPECIFIED {
		return container.StopCommanded
	}
	return container.Reason(reason)
}

// status is the message about a container.
func (h *Entry) status(address string) *corev1.ContainerStatus {
	c := h.Core
	status := &corev1.ContainerStatus{
		Lease:        h.Lease,
		State:        stateMessage(c.State),
		Health:       healthMessage(c.Health),
		HealthDetail: c.HealthDetail,
		StartedAt:    timeMessage(c.Process.StartedAt),
		RuntimeId:    c.Process.RuntimeID,
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
	for _, port := range c.Process.Ports {
		status.Ports = append(status.Ports, &corev1.PortMapping{
			Name: port.Name, ContainerPort: int32(port.Container), HostPort: int32(port.Host), HostAddress: address,
		})
	}
	for _, phase := range c.Phases {
		message := &corev1.Phase{Name: phase.Name, StartedAt: timeMessage(phase.StartedAt), Error: phase.Error, Bytes: phase.Bytes}
		if phase.Duration >= 0 {
			// A phase that has ended has a duration, which distinguishes it from the present one.
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
