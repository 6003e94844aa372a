package simulate

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// curveInterval is how often the number of instances of a service on a daily curve is computed.
const curveInterval = 5 * time.Minute

// service is an app with a desired number of instances that changes over the day.
type service struct {
	ask    *ask
	base   int
	wanted int
	// jitter makes the apps of a workload differ a little.
	jitter float64
}

func (e *engine) addService(w *Workload, random *rand.Rand) error {
	a, err := e.addApp(w)
	if err != nil {
		return err
	}
	initial, changes, err := w.changes(e.start, e.end)
	if err != nil {
		return err
	}
	k := &ask{app: a, spec: scheduler.Ask{
		ID: "instances", Policy: scheduler.Spread, MaxPerNode: w.MaxPerNode, Gang: w.Gang, Service: true,
		Resources: resource.Vector{resource.CPU: int64(w.CPU), resource.Memory: int64(w.Memory), resource.Ports: 1},
	}}
	a.asks = []*ask{k}
	s := &service{ask: k, base: initial, jitter: 0.9 + 0.2*random.Float64()}
	e.meter.services = append(e.meter.services, s)
	look := func() {
		s.wanted = s.at(e.now, e.start)
		e.scale(k)
	}
	look()
	times := make([]time.Duration, 0, len(changes))
	for at := range changes {
		times = append(times, at)
	}
	slices.Sort(times)
	for _, at := range times {
		e.plan(at, func() {
			s.base = changes[at]
			look()
		})
	}
	for _, surge := range w.Surges {
		e.plan(time.Duration(surge.At), look)
		e.plan(time.Duration(surge.At+surge.For), look)
	}
	if w.Curve != nil {
		var again func()
		again = func() {
			look()
			e.plan(e.now+curveInterval, again)
		}
		e.plan(curveInterval, again)
	}
	return nil
}

// at is the desired number of instances at a time.
func (s *service) at(now time.Duration, start time.Time) int {
	w := s.ask.app.workload
	wanted := float64(s.base)
	if w.Curve != nil {
		day := start.Add(now).UTC()
		sinceMidnight := time.Duration(day.Hour())*time.Hour + time.Duration(day.Minute())*time.Minute
		wave := (1 + math.Cos(2*math.Pi*(sinceMidnight-time.Duration(w.Curve.Peak)).Hours()/24)) / 2
		low := float64(w.Curve.Low) / 100
		wanted = math.Min(wanted, wanted*s.jitter*(low+(1-low)*wave))
	}
	for _, surge := range w.Surges {
		if now >= time.Duration(surge.At) && now < time.Duration(surge.At+surge.For) {
			wanted = math.Max(wanted, float64(surge.Instances))
		}
	}
	return int(math.Round(wanted))
}

// scale asks for what a service lacks, or stops its newest instances.
func (e *engine) scale(k *ask) {
	s := e.meter.serviceOf(k)
	stopping := 0
	for _, held := range k.running {
		if held.stopped {
			stopping++
		}
	}
	missing := s.wanted - (len(k.running) - stopping) - k.spec.Pending
	if missing > 0 || missing < 0 && k.spec.Pending > 0 {
		e.want(k, max(missing, -k.spec.Pending))
		missing = s.wanted - (len(k.running) - stopping) - k.spec.Pending
	}
	for i := len(k.running) - 1; i >= 0 && missing < 0; i-- {
		held := k.running[i]
		if held.stopped {
			continue
		}
		held.stopped = true
		missing++
		e.plan(e.now+time.Duration(e.scenario.Stop), func() {
			if e.held[held.id] != nil {
				e.gone(held)
			}
		})
	}
}
