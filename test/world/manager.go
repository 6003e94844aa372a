package world

import (
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/peer"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/recording"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/commands"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/keys"
)

const (
	managerMachine = "rm"
	managerAddress = "rm:7070"
	reportInterval = time.Second
	nodeTimeout    = 10 * time.Second
)

// root is who does everything in a world: who may do what is not looked at.
var root = peer.User{Name: "root", Operator: true}

// manager is one run of the ResourceManager: the shell of a zone, with the steps of package resourcemanager in the same order.
type manager struct {
	w       *World
	process *process
	core    *zone.Core
	// record is nil if nothing is recorded.
	record  *recording.Writer
	inbox   []task
	replies []func()
	// storing is the turn that is on its way to the disk; unstored one that a full disk did not take, which is tried again at retryAt.
	storing, unstored *zone.Ready
	retryAt           time.Time
	// due is when the next round is to be.
	due     time.Time
	nodes   map[zone.StreamID]*nodeSession
	masters map[zone.StreamID]*masterSession
	last    zone.StreamID
	// calls are those who wait for the answer to a command.
	calls    map[commands.CallID]func(any, error)
	lastCall commands.CallID
	registry *publisher
	// full says that the zone was told that the disk is full.
	full bool
	// open is set once it serves.
	open bool
	// tells is after how many more things that it tells it is killed; zero is never.
	tells int
	// replaced are streams that a planted fault goes on answering on.
	replaced []*masterSession
}

// task is an input, with what is done just before it and once it is stored.
type task struct {
	in     zone.Input
	before func() zone.Input
	done   func(any, error)
	// call is what it came with, if it did, and again says that it is the second copy of that.
	call  *call
	again bool
}

// nodeSession is the stream of a node. Reports are taken one after the other.
type nodeSession struct {
	name    string
	side    *side
	reports []*trackerv1.NodeReport
	busy    bool
	heardAt time.Time
}

type masterSession struct {
	side   *side
	bearer string
}

func (w *World) startManager() {
	m := &manager{
		w: w, process: w.newProcess(managerMachine, "the ResourceManager"),
		nodes: map[zone.StreamID]*nodeSession{}, masters: map[zone.StreamID]*masterSession{},
		calls: map[commands.CallID]func(any, error){},
	}
	stored := w.disk.open(w.now, w.config.Plant == EpochStands)
	m.registry = newPublisher(m, stored.identity.Epoch)
	w.manager = m
	w.trace("the ResourceManager starts")
	load := zone.Load
	if w.config.Record != nil {
		m.record = recording.NewWriter(w.config.Record(), 1<<30)
		load = m.record.Load
	}
	core, out, err := load(stored, zone.Start{
		Settings: zone.Settings{
			Name: "world", Version: "world", Listen: managerAddress, Address: managerAddress, NodeTimeout: nodeTimeout,
			ReportInterval: reportInterval, KeyRotation: keys.LeastRotation, AllowInsecure: true,
		},
		Now: w.now, Seed: w.seed(),
	})
	if err != nil {
		w.breach("start", "a ResourceManager cannot start on what is stored: %v", err)
		return
	}
	m.core = core
	w.laws.started(m)
	m.commit(out)
}

// killManager ends the ResourceManager. A commit that is under way is on the disk, or is not.
func (w *World) killManager(back time.Duration) {
	m := w.manager
	if m.process.dead {
		return
	}
	if m.storing != nil && w.chance(2) {
		w.disk.commit(m.storing.Batch, w.now)
	}
	switch w.config.Plant {
	case StoreDamages:
		for key, value := range w.disk.records["app"] {
			w.disk.records["app"][key] = value[:len(value)/2]
		}
	case StoreForgets:
		delete(w.disk.records, "queues")
	}
	w.disk.crash()
	m.process.kill()
	w.trace("the ResourceManager is killed")
	w.after(back, func() {
		if w.manager == m {
			w.startManager()
		}
	})
}

// put gives the loop something to do.
func (m *manager) put(t task) {
	m.inbox = append(m.inbox, t)
	m.wake(m.w.now.Add(m.w.between(0, 200*time.Microsecond)))
}

