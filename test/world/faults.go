package world

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/nodemanager/container"
)

// faults are what can fail.
func faults() []kind {
	return []kind{
		{"kill-resourcemanager", 3, func(w *World, random *rand.Rand) {
			back := lasting(random)
			w.fault("ResourceManager killed", back, "")
			w.killManager(back)
		}},
		{"kill-resourcemanager-telling", 3, func(w *World, random *rand.Rand) { w.manager.tells = 1 + random.IntN(20) }},
		{"kill-nodemanager", 4, func(w *World, random *rand.Rand) {
			h, back := pick(random, w.hosts), lasting(random)
			w.fault("NodeManager killed", back, "%s", h.name)
			h.killManager()
			w.after(back, h.startManager)
		}},
		{"kill-master", 4, func(w *World, random *rand.Rand) {
			w.end(random, true, container.Ending{Code: 137, Signal: "SIGKILL"}, "master killed")
		}},
		{"kill-between-steps", 6, func(w *World, random *rand.Rand) {
			steps, back := 1+random.IntN(60), lasting(random)
			h := pick(random, w.hosts)
			switch random.IntN(3) {
			case 0:
				w.manager.process.dies, w.manager.process.doom = steps, func() {
					w.fault("ResourceManager killed between steps", back, "")
					w.killManager(back)
				}
			case 1:
				h.manager.process.dies, h.manager.process.doom = steps, func() {
					w.fault("NodeManager killed between steps", back, "%s", h.name)
					h.killManager()
					w.after(back, h.startManager)
				}
			default:
				if p := w.pickProgram(random, true); p != nil {
					p.master.process.dies, p.master.process.doom = steps, func() {
						w.fault("master killed between steps", 0, "%s", p)
						p.ended(container.Ending{Code: 137, Signal: "SIGKILL"}, true)
					}
				}
			}
		}},
		{"lose-node-records", 1, func(w *World, random *rand.Rand) {
			h, back := pick(random, w.hosts), lasting(random)
			w.fault("node's records lost", back+nodeTimeout, "%s", h.name)
			h.killManager()
			clear(h.records)
			h.folders++
			// Without records and without its engine a node says that it has nothing.
			h.engine.comeUp()
			h.forgetful = true
			w.after(back, h.startManager)
		}},
		{"crash-instance", 4, func(w *World, random *rand.Rand) {
			w.end(random, false, container.Ending{Code: 1}, "instance crashed")
		}},
		{"sicken-instance", 3, func(w *World, random *rand.Rand) {
			if p := w.pickProgram(random, false); p != nil && p.healthy {
				d := lasting(random)
				w.fault("instance sick", d, "%s", p)
				p.becomes(false)
				p.engine.later(d, func() { p.becomes(true) })
			}
		}},
		{"crash-machine", 1, func(w *World, random *rand.Rand) {
			h, back := pick(random, w.hosts), lasting(random)
			w.fault("machine without power", back, "%s", h.name)
			h.crash()
			w.after(back, h.powerUp)
		}},
		{"cut", 4, func(w *World, random *rand.Rand) {
			from, to, d := pick(random, w.machines()), pick(random, w.machines()), lasting(random)
			if from == to {
				return
			}
			w.fault("cut one way", d, "%s to %s", from, to)
			w.network.cutOff(from, to, d)
			if random.IntN(2) == 0 {
				w.network.cutOff(to, from, d)
			}
		}},
		{"isolate", 2, func(w *World, random *rand.Rand) {
			apart, d := pick(random, w.machines()), lasting(random)
			w.fault("machine isolated", d, "%s", apart)
			for _, other := range w.machines() {
				if other != apart {
					w.network.cutOff(apart, other, d)
					w.network.cutOff(other, apart, d)
				}
			}
		}},
		{"slow", 2, func(w *World, random *rand.Rand) {
			way := direction{pick(random, w.machines()), pick(random, w.machines())}
			d := lasting(random)
			w.fault("network slow", d, "%s to %s", way.from, way.to)
			w.network.slow[way] = time.Duration(random.Int64N(int64(3 * time.Second)))
			w.after(d, func() { delete(w.network.slow, way) })
		}},
		{"pause", 3, func(w *World, random *rand.Rand) {
			p, d := w.manager.process, lasting(random)
			if random.IntN(3) > 0 {
				p = pick(random, w.hosts).manager.process
			}
			if random.IntN(3) == 0 {
				if master := w.pickProgram(random, true); master != nil {
					p = master.master.process
				}
			}
			if !p.dead {
				w.fault("process paused", d, "%s", p.name)
				p.pause(d)
			}
		}},
		{"fill-store", 1, func(w *World, random *rand.Rand) {
			d := lasting(random)
			w.fault("store's disk full", d, "")
			w.roomChanged(true)
			w.after(d, func() { w.roomChanged(false) })
		}},
		{"fill-node", 2, func(w *World, random *rand.Rand) {
			h, d := pick(random, w.hosts), lasting(random)
			w.fault("node's disk full", d, "%s", h.name)
			h.full = true
			h.looks()
			w.after(d, func() {
				h.full = false
				h.looks()
			})
		}},
		{"skew", 2, func(w *World, random *rand.Rand) {
			h := pick(random, w.hosts)
			h.skew = time.Duration(random.Int64N(int64(80*time.Second))) - 40*time.Second
			w.fault("clock skewed", 0, "%s by %s", h.name, h.skew)
		}},
		{"stop-engine", 2, func(w *World, random *rand.Rand) {
			h, d := pick(random, w.hosts), lasting(random)
			w.fault("engine away", d, "%s", h.name)
			h.engine.goDown(d, random.IntN(3) == 0)
		}},
		{"kill-balancer", 1, func(w *World, random *rand.Rand) {
			if len(w.balancers) == 0 {
				return
			}
			b, back := pick(random, w.balancers), lasting(random)
			w.fault("balancer killed", back, "%s", b.name)
			b.kill()
			w.after(back, func() {
				if b.process.dead {
					b.run()
				}
			})
		}},
	}
}

