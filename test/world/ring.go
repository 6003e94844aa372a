package world

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/dynamicdeploy/driver"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

const (
	// ringPackage is a framework package that people install, and circle an app of it.
	ringPackage = "ring"
	circle      = "circle"
	// outside is an app whose master is a program outside of the zone.
	outside = "outside"
)

// ring is another master than DynamicDeploy's: it keeps a number of workers, and puts one in the place of each that ends. It does what
// examples/framework does.
type ring struct {
	outbox  *appmaster.Outbox
	config  appmaster.Config
	desired *masterv1.DesiredState
	// workers are their numbers, by their containers. asks counts the asks of this attempt, and open those that are not answered.
	workers    map[string]int
	asks, open int
	starts     []driver.Start
	// resting is until when nobody is asked for, after a worker has ended.
	resting time.Time
	// changed: there is something to report.
	changed bool
	// done: somebody has told it that its work is done.
	done bool
}

// ringSize is how many workers a ring has.
const ringSize = 3

func newRing(config appmaster.Config, outbox *appmaster.Outbox) *ring {
	return &ring{outbox: outbox, config: config, workers: map[string]int{}}
}

// TakeOver implements mind. The attempt before may have left workers, and containers that nothing was started in.
func (r *ring) TakeOver(answer *masterv1.RegisterResponse, _ time.Time) {
	r.desired, r.changed = answer.GetDesired(), true
	for _, allocation := range answer.GetContainers() {
		container := allocation.GetLease().GetContainerId()
		if number, err := strconv.Atoi(allocation.GetLabels()["number"]); err == nil {
			r.workers[container] = number
		} else {
			r.outbox.Release(container, "nothing was started in it")
		}
	}
}

// Handle implements mind.
func (r *ring) Handle(event appmaster.Event, now time.Time) error {
	r.changed = true
	switch event := event.(type) {
	case appmaster.Allocated:
		r.open--
		r.start(event.Allocation)
	case appmaster.Completed:
		container := event.Status.GetLease().GetContainerId()
		if number, known := r.workers[container]; known {
			delete(r.workers, container)
			r.outbox.ForgetInstance(r.name(number))
			r.resting = now.Add(time.Second)
		}
	case appmaster.DesiredChanged:
		r.desired = event.Desired
	case appmaster.Superseded:
		return appmaster.ErrSuperseded
	}
	return nil
}

// start starts a worker under the first number that is free.
func (r *ring) start(allocation *masterv1.Allocation) {
	number, taken := 1, slices.Collect(maps.Values(r.workers))
	for slices.Contains(taken, number) {
		number++
	}
	r.workers[allocation.GetLease().GetContainerId()] = number
	r.starts = append(r.starts, driver.Start{Allocation: allocation, Spec: &corev1.ContainerSpec{
		Runtime: corev1.ContainerSpec_PROCESS, Command: []string{"worker"}, Ports: []*corev1.Port{{Name: "http", ContainerPort: 8080}},
		Env: map[string]string{behaviour: sound}, Labels: map[string]string{"instance": r.name(number), "number": strconv.Itoa(number)},
	}})
}

// StartEnded implements mind.
func (r *ring) StartEnded(container string, _ *corev1.ContainerStatus, err error, _ time.Time) {
	if err != nil {
		r.outbox.Release(container, "it did not start")
	}
}

// Decide implements mind: it asks for the workers that are missing, and says how far that is.
func (r *ring) Decide(now time.Time) time.Time {
	if r.Finished() {
		return time.Time{}
	}
	if r.changed {
		r.report()
	}
	if now.Before(r.resting) {
		return r.resting
	}
	for ; len(r.workers)+r.open < ringSize; r.open++ {
		r.asks++
		r.outbox.SetAsk(&masterv1.Ask{
			Id: fmt.Sprintf("worker/%d.%d", r.config.Attempt, r.asks), Count: 1, Service: true,
			Resources: &corev1.Resources{CpuMillis: 50, MemoryBytes: 32 << 20, DiskBytes: 1 << 20, Ports: 1},
		})
	}
	return time.Time{}
}

func (r *ring) report() {
	r.changed = false
	for _, container := range sortedKeys(r.workers) {
		r.outbox.ReportInstance(&masterv1.InstanceReport{
			Id: r.name(r.workers[container]), ContainerId: container, Version: 1, State: apiv1.Instance_RUNNING, InService: true, Weight: 100,
		})
	}
	r.outbox.ReportGeneration(r.desired.GetGeneration())
}

// Starts implements mind.
func (r *ring) Starts() []driver.Start {
	starts := r.starts
	r.starts = nil
	return starts
}

// Finished implements mind.
func (r *ring) Finished() bool { return r.done || r.desired.GetStopped() || r.desired.GetRemoving() }

func (r *ring) name(number int) string { return fmt.Sprintf("%s-%d", r.config.App, number) }