// wake has a round by an instant.
func (m *manager) wake(at time.Time) {
	if !m.due.IsZero() && !at.Before(m.due) {
		return
	}
	m.due = at
	m.w.at(at, func() {
		m.process.step(func() {
			if m.due.Equal(at) {
				m.due = time.Time{}
				m.round()
			}
		})
	})
}

// round is a turn, or another try to store one.
func (m *manager) round() {
	switch {
	case m.storing != nil:
	case m.unstored != nil && m.w.now.Before(m.retryAt):
		m.wake(m.retryAt)
	case m.unstored != nil:
		out := m.unstored
		m.unstored = nil
		m.commit(out)
	default:
		m.turn()
	}
}

func (m *manager) turn() {
	m.w.result.Turns++
	fresh := m.w.seed()
	if m.record != nil {
		m.record.Begin(m.w.now, fresh)
	}
	m.core.Begin(m.w.now, fresh)
	tasks := m.inbox
	m.inbox = nil
	for _, t := range tasks {
		in := t.in
		if t.before != nil {
			in = t.before()
		}
		m.w.laws.input(m, in)
		before := m.w.laws.version(m, in)
		if deploy, ok := in.(zone.Deploy); ok && t.again && m.w.config.Plant == DeploysTwice {
			deploy.Request.Spec.Roles[0].Env["ARRIVED"] = "twice"
		}
		answer, err := m.step(in)
		m.w.laws.stepped(m, t, in, before, err)
		if t.done != nil {
			m.replies = append(m.replies, func() { t.done(answer, err) })
		}
	}
	if m.core.IsDue() {
		beats := make([]zone.Beat, 0, len(m.nodes))
		for id := zone.StreamID(1); id <= m.last; id++ {
			if s := m.nodes[id]; s != nil {
				beats = append(beats, m.lastBeat(s))
			}
		}
		_, _ = m.step(zone.Beats{Beats: beats})
	}
	out, err := m.core.Ready()
	if err != nil {
		m.w.breach("ready", "a turn cannot be written down: %v", err)
		return
	}
	if m.record != nil {
		m.record.Ready(out)
	}
	m.commit(out)
}

// step gives the zone an input.
func (m *manager) step(in zone.Input) (any, error) {
	if m.record == nil {
		return m.core.Step(in)
	}
	m.record.Input(in)
	answer, err := m.core.Step(in)
	m.record.Answer(answer, err)
	return answer, err
}

// commit stores what a turn has decided, and then tells.
func (m *manager) commit(out *zone.Ready) {
	for _, fault := range out.Faults {
		m.w.trace("zone: %s %v", fault.Text, fault.About)
		if fault.Severe {
			m.w.breach("fault", "the zone found a fault of its own: %s %v", fault.Text, fault.About)
		}
	}
	if m.w.config.Plant == TellsBeforeItStores {
		m.publish(out)
	}
	if out.Batch.Empty() {
		m.stored(out)
		return
	}
	if m.w.config.Plant == StoreLies {
		m.w.disk.later(out.Batch)
		m.w.after(10*time.Second, func() { m.w.disk.sync(m.w.now) })
		m.stored(out)
		return
	}
	m.storing = out
	d := m.w.between(200*time.Microsecond, 5*time.Millisecond)
	if m.w.chance(500) {
		d = m.w.between(50*time.Millisecond, 2*time.Second)
	}
	m.process.after(d, func() {
		m.storing = nil
		// What is reserved on a full disk is used up by some commits, and not by others.
		if m.w.disk.full && m.w.chance(2) {
			m.unstored, m.retryAt = out, m.w.now.Add(zone.Tick)
			m.wake(m.retryAt)
			return
		}
		m.w.disk.commit(out.Batch, m.w.now)
		m.stored(out)
	})
}

func (m *manager) stored(out *zone.Ready) {
	if m.w.config.Plant != TellsBeforeItStores {
		m.publish(out)
	}
	if m.process.dead {
		return
	}
	if !m.open {
		m.open = true
		m.w.network.listen(managerAddress, m.process, m)
	}
	if len(m.inbox) > 0 {
		m.wake(m.w.now)
	}
	m.wake(m.core.Wake())
}

