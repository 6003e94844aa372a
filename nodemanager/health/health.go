// Package health probes containers and watches over the node. One goroutine keeps the time for all probes; a
// probe has a goroutine only while it runs.
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

// Check probes once, and ends with its context. An error is one sentence. errdefs.ErrUnavailable means that nothing was learned,
// for example because the node has no file descriptors left: the result does not count.
type Check func(ctx context.Context) error

// Target is what is probed and how.
type Target struct {
	Check Check
	// Exec: it runs a command, which costs more than a connection.
	Exec     bool
	Interval time.Duration
	Timeout  time.Duration
	// Healthy and Unhealthy are how many verdicts in a row it takes.
	Healthy   int
	Unhealthy int
	// WasHealthy: it is known to be healthy, and is probed at its interval from the start.
	WasHealthy bool
}

// Verdict is the health of a container. A verdict is sent when it changes.
type Verdict struct {
	ID      id.Container
	Healthy bool
	// Unknown: nothing can be learned, and the health before stands. It is sent every unknownEvery while that lasts.
	Unknown bool
	// Detail is the last failure, one sentence.
	Detail string
}

const (
	// firstInterval is the time between the first probes of a container that is yet to become healthy; it grows
	// by half each time, up to the target's interval.
	firstInterval = 20 * time.Millisecond
	// unknownEvery is the time between two verdicts that nothing can be learned of a container.
	unknownEvery = time.Second
	// troubleFor is how long Sign reports that probes could not be made, after the last such probe.
	troubleFor = 10 * time.Second
)

// Prober probes any number of containers.
type Prober struct {
	limits   Limits
	tell     func(Verdict)
	commands chan command
	results  chan result
	trouble  atomic.Pointer[trouble]
}

// trouble is why a probe could not be made, and when that was last so.
type trouble struct {
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
	id      id.Container
	due     time.Time
	index   int // in the heap; -1 while it waits for a slot or runs
	class   class
	slot    bool // it runs, and has a slot
	began   time.Time
	cancel  context.CancelFunc // of the one that runs; nil for none
	gone    bool
	unknown time.Time // when it was last told that nothing could be learned
	wait    time.Duration
	row     int // verdicts in a row that speak against the present state
	healthy bool
	told    bool
	detail  string
}

// NewProber is a prober that calls tell, from its one goroutine, with every change.
func NewProber(limits Limits, tell func(Verdict)) *Prober {
	return &Prober{limits: limits, tell: tell, commands: make(chan command, 64), results: make(chan result)}
}

// Sign is one sentence if probes cannot be made because the node lacks something, as file descriptors; empty otherwise.
func (p *Prober) Sign(context.Context) string {
	if t := p.trouble.Load(); t != nil && time.Since(t.at) < troubleFor {
		return "containers cannot be probed: " + t.reason
	}
	return ""
}

// Add begins to probe a container, at once. A target that it had before is replaced.
func (p *Prober) Add(ctx context.Context, container id.Container, target Target) {
	p.send(ctx, command{container, &target})
}

// Remove ends the probing of a container. A verdict of a probe that is under way may still be told.
func (p *Prober) Remove(ctx context.Context, container id.Container) {
	p.send(ctx, command{container, nil})
}

func (p *Prober) send(ctx context.Context, c command) {
	select {
	case p.commands <- c:
	case <-ctx.Done():
	}
}

// Run probes until ctx ends, and returns once no probe runs any more.
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
			go p.look(within, next)
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
				added := &probe{Target: *c.target, id: c.id, due: time.Now(), wait: firstInterval, healthy: c.target.WasHealthy, told: c.target.WasHealthy}
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
			if r.probe.gone {
				continue
			}
			p.judge(r.probe, r.err)
			r.probe.due = time.Now().Add(r.probe.pause())
			heap.Push(&queue, r.probe)
		case <-timer.C:
		}
	}
}

// drop ends the probing of a container; what runs of it is hurried.
func (of *probe) drop(queue *schedule) {
	of.gone = true
	if of.index >= 0 {
		heap.Remove(queue, of.index)
	}
	if of.cancel != nil {
		of.cancel()
	}
}

func (p *Prober) look(within context.Context, next *probe) {
	err := next.Check(within)
	if err != nil && errors.Is(context.Cause(within), errTimeout) && !errors.As(err, new(*lack)) {
		err = errTimeout
	}
	p.results <- result{next, err}
}

var errTimeout = errors.New("no answer within the timeout")

func (p *Prober) judge(of *probe, err error) {
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
		of.row = 0
	default:
		of.row++
	}
	threshold := max(of.Healthy, 1)
	if of.healthy {
		threshold = max(of.Unhealthy, 1)
	}
	changed := of.row >= threshold
	if changed {
		of.healthy, of.row = passed, 0
	}
	// A container that is yet to become healthy tells why it is not, once for each reason.
	if changed || !of.healthy && detail != "" && detail != of.detail {
		of.detail = detail
		p.tell(Verdict{ID: of.id, Healthy: of.healthy, Detail: detail})
	}
	of.told = of.told || of.healthy
}

// unknown is about a probe that has learned nothing.
func (p *Prober) unknown(of *probe, err error) {
	now := time.Now()
	var lacking *lack
	if errors.As(err, &lacking) {
		p.trouble.Store(&trouble{at: now, reason: lacking.Error()})
	}
	if now.Sub(of.unknown) >= unknownEvery {
		of.unknown = now
		p.tell(Verdict{ID: of.id, Unknown: true})
	}
}

// pause is the time until the next probe: short until it was healthy for the first time.
func (of *probe) pause() time.Duration {
	if of.told || of.wait >= of.Interval {
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
