package world

import "time"

// process is one run of a program on a machine. What it has under way ends with it.
type process struct {
	w       *World
	machine string
	name    string
	dead    bool
	// paused: it stands still, as while its machine is moved, and then goes on as if nothing had been.
	paused bool
	// pausedSince is when that began, pauses how often it was; missed is what is to be done when it goes on.
	pausedSince time.Time
	pauses      int
	missed      []func()
	sides       []*side
	// dies is after how many more steps doom comes; zero is never.
	dies int
	doom func()
	// called are the calls to it that it has not answered.
	called []*arrival
}

func (w *World) newProcess(machine, name string) *process {
	return &process{w: w, machine: machine, name: name}
}

// after has something done by the process, unless it has ended by then.
func (p *process) after(d time.Duration, do func()) { p.w.after(d, func() { p.step(do) }) }

func (p *process) step(do func()) {
	switch {
	case p.dead:
	case p.paused:
		p.missed = append(p.missed, do)
	case p.dies == 1:
		p.dies = 0
		p.doom()
	default:
		p.dies = max(0, p.dies-1)
		do()
	}
}

// alive is when the process could last say something.
func (p *process) alive() time.Time {
	if p.paused {
		return p.pausedSince
	}
	return p.w.now
}

// pause has the process stand still for a while.
func (p *process) pause(d time.Duration) {
	if p.paused {
		return
	}
	p.paused, p.pausedSince = true, p.w.now
	p.pauses++
	pauses := p.pauses
	p.w.after(d, func() {
		if p.pauses == pauses {
			p.resume()
		}
	})
}

// resume has the process go on.
func (p *process) resume() {
	if !p.paused {
		return
	}
	p.paused = false
	missed := p.missed
	p.missed = nil
	for _, do := range missed {
		p.after(0, do)
	}
}

// kill ends the process at once. Its connections are reset by its machine: what it sent last may be lost with them.
func (p *process) kill() {
	if p.dead {
		return
	}
	p.dead = true
	for _, s := range p.sides {
		s.reset()
	}
	for _, a := range p.called {
		a.reset()
	}
	p.sides, p.called = nil, nil
}
