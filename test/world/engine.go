package world

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	"github.com/mammoth-os/mammoth/nodemanager/node"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// engine runs the containers of a host. It outlives the NodeManager, and what it was asked for goes on without it.
type engine struct {
	host     *host
	programs map[id.Container]*program
	// down: it does not answer.
	down bool
	// life counts the losses of power: what was under way before is forgotten.
	life     int
	lastPort int
}

// program is a container as its engine has it.
type program struct {
	engine *engine
	key    id.Container
	lease  *corev1.Lease
	spec   *corev1.ContainerSpec
	// running: its process is there. exited: it was, and is not any more. Neither: it was never started.
	running, exited bool
	startedAt       time.Time
	ending          container.Ending
	port            int
	stopping        bool
	// healthy is what a probe of it finds. prober is who probes it.
	healthy bool
	prober  *nodeManager
	told    bool
	master  *master
}

// behaviour is what a program does, as its image says.
const behaviour = "BEHAVIOUR"

const (
	sound       = "sound"
	crashing    = "crashing"
	sick        = "sick"
	unpullable  = "unpullable"
	unstartable = "unstartable"
)

func (e *engine) sorted() []*program {
	return slices.SortedFunc(maps.Values(e.programs), func(a, b *program) int { return a.key.Compare(b.key) })
}

// later answers when the engine has done something, unless the machine has lost its power.
func (e *engine) later(d time.Duration, do func()) {
	life := e.life
	e.host.w.after(d, func() {
		if e.life == life {
			do()
		}
	})
}

// ofDocker reports whether a container is the engine's that can be down; the other one is the NodeManager's own.
func ofDocker(spec *corev1.ContainerSpec) bool {
	return spec.GetRuntime() != corev1.ContainerSpec_PROCESS
}

func (e *engine) prepare(h *node.Entry, fact func(container.Fact)) {
	w, spec := e.host.w, h.Spec
	d := w.between(5*time.Millisecond, 300*time.Millisecond)
	if w.chance(20) {
		d = w.between(time.Second, 20*time.Second)
	}
	e.later(d, func() {
		switch {
		case ofDocker(spec) && e.down:
			fact(container.Fact{Event: container.PrepareUnavailable, Detail: "docker does not answer"})
		case e.host.full:
			fact(container.Fact{Event: container.PrepareFailed, Detail: "no space left on device", NodeFault: true})
		case spec.GetEnv()[behaviour] == unpullable:
			fact(container.Fact{Event: container.PrepareFailed, Detail: "the image cannot be read"})
		default:
			fact(container.Fact{Event: container.Progress, Phase: "load"})
			fact(container.Fact{Event: container.Prepared})
		}
	})
}

func (e *engine) start(h *node.Entry, fact func(container.Fact)) {
	w, key, lease, spec := e.host.w, h.Core.ID, h.Lease, h.Spec
	e.later(w.between(10*time.Millisecond, 400*time.Millisecond), func() {
		switch {
		case ofDocker(spec) && e.down:
			fact(container.Fact{Event: container.StartUnavailable, Detail: "docker does not answer"})
			return
		case spec.GetEnv()[behaviour] == unstartable:
			fact(container.Fact{Event: container.StartFailed, Detail: "exec: no such file"})
			return
		}
		p := e.programs[key]
		if p == nil {
			e.lastPort++
			p = &program{engine: e, key: key, lease: lease, spec: spec, port: 20000 + e.lastPort%10000}
			e.programs[key] = p
		}
		if !p.running && !p.exited {
			p.begin()
		}
		w.laws.ran(p)
		if w.config.Plant == StartsTwice && w.chance(10) {
			e.twin(p)
		}
		if w.chance(50) {
			// The engine has done it, and its answer is lost.
			fact(container.Fact{Event: container.StartUnavailable, Detail: "the answer was lost"})
			return
		}
		if !p.running {
			fact(container.Fact{Event: container.Ended, Ending: p.ending})
		}
		fact(container.Fact{Event: container.Started, Process: p.seen()})
	})
}

// twin is a planted fault: the same container starts on another host too.
func (e *engine) twin(p *program) {
	for _, h := range e.host.w.hosts {
		if h != e.host && !h.off {
			twin := *p
			twin.engine = h.engine
			h.engine.programs[p.key] = &twin
			e.host.w.laws.ran(&twin)
			return
		}
	}
}

func (p *program) seen() container.Process {
	seen := container.Process{RuntimeID: "runtime of " + p.key.String(), StartedAt: p.startedAt}
	for _, port := range p.spec.GetPorts() {
		seen.Ports = append(seen.Ports, container.Port{Name: port.GetName(), Container: int(port.GetContainerPort()), Host: p.port})
	}
	return seen
}

// begin starts the process.
func (p *program) begin() {
	e, w := p.engine, p.engine.host.w
	p.running, p.startedAt = true, e.host.clock()
	w.trace("%s: %s runs %s", e.host.name, p.key, p.spec.GetLabels()["instance"])
	if p.lease.GetMaster() {
		p.master = newMaster(p)
		return
	}
	switch p.spec.GetEnv()[behaviour] {
	case crashing:
		e.later(w.between(10*time.Millisecond, 2*time.Second), func() { p.ended(container.Ending{Code: 1}, true) })
	case sick:
	default:
		e.later(w.between(50*time.Millisecond, 3*time.Second), func() { p.becomes(true) })
	}
}

// becomes is a change of what a probe finds; a prober sees it after some probes.
func (p *program) becomes(healthy bool) {
	p.healthy = healthy
	d := p.engine.host.w.between(10*time.Millisecond, time.Second)
	if !healthy {
		d += 2 * time.Second
	}
	p.engine.later(d, p.judge)
}