// publish tells everybody about a turn that is stored: the registry first.
func (m *manager) publish(out *zone.Ready) {
	for _, event := range out.Events {
		m.w.trace("event %s %s%s%s %s→%s: %s", event.GetKind(), event.GetApp(), event.GetNode(), event.GetContainer(), event.GetFrom(), event.GetTo(), event.GetMessage())
		m.w.laws.event(event)
	}
	m.registry.perform(out)
	m.w.laws.published(m, out)
	for _, send := range out.Commands {
		for _, command := range send.Commands {
			if s := m.nodes[send.Stream]; s != nil && m.tell() {
				s.side.send(message{method: "Command", body: command})
			}
		}
	}
	for _, send := range out.Responses {
		if s := m.masters[send.Stream]; s != nil && m.tell() {
			m.answer(s, send.Response)
		}
	}
	for _, answered := range out.Answered {
		if reply := m.calls[answered.Call]; reply != nil && m.tell() {
			reply(answered.Response, answered.Err)
		}
		delete(m.calls, answered.Call)
	}
	for _, end := range out.Ends {
		m.end(end.Stream, end.Why)
	}
	replies := m.replies
	m.replies = nil
	for _, reply := range replies {
		if m.tell() {
			reply()
		}
	}
}

func (m *manager) answer(s *masterSession, answer *masterv1.AllocateResponse) {
	m.w.laws.answered(m, s, answer)
	s.side.send(message{method: "Answer", body: answer})
	for _, old := range m.replaced {
		if app, _, _ := strings.Cut(old.bearer, "."); app[:len(app)-1] == s.bearer[:len(app)-1] {
			m.w.laws.answered(m, old, answer)
		}
	}
}

// tell reports whether it lives to tell the next thing.
func (m *manager) tell() bool {
	if m.tells > 0 {
		if m.tells--; m.tells == 0 {
			back := m.w.between(100*time.Millisecond, 20*time.Second)
			m.w.fault("ResourceManager killed while it tells", back, "")
			m.w.killManager(back)
		}
	}
	return !m.process.dead
}

func (m *manager) end(stream zone.StreamID, why error) {
	if s := m.nodes[stream]; s != nil {
		s.heardAt = m.lastBeat(s).At
		s.side.close(why)
	}
	if s := m.masters[stream]; s != nil && m.w.config.Plant == OldMasterActs {
		m.replaced = append(m.replaced, s)
	} else if s != nil {
		endMaster(s.side, why)
	}
	delete(m.nodes, stream)
	delete(m.masters, stream)
}

// endMaster tells an attempt that was replaced in the protocol's own words too.
func endMaster(s *side, why error) {
	if errors.Is(why, zone.ErrSuperseded) {
		s.send(message{method: "Answer", body: &masterv1.AllocateResponse{Superseded: true}})
	}
	s.close(why)
}

// lastBeat is when a node was last heard of: it reports every second that it is alive, which is not sent as messages of their own.
func (m *manager) lastBeat(s *nodeSession) zone.Beat {
	at := s.heardAt
	if client := s.side.peer; !s.side.over && !client.over && client.process != nil && !client.process.dead {
		at = client.process.alive()
		if c := m.w.network.cuts[direction{client.machine, managerMachine}]; c != nil && c.since.Before(at) {
			at = c.since
		}
	}
	if at.After(s.heardAt) {
		s.heardAt = at
	}
	return zone.Beat{Session: s.name, At: s.heardAt}
}

// call implements server.
func (m *manager) call(request message, answer func(message, error)) {
	reply := func(value any, err error) {
		body, _ := value.(proto.Message)
		answer(message{method: request.method, body: body}, err)
	}
	switch body := request.body.(type) {
	case *trackerv1.RegisterRequest:
		if m.w.config.Plant == ReapsAll {
			plain := reply
			reply = func(value any, err error) {
				if response, ok := value.(*trackerv1.RegisterResponse); ok && err == nil {
					for _, status := range body.GetContainers() {
						response.Reap = append(response.Reap, status.GetLease().GetContainerId())
					}
				}
				plain(value, err)
			}
		}
		in := zone.RegisterNode{Who: root, Request: body}
		m.put(task{before: func() zone.Input {
			if s := m.nodes[m.core.StreamOf(body.GetNodeId())]; s != nil {
				in.Last = m.lastBeat(s)
			}
			return in
		}, done: reply})
	case *masterv1.RegisterRequest:
		m.put(task{in: zone.RegisterMaster{Bearer: request.credential, Request: body}, done: reply})
	case *masterv1.FinishRequest:
		m.put(task{in: zone.Finish{Bearer: request.credential, Request: body}, done: reply})
	default:
		if name := request.value.(order).look; name != "" {
			app, err := m.core.App(name)
			reply(app, err)
			return
		}
		in := request.value.(order).in
		if m.full && grows(in) {
			reply(nil, errUnavailable)
			return
		}
		if command, ok := in.(zone.Command); ok {
			m.command(command, reply)
			return
		}
		m.put(task{in: in, done: reply, call: request.call, again: request.again})
	}
}

