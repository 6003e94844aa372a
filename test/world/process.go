package world

import "time"

// process is one run of a program on a machine. What it has under way ends with it.
type process struct {
	w       *World
	machine string
	name    string
	dead    bool
	// pausedUntil: it is stopped, as by a debugger or a machine that is moved, and then goes on as if nothing had been.
	pausedSince, pausedUntil time.Time
	sides                    []*side
	// called are the calls to it that it has not answered.
	called []*call
}

func (w *World) newProcess(machine, name string) *process {
	return &process{w: w, machine: machine, name: name}
}

// after has something done by the process, unless it has ended by then.
func (p *process) after(d time.Duration, do func()) { p.w.after(d, func() { p.step(do) }) }

func (p *process) step(do func()) {
	switch {
	case p.dead:
	case p.w.now.Before(p.pausedUntil):
		p.w.at(p.pausedUntil, func() { p.step(do) })
	default:
		do()
	}
}

// alive is when the process could last say something.
func (p *process) alive() time.Time {
	if p.w.now.Before(p.pausedUntil) {
		return p.pausedSince
	}
	return p.w.now
}

func (p *process) pause(d time.Duration) {
	p.pausedSince, p.pausedUntil = p.w.now, p.w.now.Add(d)
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
	for _, c := range p.called {
		c.reset()
	}
	p.sides, p.called = nil, nil
}