// machines are all by name.
func (w *World) machines() []string {
	names := []string{managerMachine, managerMachine, peopleMachine}
	for _, h := range w.hosts {
		names = append(names, h.name, h.name)
	}
	for _, b := range w.balancers {
		names = append(names, b.name)
	}
	return names
}

// pickProgram is a process that runs: a master's or an instance's; nil if there is none.
func (w *World) pickProgram(random *rand.Rand, masters bool) *program {
	var all []*program
	for _, h := range w.hosts {
		for _, p := range h.engine.sorted() {
			if p.running && (p.master != nil) == masters {
				all = append(all, p)
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	return pick(random, all)
}

func (w *World) end(random *rand.Rand, masters bool, ending container.Ending, kind string) {
	if p := w.pickProgram(random, masters); p != nil {
		w.fault(kind, 0, "%s", p)
		p.ended(ending, true)
	}
}

// calm ends every fault, and has people want what fits.
func (w *World) calm() {
	w.trace("CALM")
	w.laws.handBacks()
	w.network.joinAll()
	w.roomChanged(false)
	w.manager.tells, w.manager.process.dies = 0, 0
	w.manager.process.resume()
	if w.manager.process.dead {
		w.startManager()
	}
	for _, h := range w.hosts {
		h.full, h.skew = false, 0
		h.engine.comeUp()
		if h.off {
			h.powerUp()
		}
		h.startManager()
		h.manager.process.resume()
		h.manager.process.dies = 0
		h.looks()
		for _, p := range h.engine.sorted() {
			if p.master != nil {
				p.master.process.resume()
				p.master.process.dies = 0
			}
			if p.running && p.spec.GetEnv()[behaviour] == sound && !p.healthy {
				p.becomes(true)
			}
		}
	}
	for _, b := range w.balancers {
		if b.process.dead {
			b.run()
		}
	}
	w.people.settle()
	w.troubles = slices.DeleteFunc(w.troubles, func(s span) bool { return s.to.Before(w.now.Add(-2 * w.config.cycle())) })
	for i := range w.troubles {
		if w.troubles[i].to.After(w.now) {
			w.troubles[i].to = w.now
		}
	}
}
