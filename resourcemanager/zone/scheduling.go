package zone

import (
	"fmt"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// schedulerCore is the scheduler, and what its lending contracts came to.
type schedulerCore interface {
	scheduler.Interface
	Ledgers() []scheduler.Ledger
	// MaySubmit and MayAdminister look at the lists of a queue and of those above it.
	MaySubmit(queue id.Queue, user string) bool
	MayAdminister(queue id.Queue, user string) bool
}

// scheduling is the scheduler as the other parts use it. A fact is an input of the scheduler, to distinguish it from those of the zone; a shape is what one container needs.
type scheduling struct {
	*turn
	schedulerCore
	config *config
	units  *units
	// named are the resources that the scheduler has the names of.
	named resource.Schema
}

// load makes the scheduler once the units are known.
func (g *scheduling) load(Records) error {
	g.named = g.units.known()
	g.schedulerCore = scheduler.New(scheduler.Config{Epoch: g.config.identity.Epoch, Schema: g.named, Master: masterResources(g.units)})
	return nil
}

// Apply hands a fact to the scheduler, and before it the names of resources that nodes or queues have brought.
func (g *scheduling) Apply(input scheduler.Input) error {
	g.nameResources()
	return g.schedulerCore.Apply(input)
}

// QueuesAfter implements schedulerCore.
func (g *scheduling) QueuesAfter(in scheduler.SetQueues) ([]scheduler.QueueUsage, error) {
	g.nameResources()
	return g.schedulerCore.QueuesAfter(in)
}

func (g *scheduling) nameResources() {
	if known := g.units.known(); known != g.named {
		g.named = known
		_ = g.schedulerCore.Apply(scheduler.SetSchema{Schema: known}) // it takes any
	}
}

// masterResources are those of one of DynamicDeploy's application masters.
func masterResources(u *units) resource.Vector {
	v, _ := u.read(specs.MasterResources()) // what every zone has
	return v
}

// apply hands a fact to the scheduler that cannot be wrong unless the program is.
func (g *scheduling) apply(input scheduler.Input) {
	if err := g.Apply(input); err != nil {
		g.Fault("the scheduler refused a fact", "fact", fmt.Sprintf("%T", input), "error", err)
	}
}

// shape reads what one container needs and where it may be put. A resource that no node and no queue has named is refused: were
// room made for it, a few apps could use up the room for the resources that nodes really have.
func (g *scheduling) shape(resources *corev1.Resources, placement *apiv1.Placement) (scheduler.Ask, error) {
	v, err := g.units.read(resources)
	if err != nil {
		return scheduler.Ask{}, err
	}
	ask := scheduler.Ask{
		Resources:    v,
		SpreadOver:   placement.GetSpreadOver(),
		MaxPerNode:   int(placement.GetMaxPerNode()),
		Affinity:     placement.GetAffinity(),
		AntiAffinity: placement.GetAntiAffinity(),
	}
	if placement.GetPolicy() == apiv1.Placement_PACK {
		ask.Policy = scheduler.Pack
	}
	for _, text := range placement.GetConstraints() {
		constraint, err := scheduler.ParseConstraint(text)
		if err != nil {
			return ask, err
		}
		ask.Constraints = append(ask.Constraints, constraint)
	}
	return ask, nil
}
