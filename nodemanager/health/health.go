// Package health probes containers and checks the node. One goroutine keeps the time for all probes; a probe has a goroutine
// only while it runs.
//
// Vocabulary: a Target is what is probed, a Verdict is the health of a container after a change, a NodeCheck is one check of the
// node; probes that run at the same time need slots.
package health

import (
	"container/heap"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Check probes once, and ends with its context. An error is one sentence. errdefs.ErrUnavailable means that the probe could
// not be made, for example without a free file descriptor: the result does not count.
type Check func(ctx context.Context) error

// Target is what is probed, and how.
type Target struct {
	Check Check
	// Exec is true if the probe runs a command, which costs more than a connection.
	Exec     bool
	Interval time.Duration
	Timeout  time.Duration
	// Healthy and Unhealthy are how many equal results in a row change the verdict.
	Healthy   int
	Unhealthy int
	// WasHealthy is true if the container is known to be healthy, and is probed at its interval from the start.
	WasHealthy bool
}

// Verdict is the health of a container. It is sent when it changes.
type Verdict struct {
	ID      id.Container
	Healthy bool
	// Unknown is true while no probe can be made; the earlier health stands. It is sent every unknownInterval.
	Unknown bool
	// Detail is the last failure, one sentence.
	Detail string
}

const (
	// firstInterval is the time between the first probes of a container that was not healthy yet; it grows by half each
	// time, up to the target's interval.
	firstInterval = 20 * time.Millisecond
	// unknownInterval is the time between two Unknown verdicts of a container.
	unknownInterval = time.Second
	// shortageDuration is how long NodeCheck reports a probe that could not be made.
	shortageDuration = 10 * time.Second
)

// Prober probes any number of containers.
type Prober struct {
	limits   Limits
	report   func(Verdict)
	commands chan command
	results  chan result
	trouble  atomic.Pointer[probeTrouble]
}

// probeTrouble is why a probe could not be made, and the last time.
type probeTrouble struct {
	at     time.Time
	reason string
}

type command struct {
	id     id.Container
	target *Target // nil removes
}

type result struct {
	probe *probe
	err   error
}

type probe struct {
	Target
	id       id.Container
	due      time.Time
	index    int // in the heap; -1 while it waits for a slot or runs
	class    class
	slot     bool // true while it runs with a slot
	began    time.Time
	cancel   context.CancelFunc // of the running probe; nil if there is none
	removed  bool
	unknown  time.Time // the last Unknown verdict
	wait     time.Duration
	streak   int // results in a row that contradict the present state
	healthy  bool
	reported bool
	detail   string
}

// NewProber returns a Prober that calls report, from its one goroutine, with every change.
func NewProber(limits Limits, report func(Verdict)) *Prober {
	return &Prober{limits: limits, report: report, commands: make(chan command, 64), results: make(chan result)}
}

// NodeCheck is one sentence if probes cannot be made because the node has run out of something, such as file descriptors; empty
// otherwise.
func (p *Prober) NodeCheck(context.Context) string {
	if t := p.trouble.Load(); t != nil && time.Since(t.at) < shortageDuration {
		return "containers cannot be probed: " + t.reason
	}
	return ""
}

// Add starts to probe a container, at once. It replaces an earlier target.
func (p *Prober) Add(ctx context.Context, container id.Container, target Target) {
	p.send(ctx, command{container, &target})
}

// Remove ends the probes of a container. The verdict of a probe in progress may still be reported.
func (p *Prober) Remove(ctx context.Context, container id.Container) {
	p.send(ctx, command{container, nil})
}

func (p *Prober) send(ctx context.Context, c command) {
	select {
	case p.commands <- c:
	case <-ctx.Done():
	}
}

// Run probes until ctx ends, and returns after all probes have ended.
func (p *Prober) Run(ctx context.Context) {
	var (
		probes = map[id.Container]*probe{}
		queue  schedule
		slots  = newSlots(p.limits)
		timer  = time.NewTimer(time.Hour)
	)
	defer timer.Stop()
	for {
		now := time.Now()
		for len(queue) > 0 && !queue[0].due.After(now) {
			slots.wait(heap.Pop(&queue).(*probe))
		}
		slots.expire(now)
		for next := slots.next(now); next != nil; next = slots.next(now) {
			within, cancel := context.WithTimeoutCause(ctx, next.Timeout, errTimeout)
			next.cancel = cancel
			go p.check(within, next)
		}
		wake := slots.expire(now)
		if len(queue) > 0 && (wake.IsZero() || queue[0].due.Before(wake)) {
			wake = queue[0].due
		}
		timer.Stop()
		if !wake.IsZero() {
			timer.Reset(wake.Sub(now))
		}
		select {
		case <-ctx.Done():
			for ; slots.running > 0; slots.running-- {
				(<-p.results).probe.cancel()
			}
			return
		case c := <-p.commands:
			if old := probes[c.id]; old != nil {
				old.drop(&queue)
				delete(probes, c.id)
			}
			if c.target != nil {
				added := &probe{Target: *c.target, id: c.id, due: time.Now(), wait: firstInterval, healthy: c.target.WasHealthy, reported: c.target.WasHealthy}
				if added.Exec {
					added.class = execClass
				}
				probes[c.id] = added
				heap.Push(&queue, added)
			}
		case r := <-p.results:
			r.probe.cancel()
			r.probe.cancel = nil
			slots.done(r.probe)
			if r.probe.removed {
				continue
			}
			p.evaluate(r.probe, r.err)
			r.probe.due = time.Now().Add(r.probe.pause())
			heap.Push(&queue, r.probe)
		case <-timer.C:
		}
	}
}

// drop ends the probes of a container and cancels the running one.
func (of *probe) drop(queue *schedule) {
	of.removed = true
	if of.index >= 0 {
		heap.Remove(queue, of.index)
	}
	if of.cancel != nil {
		of.cancel()
	}
}

func (p *Prober) check(within context.Context, next *probe) {
	err := next.Check(within)
	if err != nil && errors.Is(context.Cause(within), errTimeout) && !errors.As(err, new(*shortage)) {
		err = errTimeout
	}
	p.results <- result{next, err}
}

var errTimeout = errors.New("no answer within the timeout")

func (p *Prober) evaluate(of *probe, err error) {
	if errors.Is(err, errdefs.ErrUnavailable) {
		p.unknown(of, err)
		return
	}
	detail := ""
	if err != nil {
		detail = err.Error()
	}
	passed := err == nil
	switch {
	case passed == of.healthy:
		of.streak = 0
	default:
		of.streak++
	}
	threshold := max(of.Healthy, 1)
	if of.healthy {
		threshold = max(of.Unhealthy, 1)
	}
	changed := of.streak >= threshold
	if changed {
		of.healthy, of.streak = passed, 0
	}
	// Before a container is healthy, each new reason is reported once.
	if changed || !of.healthy && detail != "" && detail != of.detail {
		of.detail = detail
		p.report(Verdict{ID: of.id, Healthy: of.healthy, Detail: detail})
	}
	of.reported = of.reported || of.healthy
}

// unknown handles a probe that could not be made.
func (p *Prober) unknown(of *probe, err error) {
	now := time.Now()
	var lacking *shortage
	if errors.As(err, &lacking) {
		p.trouble.Store(&probeTrouble{at: now, reason: lacking.Error()})
	}
	if now.Sub(of.unknown) >= unknownInterval {
		of.unknown = now
		p.report(Verdict{ID: of.id, Unknown: true})
	}
}

// pause is the time until the next probe: short until the container was healthy for the first time.
func (of *probe) pause() time.Duration {
	if of.reported || of.wait >= of.Interval {
		return of.Interval
	}
	wait := of.wait
	of.wait += of.wait / 2
	return wait
}

// schedule is a heap of probes by the time they are due.
type schedule []*probe

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].due.Before(s[j].due) }
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}

func (s *schedule) Push(x any) {
	added := x.(*probe)
	added.index = len(*s)
	*s = append(*s, added)
}

func (s *schedule) Pop() any {
	last := len(*s) - 1
	popped := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	popped.index = -1
	return popped
}
