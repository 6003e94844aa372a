package zone

import (
	"fmt"
	"slices"
	"strings"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
)

const (
	// comeBack is how long balancers are waited for after a start of the ResourceManager.
	comeBack = 30 * time.Second
	// forgetBalancer is how long one that is not connected is remembered.
	forgetBalancer = 10 * time.Minute
)

// balancers are those that route for the zone: which are connected, which services each refuses to route, and what they are asked to
// confirm.
type balancers struct {
	*turn
	record *storev1.Balancers
	// lost are known balancers that are not connected, and since when.
	lost map[string]time.Time
	// refused is what each balancer refuses to route, and why, by service.
	refused map[string]map[string]string
	// confirming are the confirmations that were asked for, by number; last is the newest number.
	confirming map[int64]confirmation
	last       int64
}

func (b *balancers) load(stored Records) error {
	err := loadRecords(stored, kindBalancers, func(record *storev1.Balancers) error {
		b.record = record
		return nil
	})
	if err != nil {
		return err
	}
	if len(b.record.GetRegistrySecret()) == 0 {
		b.record.RegistrySecret = b.secrets.bytes()
		b.store()
	}
	b.out.Secret = b.record.GetRegistrySecret()
	for _, name := range b.record.GetNames() {
		b.out.Balancers = append(b.out.Balancers, ExpectedBalancer{name, comeBack})
		b.lost[name] = b.now
	}
	return nil
}

func (b *balancers) store() { b.Save(kindBalancers, "balancers", b.record) }

// any reports whether there are balancers, connected or not.
func (b *balancers) any() bool { return len(b.record.GetNames()) > 0 }

func (b *balancers) connected(name string) {
	delete(b.lost, name)
	if !slices.Contains(b.record.GetNames(), name) {
		b.record.Names = append(slices.Clone(b.record.GetNames()), name)
		b.store()
	}
	b.Emit(&apiv1.Event{Kind: "balancer", To: "CONNECTED", Message: "the balancer " + name + " is connected"})
}

func (b *balancers) disconnected(name, why string) {
	b.lost[name] = b.now
	b.Emit(&apiv1.Event{Kind: "balancer", From: "CONNECTED", To: "LOST", Message: because("the balancer "+name+" is not connected any more", why)})
}

// noteRefusals takes in all services that a balancer refuses to route.
func (b *balancers) noteRefusals(name string, refusals []*companionv1.Refusal) {
	before := b.refused[name]
	now := make(map[string]string, len(refusals))
	b.refused[name] = now
	for _, refusal := range refusals {
		now[refusal.GetService()] = refusal.GetReason()
		if before[refusal.GetService()] == refusal.GetReason() {
			continue // a balancer repeats it with everything that it applies
		}
		b.Emit(&apiv1.Event{
			Kind: "balancer", App: appOfService(refusal.GetService()), To: "REFUSED",
			Message: fmt.Sprintf("the balancer %s does not route %s: %s", name, refusal.GetService(), refusal.GetReason()),
		})
	}
}

// obstacles are the services of an app that a balancer refuses to route.
func (b *balancers) obstacles(app string) []*apiv1.Obstacle {
	var obstacles []*apiv1.Obstacle
	for _, name := range sortedKeys(b.refused) {
		for _, service := range sortedKeys(b.refused[name]) {
			if appOfService(service) == app {
				obstacles = append(obstacles, &apiv1.Obstacle{
					Subject: service, Count: 1, Reason: fmt.Sprintf("the balancer %s does not route it: %s", name, b.refused[name][service]),
				})
			}
		}
	}
	return obstacles
}

// list names the balancers for people, and marks those that are not connected.
func (b *balancers) list() string {
	words := slices.Clone(b.record.GetNames())
	for i, name := range words {
		if _, lost := b.lost[name]; lost {
			words[i] += " (not connected)"
		}
	}
	return strings.Join(words, ", ")
}

// requestConfirmation asks every balancer to confirm the present state of some services, after which something follows.
func (b *balancers) requestConfirmation(services []string, then confirmation) {
	b.last++
	b.confirming[b.last] = then
	b.out.Confirm = append(b.out.Confirm, ConfirmRequest{b.last, services})
}

// confirmed returns what follows from the confirmation that was asked for under a number; ok is false if none was.
func (b *balancers) confirmed(number int64) (then confirmation, ok bool) {
	then, ok = b.confirming[number]
	delete(b.confirming, number)
	return then, ok
}

// due forgets balancers that have not been connected for long.
func (b *balancers) due() {
	for _, name := range sortedKeys(b.lost) {
		if b.now.Before(b.lost[name].Add(forgetBalancer)) {
			continue
		}
		delete(b.lost, name)
		delete(b.refused, name)
		b.record.Names = slices.DeleteFunc(slices.Clone(b.record.GetNames()), func(known string) bool { return known == name })
		b.store()
	}
}

// appOfService is the app that a service belongs to: web for web and for front.web.
func appOfService(service string) string { return service[strings.LastIndexByte(service, '.')+1:] }
