package mastertest

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// Violations lists each rule that a master has broken, one sentence each.
func (z *Zone) Violations() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.violations)
}

// Containers lists the containers of all nodes, also of lost ones, by id.
func (z *Zone) Containers() map[string]*corev1.ContainerStatus {
	z.mu.Lock()
	defer z.mu.Unlock()
	containers := map[string]*corev1.ContainerStatus{}
	for _, node := range z.nodes {
		for name, container := range node.containers {
			containers[name] = container.status
		}
	}
	return containers
}

// Leases is the number of containers that were granted and not seen gone.
func (z *Zone) Leases() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.leases)
}

// Registry maps each instance to its container. An endpoint exists while the master reports the instance in service and its
// node reports it healthy.
func (z *Zone) Registry() map[string]string {
	z.mu.Lock()
	defer z.mu.Unlock()
	endpoints := map[string]string{}
	for name, report := range z.instances {
		held, ok := z.leases[report.GetContainerId()]
		if ok && report.GetInService() && held.node.reachable() && serving(held.status) {
			endpoints[name] = report.GetContainerId()
		}
	}
	return endpoints
}

// Instances lists the newest reports, by name.
func (z *Zone) Instances() []*masterv1.InstanceReport {
	z.mu.Lock()
	defer z.mu.Unlock()
	var reports []*masterv1.InstanceReport
	for _, name := range slices.Sorted(maps.Keys(z.instances)) {
		reports = append(reports, z.instances[name])
	}
	return reports
}

// Status is the master's newest status; nil if it has not reported one.
func (z *Zone) Status() *apiv1.MasterStatus {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.status
}

// Desired is the present desired state.
func (z *Zone) Desired() *masterv1.DesiredState {
	z.mu.Lock()
	defer z.mu.Unlock()
	return proto.CloneOf(z.desired)
}

// WantsTraffic reports whether the master wants the traffic counts of balancers.
func (z *Zone) WantsTraffic() bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.traffic
}

// Revisions lists the revisions that masters have made.
func (z *Zone) Revisions() []*masterv1.Revise {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.revisions)
}

// ReportedGeneration is the newest generation that a master has acted upon.
func (z *Zone) ReportedGeneration() int64 {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.generation
}

// Finished reports whether the app's master has ended it.
func (z *Zone) Finished() bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.finished
}

// Failed reports whether the app's master has ended it as failed.
func (z *Zone) Failed() bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.failed
}

// Starts is how many containers the nodes have started.
func (z *Zone) Starts() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	starts := 0
	for _, node := range z.nodes {
		starts += node.starts
	}
	return starts
}

// Kill ends a container's process from outside.
func (z *Zone) Kill(container string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, node := range z.nodes {
		if _, ok := node.containers[container]; ok {
			node.end(container, &corev1.Exit{Reason: corev1.Exit_EXITED, Code: 137})
		}
	}
}

// MakeUnhealthy lets a running container fail its probes.
func (z *Zone) MakeUnhealthy(container string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, node := range z.nodes {
		node.change(container, func(s *corev1.ContainerStatus) {
			s.Health, s.HealthDetail = corev1.ContainerStatus_UNHEALTHY, "http: status 500"
		})
	}
}

// Note is the master's newest note on a version: empty if there is none, nil if there is no such version.
func (z *Zone) Note(version int32) *masterv1.VersionNote {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, note := range z.desired.GetNotes() {
		if note.GetVersion() == version {
			return note
		}
	}
	return nil
}

// Asks are the asks of which not all containers were granted.
func (z *Zone) Asks() []*masterv1.Ask {
	z.mu.Lock()
	defer z.mu.Unlock()
	var asks []*masterv1.Ask
	for _, name := range slices.Sorted(maps.Keys(z.asks)) {
		if state := z.asks[name]; state.ask.GetCount() > state.granted {
			asks = append(asks, state.ask)
		}
	}
	return asks
}
