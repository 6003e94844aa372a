package zone

import (
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// nodeTokenFor is how long a token is valid with which the ResourceManager itself calls a node.
const nodeTokenFor = time.Hour

// Target is a container and how to reach it on its node.
type Target struct {
	Container string
	Instance  string
	Running   bool
	// Starting says that its node has yet to start it: it has no output so far.
	Starting bool
	// Trouble is why its node may not answer, as in "node-1 is lost"; empty if the node is ready or draining. Lost says that
	// the node is lost: nobody can read from it.
	Trouble string
	Lost    bool
	// Ended says that its node has seen it gone, Listed that the app still has an instance of that name.
	Ended, Listed bool
	Node          string
	// ContainerManager is the node's host:port.
	ContainerManager string
	// Token is good for any container of the node.
	Token *corev1.ContainerToken
}

// Containers says which containers are looked for.
type Containers struct {
	App string
	// Role and Instance are empty for all.
	Role, Instance string
	// Ended: also those that have ended.
	Ended bool
}

// targets finds containers, and how to reach them.
func (ls *leases) targets(which Containers) ([]Target, error) {
	name, instance := which.App, which.Instance
	a, err := ls.apps.named(name)
	if err != nil {
		return nil, err
	}
	if which.Role != "" {
		if _, err := chooseRole(a.record.GetSpec(), which.Role); err != nil {
			return nil, err
		}
	}
	var targets []Target
	known := a.instances[instance] != nil
	for _, c := range sortedContainers(a.containers) {
		if c.record.GetLease().GetMaster() || instance != "" && c.instance() != instance || which.Role != "" && c.role() != which.Role {
			continue
		}
		known = true
		n := ls.nodes.get(c.node)
		if n == nil || !c.held() && !which.Ended || c.state() == lifecycle.ContainerNew {
			continue
		}
		targets = append(targets, Target{
			Container:        c.id.String(),
			Instance:         c.instance(),
			Running:          c.state() == lifecycle.ContainerRunning,
			Starting:         c.state() == lifecycle.ContainerLocalizing || c.state() == lifecycle.ContainerLaunching,
			Trouble:          n.silence(),
			Lost:             n.state() == lifecycle.NodeLost,
			Ended:            !c.held(),
			Listed:           a.instances[c.instance()] != nil,
			Node:             string(n.id),
			ContainerManager: n.record.GetContainerManager(),
			Token: ls.keys.Sign(&corev1.TokenClaims{
				Scope: corev1.TokenClaims_NODE, NodeId: string(n.id), ExpiresAt: timestamppb.New(ls.now.Add(nodeTokenFor)),
			}),
		})
	}
	if !known && instance != "" && which.Role != "" {
		return nil, fmt.Errorf("role %s of %s has no instance named %q; \"mammoth app show %s\" lists those that it has: %w", which.Role, name, instance, name, errdefs.ErrNotFound)
	}
	if !known && instance != "" {
		return nil, fmt.Errorf("%s has no instance named %q; \"mammoth app show %s\" lists those that it has: %w", name, instance, name, errdefs.ErrNotFound)
	}
	slices.SortStableFunc(targets, func(x, y Target) int { return id.CompareNames(x.Instance, y.Instance) })
	return targets, nil
}
