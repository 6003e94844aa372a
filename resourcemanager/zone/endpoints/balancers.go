package endpoints

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/sentence"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// KindBalancers is the kind of the record of the balancers.
const KindBalancers store.Kind = "balancers"

const (
	// comeBack is how long balancers are waited for after a start of the ResourceManager.
	comeBack = 30 * time.Second
	// forgetBalancer is how long one that is not connected is remembered.
	forgetBalancer = 10 * time.Minute
)

// Balancers are those that route for the zone: which are connected, which services each refuses to route, and what they are asked to
// confirm.
type Balancers struct {
	turn Turn
	// out is what the present turn asks for.
	out    *Out
	record *storev1.Balancers
	// lost are known balancers that are not connected, and since when.
	lost map[string]time.Time
	// refused is what each balancer refuses to route, and why, by service.
	refused map[string]map[string]string
	// confirming are the confirmations that were asked for, by number; last is the newest number.
	confirming map[int64]confirmation
	last       int64
}

// Load takes in what is stored. After a start every balancer that was connected before is waited for.
func (b *Balancers) Load(record *storev1.Balancers) {
	b.record = record
	if len(b.record.GetRegistrySecret()) == 0 {
		b.record.RegistrySecret = b.turn.NewSecret()
		b.store()
	}
	b.out.Secret = b.record.GetRegistrySecret()
	for _, name := range b.record.GetNames() {
		b.out.Balancers = append(b.out.Balancers, ExpectedBalancer{name, comeBack})
		b.lost[name] = b.turn.Now()
	}
}

func (b *Balancers) store() { b.turn.Save(KindBalancers, "balancers", b.record) }

// Any reports whether there are balancers, connected or not.
func (b *Balancers) Any() bool { return len(b.record.GetNames()) > 0 }

// Connected notes that a balancer is connected.
func (b *Balancers) Connected(name string) {
	delete(b.lost, name)
	if !slices.Contains(b.record.GetNames(), name) {
		b.record.Names = append(slices.Clone(b.record.GetNames()), name)
		b.store()
	}
	b.turn.Emit(&apiv1.Event{Kind: "balancer", To: "CONNECTED", Message: "the balancer " + name + " is connected"})
}

// Disconnected notes that a balancer is not connected any more. It is remembered for a while.
func (b *Balancers) Disconnected(name, why string) {
	b.lost[name] = b.turn.Now()
	b.turn.Emit(&apiv1.Event{Kind: "balancer", From: "CONNECTED", To: "LOST", Message: sentence.Because("the balancer "+name+" is not connected any more", why, "")})
}

// NoteRefusals takes in all services that a balancer refuses to route.
func (b *Balancers) NoteRefusals(name string, refusals []*companionv1.Refusal) {
	before := b.refused[name]
	now := make(map[string]string, len(refusals))
	b.refused[name] = now
	for _, refusal := range refusals {
		now[refusal.GetService()] = refusal.GetReason()
		if before[refusal.GetService()] == refusal.GetReason() {
			continue // a balancer repeats it with everything that it applies
		}
		b.turn.Emit(&apiv1.Event{
			Kind: "balancer", App: spec.AppOf(refusal.GetService()), To: "REFUSED",
			Message: fmt.Sprintf("the balancer %s does not route %s: %s", name, refusal.GetService(), refusal.GetReason()),
		})
	}
}

// Obstacles are the services of an app that a balancer refuses to route.
func (b *Balancers) Obstacles(app string) []*apiv1.Obstacle {
	var obstacles []*apiv1.Obstacle
	for _, name := range id.SortedKeys(b.refused) {
		for _, service := range id.SortedKeys(b.refused[name]) {
			if spec.AppOf(service) == app {
				obstacles = append(obstacles, &apiv1.Obstacle{
					Subject: service, Count: 1, Reason: fmt.Sprintf("the balancer %s does not route it: %s", name, b.refused[name][service]),
				})
			}
		}
	}
	return obstacles
}

// List names the balancers for people, and marks those that are not connected.
func (b *Balancers) List() string {
	words := slices.Clone(b.record.GetNames())
	for i, name := range words {
		if _, lost := b.lost[name]; lost {
			words[i] += " (not connected)"
		}
	}
	return strings.Join(words, ", ")
}

// requestConfirmation asks every balancer to confirm the present state of some services, after which something follows.
func (b *Balancers) requestConfirmation(services []string, then confirmation) {
	b.last++
	b.confirming[b.last] = then
	b.out.Confirm = append(b.out.Confirm, ConfirmRequest{b.last, services})
}

// Dismiss has nobody wait for a balancer that has been ended.
func (b *Balancers) Dismiss(name string) {
	b.out.Balancers = append(b.out.Balancers, ExpectedBalancer{Name: name})
}

// confirmed returns what follows from the confirmation that was asked for under a number; ok is false if none was.
func (b *Balancers) confirmed(number int64) (then confirmation, ok bool) {
	then, ok = b.confirming[number]
	delete(b.confirming, number)
	return then, ok
}

// Due forgets balancers that have not been connected for long.
func (b *Balancers) Due() {
	for _, name := range id.SortedKeys(b.lost) {
		if b.turn.Now().Before(b.lost[name].Add(forgetBalancer)) {
			continue
		}
		delete(b.lost, name)
		delete(b.refused, name)
		b.record.Names = slices.DeleteFunc(slices.Clone(b.record.GetNames()), func(known string) bool { return known == name })
		b.store()
	}
}
