package resourcemanager

import (
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
)

// nodeTokenFor is how long a token lasts with which the ResourceManager itself speaks to a node.
const nodeTokenFor = time.Hour

// targets finds the containers of an app, or of one of its instances, and how to reach them. With ended it also
// finds those that are over.
func (z *zone) targets(name, instance string, ended bool) ([]service.Target, error) {
	a, err := z.app(name)
	if err != nil {
		return nil, err
	}
	var targets []service.Target
	known := a.instances[instance] != nil
	for _, c := range sortedContainers(a.containers) {
		if c.record.GetLease().GetMaster() || instance != "" && c.instance() != instance {
			continue
		}
		known = true
		n := z.nodes[c.node]
		if n == nil || !c.held() && !ended || c.state() == lifecycle.ContainerNew {
			continue
		}
		targets = append(targets, service.Target{
			Container:        c.id.String(),
			Instance:         c.instance(),
			Running:          c.state() == lifecycle.ContainerRunning,
			Starting:         c.state() == lifecycle.ContainerLocalizing || c.state() == lifecycle.ContainerLaunching,
			Ended:            !c.held(),
			Listed:           a.instances[c.instance()] != nil,
			Node:             string(n.id),
			ContainerManager: n.record.GetContainerManager(),
			Token: z.sign(&corev1.TokenClaims{
				Scope: corev1.TokenClaims_NODE, NodeId: string(n.id), ExpiresAt: timestamppb.New(z.now.Add(nodeTokenFor)),
			}),
		})
	}
	if !known && instance != "" {
		return nil, fmt.Errorf("%s has no instance named %q; \"mammoth app show %s\" lists those that it has: %w", name, instance, name, errdefs.ErrNotFound)
	}
	slices.SortStableFunc(targets, func(x, y service.Target) int { return id.CompareNames(x.Instance, y.Instance) })
	return targets, nil
}
