package world

import (
	"fmt"
	"slices"
	"time"

	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// rest looks whether the zone has come to rest: what people want is what runs, everywhere.
func (l *laws) rest() {
	if l.w.over {
		return
	}
	if trouble := l.unrest(); trouble != "" {
		l.w.breach("rest", "%s after faults have ended, %s", calm, trouble)
	}
}

// unrest is what differs; empty if nothing does.
func (l *laws) unrest() string {
	m := l.w.manager
	if m.process.dead || !m.open {
		return "the ResourceManager does not serve"
	}
	if len(l.w.people.settled) < len(names)+len(others) {
		return fmt.Sprintf("people were only answered about %v", sortedKeys(l.w.people.settled))
	}
	held := map[string]bool{}
	for _, n := range m.core.Nodes() {
		if n.GetState() != apiv1.NodeState_READY {
			return fmt.Sprintf("%s is %s: %s", n.GetName(), n.GetState(), n.GetReason())
		}
		for _, c := range n.GetContainers() {
			held[c.GetId()] = true
			if l.running(c.GetId()) == nil {
				return fmt.Sprintf("the zone holds %s of %s on %s as %s, and it does not run", c.GetId(), c.GetApp(), n.GetName(), c.GetState())
			}
		}
	}
	for _, h := range l.w.hosts {
		for _, p := range h.engine.sorted() {
			if p.running && !held[p.key.String()] {
				return fmt.Sprintf("%s runs %s of %s, which the zone does not hold", h.name, p.key, p.lease.GetAppName())
			}
		}
	}
	for _, app := range m.core.Apps() {
		if trouble := l.restless(m, app); trouble != "" {
			return trouble
		}
	}
	for _, name := range sortedKeys(l.w.people.wanted) {
		wanted := l.w.people.wanted[name]
		if app, err := m.core.App(name); err != nil || app.GetWanted() != wanted {
			return fmt.Sprintf("people want %d instances of %s, and the zone wants %d (%v)", wanted, name, app.GetWanted(), err)
		}
	}
	return ""
}

func (l *laws) restless(m *manager, app *apiv1.App) string {
	name := app.GetName()
	switch {
	case app.GetState() != apiv1.App_RUNNING:
		return fmt.Sprintf("%s is %s: %s", name, app.GetState(), app.GetReason())
	case app.GetRunning() != app.GetWanted() || len(app.GetInstances()) != int(app.GetWanted()):
		return fmt.Sprintf("of %s run %d of %d instances, and there are %d: %v", name, app.GetRunning(), app.GetWanted(), len(app.GetInstances()), app.GetWaiting())
	case app.GetObservedGeneration() != app.GetGeneration():
		return fmt.Sprintf("the master of %s has acted on generation %d of %d", name, app.GetObservedGeneration(), app.GetGeneration())
	case app.GetStatus().GetState() == apiv1.MasterStatus_WORKING:
		return fmt.Sprintf("%s is still rolled out", name)
	}
	ofRole := map[string]int{}
	for _, instance := range app.GetInstances() {
		ofRole[instance.GetRole()]++
	}
	roles := app.GetSpec().GetRoles()
	if len(roles) == 0 {
		return l.misrouted(m, name, int(app.GetWanted()), false)
	}
	if len(roles) > 1 {
		if trouble := l.misrouted(m, name, ofRole[specs.MainRole(app.GetSpec()).GetName()], false); trouble != "" {
			return trouble
		}
	}
	for _, role := range roles {
		if trouble := l.misrouted(m, specs.ServiceName(app.GetSpec(), role), ofRole[role.GetName()], role.GetExpose() != nil); trouble != "" {
			return trouble
		}
	}
	return ""
}

// misrouted says what is wrong with a service at rest: it has an endpoint for each of its instances, and balancers route to all of them if
// it is exposed, and to none otherwise. Empty if all is well.
func (l *laws) misrouted(m *manager, service string, instances int, exposed bool) string {
	endpoints := m.registry.endpoints(service)
	if len(endpoints) != instances {
		return fmt.Sprintf("the service %s has %d endpoints for %d instances", service, len(endpoints), instances)
	}
	for _, e := range endpoints {
		p := l.running(e.GetContainerId())
		if e.GetState() != apiv1.Endpoint_HEALTHY || p == nil || int32(p.port) != e.GetPort() {
			return fmt.Sprintf("the endpoint %s of %s does not lead to it", e.GetId(), service)
		}
		if got := p.spec.GetLabels()["instance"]; got != e.GetId() {
			return fmt.Sprintf("the endpoint %s of %s leads to %s", e.GetId(), service, got)
		}
	}
	if !exposed {
		endpoints = nil
	}
	for _, b := range l.w.balancers {
		for _, e := range endpoints {
			if !b.routesTo(e.GetContainerId()) {
				return fmt.Sprintf("%s does not route to %s of %s", b.name, e.GetId(), service)
			}
		}
		if routed := b.applied[service].GetEndpoints(); len(routed) != len(endpoints) {
			return fmt.Sprintf("%s routes to %d endpoints of %s, and should to %d", b.name, len(routed), service, len(endpoints))
		}
	}
	return ""
}

// handBacks looks whether what was lent came back in time, where nothing failed and no app left the queue of the lender meanwhile.
func (l *laws) handBacks() {
	for _, contract := range l.w.manager.core.Contracts().GetContracts() {
		for _, back := range contract.GetLedger().GetHandBacks() {
			promised := back.GetPromisedAt().AsTime()
			begins := promised.Add(-contract.GetSpec().GetNotice().AsDuration() - contract.GetSpec().GetGrace().AsDuration())
			moved := slices.ContainsFunc(l.moved, func(at time.Time) bool { return !at.Before(begins) && !at.After(promised) })
			if !back.GetKept() && !moved && l.w.quietUntil(promised.Add(-10*time.Minute), promised.Add(time.Minute)) {
				l.w.breach("hand-back", "what contract %s lent was to be back at %s, and was at %v", contract.GetSpec().GetName(), promised.Format(time.TimeOnly), back.GetDoneAt().AsTime().Format(time.TimeOnly))
			}
		}
	}
}
