package world

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
)

// message is what is sent over the network. body may be nil; value is what is no message of a protocol.
type message struct {
	// method says what it is about, credential who sends it.
	method, credential string
	body               proto.Message
	value              any
	// call is the call that it belongs to, if any; again says that this copy of it is the second one.
	call  *call
	again bool
}

// server takes calls and streams. answer may be called later, once.
type server interface {
	call(m message, answer func(message, error))
	accept(m message, s *side)
}

// network carries messages between machines. A direction between two of them can be cut or slow. A call may arrive twice, as it does
// when a client repeats it over a new connection, and what it sent over the one before is read late. What is sent in a stream arrives
// once and in its order, or not at all: gRPC over TCP guarantees that, and nobody repeats what was sent in a stream that is over.
type network struct {
	w       *World
	servers map[string]listener
	cuts    map[direction]*cut
	slow    map[direction]time.Duration
	// pairs are the open connections, oldest first.
	pairs []*side
}

type listener struct {
	process *process
	server  server
}

type direction struct{ from, to string }

// cut is a direction in which nothing comes through.
type cut struct {
	since   time.Time
	times   int
	waiting []func()
}

var (
	errUnavailable = fmt.Errorf("the connection was lost: %w", errdefs.ErrUnavailable)
	errDeadline    = fmt.Errorf("no answer in time: %w", errdefs.ErrUnavailable)
	errOver        = fmt.Errorf("the stream is over: %w", errdefs.ErrAborted)
)

func newNetwork(w *World) *network {
	return &network{w: w, servers: map[string]listener{}, cuts: map[direction]*cut{}, slow: map[direction]time.Duration{}}
}

// listen serves an address, MACHINE:PORT.
func (n *network) listen(address string, p *process, s server) { n.servers[address] = listener{p, s} }

// isCut reports whether nothing comes through in a direction.
func (n *network) isCut(from, to string) bool {
	return from != to && n.cuts[direction{from, to}] != nil
}

// cutOff cuts a direction for a while.
func (n *network) cutOff(from, to string, d time.Duration) {
	at := direction{from, to}
	c := n.cuts[at]
	if c == nil {
		c = &cut{since: n.w.now}
		n.cuts[at] = c
		n.giveUp(at, c)
	}
	c.times++
	n.w.after(d, func() { n.join(at, c) })
}

// join ends a cut once nobody wants it any more.
func (n *network) join(at direction, c *cut) {
	if c.times--; c.times > 0 || n.cuts[at] != c {
		return
	}
	delete(n.cuts, at)
	for _, do := range c.waiting {
		n.w.after(n.delay(at.from, at.to), do)
	}
}

// joinAll ends every cut, and makes everything fast again.
func (n *network) joinAll() {
	clear(n.slow)
	for _, at := range n.directions() {
		n.cuts[at].times = 1
		n.join(at, n.cuts[at])
	}
}

func (n *network) directions() []direction {
	var all []direction
	for at := range n.cuts {
		all = append(all, at)
	}
	slices.SortFunc(all, func(a, b direction) int {
		return strings.Compare(a.from+">"+a.to, b.from+">"+b.to)
	})
	return all
}

// giveUp has both ends of connections over a cut notice it: a server after a keepalive, a client as soon as what it sends is not
// acknowledged, or after a keepalive of its own, which is long.
func (n *network) giveUp(at direction, c *cut) {
	still := func() bool { return n.cuts[at] == c }
	across := func(s *side) bool {
		from, to := s.machine, s.peer.machine
		return from == at.from && to == at.to || from == at.to && to == at.from
	}
	for _, after := range []struct {
		d       time.Duration
		clients bool
		patient bool
	}{{20 * time.Second, true, false}, {40 * time.Second, false, false}, {keepalive, true, true}} {
		n.w.after(after.d, func() {
			if !still() {
				return
			}
			for _, s := range slices.Clone(n.pairs) {
				end := s
				if !after.clients {
					end = s.peer
				}
				if across(s) && (after.patient || !after.clients || !s.silent) {
					end.giveUp()
				}
			}
		})
	}
}

func (n *network) delay(from, to string) time.Duration {
	if from == to {
		return n.w.between(20*time.Microsecond, 200*time.Microsecond)
	}
	d := n.w.between(100*time.Microsecond, 2*time.Millisecond)
	if n.w.chance(50) {
		d += n.w.between(10*time.Millisecond, 500*time.Millisecond)
	}
	return d + n.slow[direction{from, to}]
}