// command hands a command to a master. It is answered later, or at once if it is refused.
func (m *manager) command(in zone.Command, reply func(any, error)) {
	m.lastCall++
	in.Call = m.lastCall
	m.calls[in.Call] = reply
	m.put(task{in: in, done: func(_ any, err error) {
		if err != nil {
			delete(m.calls, in.Call)
			reply(nil, err)
		}
	}})
}

// accept implements server.
func (m *manager) accept(first message, s *side) {
	switch first.method {
	case "Session":
		m.acceptNode(first.body.(*trackerv1.NodeReport).GetSession(), s)
	case "Allocate":
		m.acceptMaster(first.credential, s)
	case "Route":
		m.registry.connect(first.body.(*companionv1.RouteReport), s)
	}
}

func (m *manager) acceptNode(name string, s *side) {
	m.last++
	id, session := m.last, &nodeSession{name: name, side: s, heardAt: m.w.now}
	next := func() {}
	next = func() {
		if session.busy || len(session.reports) == 0 || s.over {
			return
		}
		report := session.reports[0]
		session.reports, session.busy = session.reports[1:], true
		m.put(task{in: zone.NodeReport{Session: name, Report: report}, done: func(_ any, err error) {
			session.busy = false
			if err != nil {
				left(m, id, session, err)
				return
			}
			next()
		}})
	}
	s.heard = func(report message) {
		session.reports = append(session.reports, report.body.(*trackerv1.NodeReport))
		next()
	}
	s.ended = func(error) { left(m, id, session, errOver) }
	session.busy = true
	m.put(task{
		before: func() zone.Input {
			m.nodes[id] = session
			return zone.OpenSession{Session: name, Stream: id}
		},
		done: func(_ any, err error) {
			session.busy = false
			if err != nil {
				left(m, id, session, err)
				return
			}
			next()
		},
	})
}

// left is about the stream of a node that is over.
func left(m *manager, id zone.StreamID, session *nodeSession, why error) {
	session.side.close(why)
	m.put(task{in: zone.NodeStreamEnded{Stream: id, Last: m.lastBeat(session)}, done: func(any, error) { delete(m.nodes, id) }})
}

func (m *manager) acceptMaster(bearer string, s *side) {
	m.last++
	id, session := m.last, &masterSession{side: s, bearer: bearer}
	gone := func() {
		m.put(task{in: zone.MasterStreamEnded{Stream: id}, done: func(any, error) { delete(m.masters, id) }})
	}
	s.heard = func(request message) {
		m.put(task{in: zone.Allocate{Bearer: bearer, Stream: id, Request: request.body.(*masterv1.AllocateRequest)}})
	}
	s.ended = func(error) { gone() }
	m.put(task{
		before: func() zone.Input {
			m.masters[id] = session
			return zone.OpenAllocate{Bearer: bearer, Stream: id}
		},
		done: func(_ any, err error) {
			if err != nil {
				endMaster(s, err)
				gone()
			}
		},
	})
}

// grows reports whether an input is refused while the disk is full.
func grows(in zone.Input) bool {
	switch in.(type) {
	case zone.Deploy, zone.Scale, zone.RestartApp, zone.Rollback, zone.SetQueues, zone.AddContracts, zone.LendNow:
		return true
	}
	return false
}

// roomChanged fills the store's disk, or empties it. The ResourceManager looks every two seconds.
func (w *World) roomChanged(full bool) {
	w.disk.full = full
	m := w.manager
	m.process.after(w.between(0, 2*time.Second), m.look)
}

func (m *manager) look() {
	if m.full == m.w.disk.full {
		return
	}
	m.full = m.w.disk.full
	why := ""
	if m.full {
		why = "the disk is full"
	}
	m.put(task{in: zone.RoomChanged{Full: why}})
}
