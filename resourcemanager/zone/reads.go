package zone

import (
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// What follows only looks at the zone. Between turns it shows the zone as it is in memory, also what is not stored yet. Most reads need none of
// it: they are served from what Ready has shown. Apps, App and Nodes are for tests and simulations.

// Apps are all apps in the order of their submission. They must not be changed.
func (z *Core) Apps() []*apiv1.App {
	var views []*apiv1.App
	for _, a := range z.apps.sorted() {
		views = append(views, z.views.of(a))
	}
	return views
}

// App is an app as people see it. It must not be changed; it is the same one until the app changes.
func (z *Core) App(name string) (*apiv1.App, error) {
	a, err := z.apps.named(name)
	if err != nil {
		return nil, err
	}
	return z.views.of(a), nil
}

// History is the versions that an app has had, and the last attempts of its master.
func (z *Core) History(name string) (*apiv1.AppHistory, error) { return z.versions.history(name) }

// Explain says what an app waits for, and what would help.
func (z *Core) Explain(name string) (*apiv1.Explanation, error) { return z.explainer.explain(name) }

// Targets are the containers that are looked for, and how to reach them.
func (z *Core) Targets(which Containers) ([]Target, error) {
	return z.leases.targets(which)
}

// MayExec is nil if somebody may run a command in an app's containers.
func (z *Core) MayExec(who peer.User, app string) error { return z.apps.mayExec(who, app) }

// MayRoute is nil if somebody may route for the zone.
func (z *Core) MayRoute(who peer.User) error { return z.access.MayRoute(who) }

// ImageUnused is nil if neither the present version of an app nor a framework package uses the image of this name and this digest.
func (z *Core) ImageUnused(name, digest string) error {
	if err := z.packages.ImageUnused(name, digest); err != nil {
		return err
	}
	return z.apps.imageUnused(name, digest)
}

// Frameworks are all framework packages, in the order of their names. They must not be changed.
func (z *Core) Frameworks() *apiv1.ListFrameworksResponse { return z.packages.viewAll() }

// Framework is one framework package. It must not be changed.
func (z *Core) Framework(name string) (*apiv1.Framework, error) { return z.packages.view(name) }

// Nodes are all nodes, in the order of their names.
func (z *Core) Nodes() []*apiv1.Node {
	var views []*apiv1.Node
	for _, n := range z.nodes.sorted() {
		views = append(views, z.nodes.view(n))
	}
	return views
}

// StreamOf is the stream that a node has open; zero is none.
func (z *Core) StreamOf(node string) StreamID { return z.sessions.streamOf(node) }

// Contracts are all lending contracts.
func (z *Core) Contracts() *apiv1.ListContractsResponse { return z.lending.ViewAll() }

// Contract is one lending contract.
func (z *Core) Contract(name string) (*apiv1.Contract, error) {
	return z.lending.Contract(name)
}

// LendingReport is what the lending contracts came to.
func (z *Core) LendingReport() *apiv1.LendingReport { return z.lending.Report() }

// Counts are how many things of each kind a zone has.
type Counts struct {
	Apps                  map[apiv1.App_State]int
	Nodes                 map[apiv1.NodeState]int
	Containers, Instances int
	Losses                int
	// Full says that the store's disk is full, QueueFileRefused that the queue file says what cannot be.
	Full, QueueFileRefused bool
}

// Counts goes over every app and every node.
func (z *Core) Counts() Counts {
	counts := Counts{
		Apps: map[apiv1.App_State]int{}, Nodes: map[apiv1.NodeState]int{},
		Losses: z.damage.count(), Full: z.damage.isFull(), QueueFileRefused: z.queues.FileRefused(),
	}
	for a := range z.apps.all() {
		counts.Apps[a.record.GetState()]++
		counts.Instances += len(a.instances)
		counts.Containers += a.heldCount()
	}
	for n := range z.nodes.all() {
		counts.Nodes[n.record.GetState()]++
	}
	return counts
}

// Summary is the zone as a whole.
func (z *Core) Summary() *apiv1.Zone {
	view := &apiv1.Zone{
		Name:        z.config.Name,
		Epoch:       z.config.identity.Epoch,
		Version:     z.config.Version,
		StartedAt:   timestamppb.New(z.config.started),
		Nodes:       int32(z.nodes.count()),
		Apps:        int32(z.apps.count()),
		NodeTimeout: durationpb.New(z.config.NodeTimeout),
	}
	var capacity, used resource.Vector
	for n := range z.nodes.all() {
		view.Containers += int32(len(n.containers))
		used = used.Add(z.scheduler.Used(n.id))
		if n.state().Answers() {
			if v, err := z.units.read(n.record.GetCapacity()); err == nil {
				capacity = capacity.Add(v)
			}
		}
	}
	view.Capacity, view.Used = z.units.Resources(capacity), z.units.Resources(used)
	view.Full = z.damage.fullBecause()
	view.Losses = z.damage.sentences()
	return view
}