// carry brings something to another machine. Over a cut it comes when the cut has ended, or never.
func (n *network) carry(from, to string, arrive func()) {
	var try func()
	try = func() {
		if !n.isCut(from, to) {
			arrive()
			return
		}
		if n.w.chance(2) {
			c := n.cuts[direction{from, to}]
			c.waiting = append(c.waiting, try)
		}
	}
	n.w.after(n.delay(from, to), try)
}

// pack is a message as its receiver will read it. What its sender does with it afterwards does not change it.
func (n *network) pack(m message) message {
	n.w.result.Messages++
	_, _ = io.WriteString(n.w.sent, m.method)
	if o, ok := m.value.(order); ok {
		m.value = o.copied()
	}
	if text, ok := m.value.(fmt.Stringer); ok {
		_, _ = io.WriteString(n.w.sent, text.String())
	}
	if m.body == nil {
		return m
	}
	raw := marshal(m.body)
	_, _ = n.w.sent.Write(raw)
	read := m.body.ProtoReflect().New().Interface()
	unmarshal(raw, read)
	m.body = read
	return m
}

// call is a call, of which one or two copies are on their way. The first answer to any of them counts.
type call struct {
	n    *network
	from *process
	over bool
	done func(message, error)
	// open is how many copies may still be done; closed is done once none may any more, and may be nil.
	open   int
	closed func()
}

// arrival is a copy of a call at its server.
type arrival struct {
	*call
	to     *process
	served bool
}

func (c *call) answer(m message, err error) {
	if c.over || c.from.dead {
		return
	}
	c.over = true
	c.from.step(func() { c.done(m, err) })
}

// settle notes that a copy was done, or will not be done any more.
func (c *call) settle() {
	if c.open--; c.open == 0 && c.closed != nil {
		c.closed()
	}
}

// reset is about a server that has ended with the call.
func (a *arrival) reset() {
	if a.served {
		return
	}
	a.served = true
	a.settle()
	a.n.carry(a.to.machine, a.from.machine, func() { a.answer(message{}, errUnavailable) })
}

// late is how much later the second copy of a call may come.
const late = 10 * time.Second

// call asks a server. It is answered once: by the server, with errUnavailable, or with errDeadline. After either of these two the
// server may have done what it was asked for, or may still do it; and after any answer it may still do it again.
func (p *process) call(address string, within time.Duration, m message, done func(message, error)) *call {
	n := p.w.network
	c := &call{n: n, from: p, done: done, open: 1}
	p.after(within, func() { c.answer(message{}, errDeadline) })
	first := n.pack(m)
	first.call = c
	n.deliver(c, address, first)
	if n.w.chance(10) {
		c.open++
		n.w.result.Doubled++
		second := n.pack(m)
		second.call, second.again = c, true
		d := n.w.between(0, pick(n.w.random, []time.Duration{5 * time.Millisecond, time.Second, late}))
		n.w.after(d, func() { n.deliver(c, address, second) })
	}
	return c
}

// deliver brings one copy of a call to its server.
func (n *network) deliver(c *call, address string, m message) {
	p := c.from
	machine, _, _ := strings.Cut(address, ":")
	n.carry(p.machine, machine, func() {
		l, ok := n.servers[address]
		if !ok || l.process.dead {
			c.settle()
			n.carry(machine, p.machine, func() { c.answer(message{}, errUnavailable) })
			return
		}
		a := &arrival{call: c, to: l.process}
		l.process.called = append(slices.DeleteFunc(l.process.called, func(a *arrival) bool { return a.served }), a)
		l.process.step(func() {
			if m.again {
				n.w.trace("%s from %s arrives again", m.method, p.name)
			}
			l.server.call(m, func(answer message, err error) {
				if a.served || l.process.dead {
					return
				}
				a.served = true
				a.settle()
				answer = n.pack(answer)
				n.carry(machine, p.machine, func() { c.answer(answer, err) })
			})
		})
	})
}

// side is one end of a stream, in which nothing overtakes.
type side struct {
	w       *World
	machine string
	peer    *side
	// process is nil until the server has accepted the stream.
	process *process
	// queue is on the way to this side; last is when the newest of it arrives.
	queue []packet
	last  time.Time
	over  bool
	// gone: it was given up, without a word to the other side.
	gone bool
	// silent: its client does not notice for long that it is cut off.
	silent bool
	heard  func(message)
	ended  func(error)
}

type packet struct {
	at time.Time
	m  message
	// end is set in the last one.
	end bool
	err error
}