// judge tells the prober what it finds.
func (p *program) judge() {
	m := p.prober
	if m == nil || m.process.dead || !p.running || p.told == p.healthy {
		return
	}
	m.process.step(func() {
		p.told = p.healthy
		fact := container.Fact{Event: container.ProbeFailed, Detail: "GET /healthz: connection refused"}
		if p.healthy {
			fact = container.Fact{Event: container.ProbePassed}
		}
		m.do(func() { m.node.Fact(p.key, fact) })
	})
}

func (e *engine) probe(key id.Container, m *nodeManager) {
	p := e.programs[key]
	if p == nil {
		return
	}
	p.prober, p.told = m, !p.healthy
	if !p.healthy {
		p.told = false
		return
	}
	e.later(e.host.w.between(time.Millisecond, 100*time.Millisecond), p.judge)
}

func (e *engine) unprobe(key id.Container) {
	if p := e.programs[key]; p != nil {
		p.prober = nil
	}
}

// ended is the end of the process. The NodeManager hears of it, unless that is lost.
func (p *program) ended(ending container.Ending, heard bool) {
	if !p.running {
		return
	}
	e := p.engine
	p.running, p.exited, p.prober = false, true, nil
	ending.At = e.host.clock()
	p.ending = ending
	e.host.w.trace("%s: %s has ended with %d %s", e.host.name, p.key, ending.Code, ending.Signal)
	if p.master != nil {
		p.master.process.kill()
	}
	if !p.stopping {
		e.host.w.laws.failed(p)
	}
	if e.host.w.config.Plant == StartsAgain && p.master == nil && e.host.w.chance(4) {
		e.later(time.Second, p.again)
	}
	if !heard || e.down && ofDocker(p.spec) || e.host.w.chance(200) {
		return // the next comparison finds it
	}
	e.later(e.host.w.between(time.Millisecond, 20*time.Millisecond), func() {
		if m := e.host.manager; !m.process.dead {
			m.process.step(func() { m.ended(p.key, ending) })
		}
	})
}

// again is a planted fault: the engine starts it anew.
func (p *program) again() {
	anew := *p
	anew.exited = false
	p.engine.programs[p.key] = &anew
	anew.begin()
	p.engine.host.w.laws.ran(&anew)
}

func (e *engine) stop(key id.Container, grace time.Duration, fact func(container.Fact)) {
	w, p := e.host.w, e.programs[key]
	e.later(w.between(time.Millisecond, 20*time.Millisecond), func() {
		if p != nil && ofDocker(p.spec) && e.down {
			fact(container.Fact{Event: container.StopFailed, Detail: "docker does not answer"})
			return
		}
		if p == nil {
			p = e.programs[key] // a start was under way
		}
		if p == nil || !p.running {
			fact(container.Fact{Event: container.Stopped})
			return
		}
		d := grace
		if w.config.Plant == LateStops {
			d = 3 * time.Minute
		} else if !w.chance(10) {
			d = min(grace, w.between(10*time.Millisecond, 2*time.Second))
		}
		if w.config.Plant == GoneTooEarly && w.chance(4) {
			fact(container.Fact{Event: container.Ended, Ending: container.Ending{Code: 0, At: e.host.clock()}})
			d += 30 * time.Second
		}
		e.later(d, func() {
			p.ended(container.Ending{Code: 143, Signal: "SIGTERM"}, true)
			e.later(w.between(time.Millisecond, 10*time.Millisecond), func() { fact(container.Fact{Event: container.Stopped}) })
		})
	})
}

func (e *engine) remove(key id.Container, fact func(container.Fact)) {
	e.later(e.host.w.between(time.Millisecond, 50*time.Millisecond), func() {
		p := e.programs[key]
		switch {
		case p != nil && ofDocker(p.spec) && e.down:
			fact(container.Fact{Event: container.RemoveFailed, Detail: "docker does not answer"})
		case p != nil && p.running:
			fact(container.Fact{Event: container.RemoveRefused, Detail: "it runs"})
		default:
			delete(e.programs, key)
			fact(container.Fact{Event: container.Removed})
		}
	})
}

// list is all that an engine has.
func (e *engine) list(kind corev1.ContainerSpec_Runtime) []node.Listed {
	var all []node.Listed
	for _, p := range e.sorted() {
		if ofDocker(p.spec) != (kind == corev1.ContainerSpec_DOCKER) {
			continue
		}
		all = append(all, node.Listed{
			ID: p.key, AppName: p.lease.GetAppName(), Attempt: p.lease.GetAttempt(), Labels: p.spec.GetLabels(),
			Running: p.running, NeverRan: !p.running && !p.exited, Process: p.seen(), Ending: p.ending,
		})
	}
	return all
}

// goDown has the engine not answer for a while. Its programs may end with it.
func (e *engine) goDown(d time.Duration, withAll bool) {
	if e.down || e.host.off || e.host.forgetful {
		return
	}
	e.down = true
	if withAll {
		for _, p := range e.sorted() {
			if ofDocker(p.spec) {
				p.ended(container.Ending{Code: 137, EngineDown: true}, false)
			}
		}
	}
	e.host.looks()
	e.host.w.after(d, e.comeUp)
}

func (e *engine) comeUp() {
	if !e.down {
		return
	}
	e.down = false
	e.host.looks()
	if m := e.host.manager; !m.process.dead {
		m.process.after(e.host.w.between(10*time.Millisecond, time.Second), func() { m.compare(corev1.ContainerSpec_DOCKER, nil) })
	}
}

// looks has the NodeManager look at the node's health.
func (h *host) looks() {
	if m := h.manager; !m.process.dead {
		m.process.after(h.w.between(0, 2*time.Second), m.look)
	}
}

func (p *program) String() string { return fmt.Sprintf("%s on %s", p.key, p.engine.host.name) }
