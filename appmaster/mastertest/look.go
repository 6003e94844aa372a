package mastertest

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// Breaches are the sentences about every rule that a master has broken.
func (z *Zone) Breaches() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.breaches)
}

// Containers are all that a node has, by id: those of lost nodes too.
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

// Leases counts the containers that are granted and not seen gone.
func (z *Zone) Leases() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.leases)
}

// Registry is where instances are: their containers by instance. An endpoint exists while the master says that the instance is in
// service and its node sees it healthy.
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

// Instances are the newest reports, by name.
func (z *Zone) Instances() []*masterv1.InstanceReport {
	z.mu.Lock()
	defer z.mu.Unlock()
	var reports []*masterv1.InstanceReport
	for _, name := range slices.Sorted(maps.Keys(z.instances)) {
		reports = append(reports, z.instances[name])
	}
	return reports
}

// Rollout is the newest rollout report, nil before the first.
func (z *Zone) Rollout() *masterv1.RolloutReport {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.rollout
}

// Wanted is what people want now.
func (z *Zone) Wanted() *masterv1.Wanted {
	z.mu.Lock()
	defer z.mu.Unlock()
	return proto.CloneOf(z.wanted)
}

// Reverts are all that a master asked for.
func (z *Zone) Reverts() []*masterv1.Revert {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.reverts)
}

// Observed is the newest generation that a master has acted upon.
func (z *Zone) Observed() int64 {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.observed
}

// Finished reports whether the app's master has ended it.
func (z *Zone) Finished() bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.finished
}

// Starts counts the containers that nodes have really started.
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

// Sicken makes a running container fail its probes.
func (z *Zone) Sicken(container string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, node := range z.nodes {
		node.change(container, func(s *corev1.ContainerStatus) {
			s.Health, s.HealthDetail = corev1.ContainerStatus_UNHEALTHY, "http: status 500"
		})
	}
}
