package zone

import (
	"fmt"
	"slices"
	"strings"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

const (
	// comeBack is how long balancers are waited for after a restart of the ResourceManager.
	comeBack = 30 * time.Second
	// forgetBalancer is how long one that is not connected is remembered.
	forgetBalancer = 10 * time.Minute
)

// openRegistry gives the registry what must outlive it: the secret of the apps' keys, and who routes.
func (z *Core) openRegistry() {
	if len(z.record.GetRegistrySecret()) == 0 {
		z.record.RegistrySecret = z.secrets.bytes()
		z.save(kindZone, "zone", z.record)
	}
	z.out.Secret = z.record.GetRegistrySecret()
	for _, name := range z.record.GetBalancers() {
		z.out.Balancers = append(z.out.Balancers, ExpectedBalancer{name, comeBack})
		z.lostBalancers[name] = z.now
	}
}

func (z *Core) balancerConnected(balancer string) {
	delete(z.lostBalancers, balancer)
	if !slices.Contains(z.record.GetBalancers(), balancer) {
		z.record.Balancers = append(slices.Clone(z.record.GetBalancers()), balancer)
		z.save(kindZone, "zone", z.record)
	}
	z.tell(&apiv1.Event{Kind: "balancer", To: "CONNECTED", Message: "the balancer " + balancer + " is connected"})
}

func (z *Core) balancerLost(balancer, why string) {
	z.lostBalancers[balancer] = z.now
	z.tell(&apiv1.Event{Kind: "balancer", From: "CONNECTED", To: "LOST", Message: because("the balancer "+balancer+" is not connected any more", why)})
}

// balancerRefuses takes all services that a balancer cannot route.
func (z *Core) balancerRefuses(balancer string, refusals []*companionv1.Refusal) {
	before := z.refused[balancer]
	now := make(map[string]string, len(refusals))
	z.refused[balancer] = now
	for _, refusal := range refusals {
		now[refusal.GetService()] = refusal.GetReason()
		if a := z.names[appOfService(refusal.GetService())]; a != nil {
			z.lookAfter(a)
		}
		if before[refusal.GetService()] == refusal.GetReason() {
			continue // a balancer says it with everything that it applies
		}
		z.tell(&apiv1.Event{
			Kind: "balancer", App: appOfService(refusal.GetService()), To: "REFUSED",
			Message: fmt.Sprintf("the balancer %s does not route %s: %s", balancer, refusal.GetService(), refusal.GetReason()),
		})
	}
}

// count tells the master of an app what balancers have seen of an instance, if it judges a rollout by that.
func (z *Core) count(count *companionv1.Traffic) {
	a := z.names[appOfService(count.GetService())]
	if a == nil || a.stream == 0 || a.instances[count.GetEndpoint()] == nil || !a.judgedByErrors() {
		return
	}
	sum := &masterv1.Traffic{Instance: count.GetEndpoint(), Requests: count.GetRequests(), Errors: count.GetErrors()}
	if before := a.traffic[sum.GetInstance()]; before != nil {
		sum.Requests += before.GetRequests()
		sum.Errors += before.GetErrors()
	}
	a.traffic[sum.GetInstance()] = sum
	z.say(a).Traffic = append(z.say(a).Traffic, sum)
}

// judgedByErrors reports whether a rollout is under way that errors can end.
func (a *app) judgedByErrors() bool {
	if state := a.rollout().GetState(); state != apiv1.Rollout_PROGRESSING && state != apiv1.Rollout_PAUSED {
		return false
	}
	return slices.ContainsFunc(a.record.GetSpec().GetRoles(), func(role *apiv1.RoleSpec) bool { return role.GetUpdate().GetMaxErrorPercent() > 0 })
}

// appOfService is the app that a service belongs to: web for web and for front.web.
func appOfService(service string) string { return service[strings.LastIndexByte(service, '.')+1:] }

// dueBalancers forgets those that have not been seen for long.
func (z *Core) dueBalancers() {
	for _, name := range sortedKeys(z.lostBalancers) {
		if z.now.Before(z.lostBalancers[name].Add(forgetBalancer)) {
			continue
		}
		delete(z.lostBalancers, name)
		delete(z.refused, name)
		z.record.Balancers = slices.DeleteFunc(slices.Clone(z.record.GetBalancers()), func(known string) bool { return known == name })
		z.save(kindZone, "zone", z.record)
	}
}