// dial opens a stream with its first message.
func (p *process) dial(address string, m message, heard func(message), ended func(error)) *side {
	n := p.w.network
	machine, _, _ := strings.Cut(address, ":")
	client := &side{w: p.w, machine: p.machine, process: p, heard: heard, ended: ended, silent: m.method != "Session" && p.w.chance(3)}
	served := &side{w: p.w, machine: machine, peer: client}
	client.peer = served
	p.sides = append(p.sides, client)
	n.pairs = append(slices.DeleteFunc(n.pairs, func(s *side) bool { return s.over && s.peer.over }), client)
	m = n.pack(m)
	p.after(20*time.Second, func() {
		if served.process == nil {
			served.over = true
			client.finish(errUnavailable)
		}
	})
	n.carry(p.machine, machine, func() {
		l, ok := n.servers[address]
		switch {
		case served.over:
		case client.over || !ok || l.process.dead:
			served.over = true
			n.carry(machine, p.machine, func() { client.finish(errUnavailable) })
		default:
			served.process = l.process
			l.process.sides = append(l.process.sides, served)
			l.process.step(func() {
				l.server.accept(m, served)
				served.pump()
			})
		}
	})
	return client
}

// send says something to the other side. What is said after the end is lost.
func (s *side) send(m message) {
	if s.over {
		return
	}
	s.push(packet{m: s.w.network.pack(m)})
	if s.peer.gone {
		s.w.after(s.w.network.delay(s.machine, s.peer.machine), s.unanswered)
	}
}

// close ends the stream; the other side learns why once it has read what was sent before.
func (s *side) close(why error) {
	if s.over {
		return
	}
	s.over = true
	s.push(packet{end: true, err: why})
	s.process.forget(s)
}

// reset is close by the machine of a process that has ended.
func (s *side) reset() {
	if s.over {
		return
	}
	s.over = true
	if to := s.peer; len(to.queue) > 0 && s.w.chance(2) {
		to.queue = to.queue[:s.w.random.IntN(len(to.queue))]
	}
	s.push(packet{end: true, err: errUnavailable})
}

func (s *side) push(p packet) {
	to := s.peer
	p.at = s.w.now.Add(s.w.network.delay(s.machine, to.machine))
	if p.at.Before(to.last) {
		p.at = to.last
	}
	to.last = p.at
	to.queue = append(to.queue, p)
	s.w.at(p.at, to.pump)
}

// pump takes what has arrived.
func (s *side) pump() {
	w := s.w
	for len(s.queue) > 0 && !s.over && s.process != nil && !s.process.dead {
		next := s.queue[0]
		if next.at.After(w.now) {
			return
		}
		if s.process.paused {
			s.process.step(s.pump)
			return
		}
		if from, to := s.peer.machine, s.machine; w.network.isCut(from, to) {
			c := w.network.cuts[direction{from, to}]
			c.waiting = append(c.waiting, s.pump)
			return
		}
		s.queue = s.queue[1:]
		if next.end {
			s.finish(next.err)
			return
		}
		s.heard(next.m)
	}
}

// finish is the end of the stream as this side sees it.
func (s *side) finish(why error) {
	if s.over || s.process == nil || s.process.dead {
		return
	}
	s.over = true
	s.process.forget(s)
	if s.ended != nil {
		s.process.step(func() { s.ended(why) })
	}
}

// giveUp is the end of a stream whose other side is not heard of any more. That one learns it when the cut has ended: from the machine of
// this one, or when its own keepalive is not answered.
func (s *side) giveUp() {
	if s.over || s.process == nil || s.process.dead {
		return
	}
	s.finish(errUnavailable)
	s.gone = true
	if s.w.chance(2) {
		s.push(packet{end: true, err: errUnavailable})
		return
	}
	s.w.after(keepalive, s.peer.unanswered)
}

// keepalive is after how long a client that hears nothing looks whether its server is there.
const keepalive = 380 * time.Second

// unanswered is a keepalive, or a message, that the other side's machine knows no stream for.
func (s *side) unanswered() {
	if s.over || s.process == nil {
		return
	}
	if s.w.network.isCut(s.machine, s.peer.machine) || s.w.network.isCut(s.peer.machine, s.machine) {
		s.w.after(20*time.Second, s.unanswered)
		return
	}
	s.finish(errUnavailable)
}

// forget lets go of a stream that is over.
func (p *process) forget(s *side) {
	p.sides = slices.DeleteFunc(p.sides, func(other *side) bool { return other == s })
}
