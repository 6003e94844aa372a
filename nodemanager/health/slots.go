package health

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// holds is how long a probe occupies its slot. A longer one continues without it.
const holds = time.Second

// Limits are how many probes run at the same time.
type Limits struct {
	// Plain is the number of slots for probes that only connect, Exec for those that run a command.
	Plain, Exec int
	// Total is how many probes may run, with and without a slot: each needs a file descriptor.
	Total int
}

// slots decides which of the due probes may run. A container has one probe at a time. An app has at most as many slots as
// are left for other apps, so that hanging probes never take all.
type slots struct {
	limits  Limits
	taken   [classes]int
	running int
	apps    map[id.App]*share
	// waiting are the apps with due probes that may not run yet, the next one first.
	waiting []*share
	// held are the probes with a slot, oldest first, and some that have freed theirs.
	held []*probe
}

type share struct {
	app     id.App
	taken   [classes]int
	running int
	waiting []*probe
}

// class is a kind of probe with slots of its own.
type class uint8

const (
	plainClass class = iota
	execClass

	classes = 2
)

func newSlots(limits Limits) *slots {
	return &slots{limits: limits, apps: map[id.App]*share{}}
}

// wait queues a due probe behind those of its app.
func (s *slots) wait(p *probe) {
	app := s.apps[p.id.App]
	if app == nil {
		app = &share{app: p.id.App}
		s.apps[p.id.App] = app
	}
	if app.waiting = append(app.waiting, p); len(app.waiting) == 1 {
		s.waiting = append(s.waiting, app)
	}
}

// next returns a probe that may run, of each app in turn; nil if there is none.
func (s *slots) next(now time.Time) *probe {
	for i, app := range s.waiting {
		at := slices.IndexFunc(app.waiting, func(p *probe) bool { return p.removed || s.may(app, p.class) })
		if at < 0 {
			continue
		}
		p := app.waiting[at]
		app.waiting = slices.Delete(app.waiting, at, at+1)
		s.waiting = slices.Delete(s.waiting, i, i+1)
		if len(app.waiting) > 0 {
			s.waiting = append(s.waiting, app)
		}
		if p.removed {
			s.drop(app)
			return s.next(now)
		}
		s.take(app, p, now)
		return p
	}
	return nil
}

func (s *slots) may(app *share, of class) bool {
	most := s.limits.Plain
	if of == execClass {
		most = s.limits.Exec
	}
	return app.taken[of] < most-s.taken[of] && app.running < s.limits.Total-s.running
}

func (s *slots) take(app *share, p *probe, now time.Time) {
	p.slot, p.began = true, now
	s.taken[p.class]++
	app.taken[p.class]++
	s.running++
	app.running++
	s.held = append(s.held, p)
}

// giveBack frees the slot of a probe, if it has one.
func (s *slots) giveBack(p *probe) {
	if !p.slot {
		return
	}
	p.slot = false
	s.taken[p.class]--
	s.apps[p.id.App].taken[p.class]--
}

// done records the end of a probe.
func (s *slots) done(p *probe) {
	s.giveBack(p)
	app := s.apps[p.id.App]
	s.running--
	app.running--
	s.drop(app)
}

func (s *slots) drop(app *share) {
	if app.running == 0 && len(app.waiting) == 0 {
		delete(s.apps, app.app)
	}
}

// expire frees the slots that were occupied for long enough, and returns when the next one is to be freed; zero if there is
// none.
func (s *slots) expire(now time.Time) time.Time {
	for len(s.held) > 0 {
		p := s.held[0]
		if p.slot {
			until := p.began.Add(holds)
			if until.After(now) {
				return until
			}
			s.giveBack(p)
		}
		s.held[0] = nil
		s.held = s.held[1:]
	}
	return time.Time{}
}
