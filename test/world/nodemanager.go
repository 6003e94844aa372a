package world

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	"github.com/mammoth-os/mammoth/nodemanager/node"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// nodeManager is one run of a NodeManager: the shell of package node, with the steps of package nodemanager in the same order.
type nodeManager struct {
	w       *World
	host    *host
	process *process
	node    *node.Node
	address string
	// id tells it from other runs.
	id string

	// queued are writes that wait, and writing those on their way to the disk.
	queued, writing []write
	waiting         map[id.Container][]func()
	deadline        time.Time

	// unknown is how much is still to be learnt before the first registration.
	unknown int
	// tracking is set once it has begun to register, session while it reports.
	tracking bool
	session  *side
	name     string
	failures int
	// registrations counts those that were begun.
	registrations int64
	// changed is what the ResourceManager has not been sent yet; flushing is set while more is gathered.
	changed  map[string]*corev1.ContainerStatus
	health   *corev1.NodeHealth
	hearing  bool
	flushing bool
	feeds    []*feed
}

// feed is somebody who watches the containers of an app.
type feed struct {
	side *side
	app  string
}

// begin takes up what is written down, and asks the engines what they have.
func (m *nodeManager) begin() {
	m.unknown = 3
	m.do(func() { m.node.Recover(m.host.held()) })
	m.w.network.listen(m.address, m.process, m)
	for _, kind := range []corev1.ContainerSpec_Runtime{corev1.ContainerSpec_DOCKER, corev1.ContainerSpec_PROCESS} {
		m.follow(kind)
	}
	m.process.after(m.w.between(0, 100*time.Millisecond), m.look)
	m.process.after(2*time.Second, m.track)
}

// do has the node decide something, and performs it.
func (m *nodeManager) do(decide func()) {
	m.node.Begin(m.host.clock())
	decide()
	m.settle()
}

// settle performs what was decided: do, write down, tell.
func (m *nodeManager) settle() {
	deadline := m.node.Tick()
	out := m.node.Take()
	for _, note := range out.Notes {
		if note.Entry != nil {
			m.w.trace("%s: %s %s %s %s%s", m.host.name, note.Text, note.Entry.Core.ID, note.State, note.Reason, note.Error)
		}
	}
	for _, do := range out.Do {
		m.perform(do)
	}
	for _, r := range out.Records {
		m.queued = append(m.queued, write{r.Entry.Core.ID.String(), recordOf(r.Entry), r.Awaited})
	}
	m.write()
	if len(out.Changes) > 0 {
		m.tell(out.Changes)
	}
	if !deadline.IsZero() && (m.deadline.IsZero() || deadline.Before(m.deadline)) {
		m.deadline = deadline
		m.process.after(max(0, deadline.Sub(m.host.clock())), func() {
			if m.deadline.Equal(deadline) {
				m.deadline = time.Time{}
			}
			m.do(func() {})
		})
	}
}

func (m *nodeManager) perform(do node.Do) {
	h, e := do.Entry, m.host.engine
	key := h.Core.ID
	fact := func(f container.Fact) {
		m.process.step(func() { m.do(func() { m.node.Fact(key, f) }) })
	}
	switch do.Kind {
	case container.Drop:
		m.queued = append(m.queued, write{key: key.String()})
	case container.Prepare:
		e.prepare(h, fact)
	case container.Start:
		m.w.laws.starts(m, h)
		e.start(h, fact)
	case container.StopProcess:
		m.w.laws.stops(m, h)
		e.stop(key, do.Grace, fact)
	case container.Remove:
		e.remove(key, fact)
	case container.Purge:
		fact(container.Fact{Event: container.Purged})
	case container.Probe:
		e.probe(key, m)
	case container.Unprobe:
		e.unprobe(key)
	}
}

// write brings what waits to the disk, all at once.
func (m *nodeManager) write() {
	if len(m.writing) > 0 || len(m.queued) == 0 {
		return
	}
	m.writing, m.queued = m.queued, nil
	m.process.after(m.w.between(200*time.Microsecond, 8*time.Millisecond), func() {
		writes := m.writing
		m.writing = nil
		failure := ""
		if m.host.full {
			failure = "write the node's records: no space left on device"
			for _, w := range writes {
				if !w.awaited {
					m.queued = append(m.queued, w)
				}
			}
		} else {
			m.host.apply(writes)
		}
		for _, w := range writes {
			if w.awaited {
				m.recorded(w.key, failure)
			}
		}
		if failure == "" {
			m.write()
		} else if len(m.queued) > 0 {
			m.process.after(time.Second, m.write)
		}
	})
}

func (m *nodeManager) recorded(name, failure string) {
	key, _ := id.ParseContainer(name)
	m.do(func() { m.node.Recorded(key, failure) })
	for _, tell := range m.waiting[key] {
		tell()
	}
	delete(m.waiting, key)
}

// tell sends changes to everybody who watches.
func (m *nodeManager) tell(changes []node.Change) {
	slices.SortStableFunc(changes, func(a, b node.Change) int { return cmp.Compare(a.Status.GetSequence(), b.Status.GetSequence()) })
	for _, f := range m.feeds {
		response := &nodev1.WatchResponse{}
		for _, c := range changes {
			if f.app == "" || c.Status.GetLease().GetAppId() == f.app {
				response.Containers = append(response.Containers, c.Status)
			}
		}
		if len(response.GetContainers()) > 0 {
			f.side.send(message{method: "Watched", body: response})
		}
	}
	for _, c := range changes {
		if m.hearing && (!c.Entry.Core.EndAcknowledged || c.Again) {
			m.changed[c.Status.GetLease().GetContainerId()] = c.Status
		}
	}
	m.flush()
}

// flush sends the ResourceManager what has changed, after a moment in which more is gathered.
func (m *nodeManager) flush() {
	if m.session == nil || m.flushing || len(m.changed) == 0 && m.health == nil {
		return
	}
	m.flushing = true
	session := m.session
	m.process.after(2*time.Millisecond, func() {
		m.flushing = false
		if m.session != session {
			m.flush()
			return
		}
		report := &trackerv1.NodeReport{Session: m.name, Health: m.health}
		for _, status := range m.changed {
			report.Containers = append(report.Containers, status)
		}
		slices.SortFunc(report.Containers, func(a, b *corev1.ContainerStatus) int {
			return cmp.Or(cmp.Compare(a.GetSequence(), b.GetSequence()), cmp.Compare(a.GetLease().GetContainerId(), b.GetLease().GetContainerId()))
		})
		clear(m.changed)
		m.health = nil
		m.session.send(message{method: "Report", body: report})
	})
}

// learnt notes that one more of the things is known that the first registration waits for.
func (m *nodeManager) learnt() {
	if m.unknown--; m.unknown == 0 {
		m.track()
	}
}

// look judges the node's health each second, as far as something may have changed.
func (m *nodeManager) look() {
	reason := ""
	switch {
	case m.host.full:
		reason = "the disk is full"
	case m.host.engine.down:
		reason = "docker does not answer"
	}
	first := m.node.Health().GetSince() == nil
	m.node.Begin(m.host.clock())
	if m.node.SetHealth(reason) {
		if first {
			m.learnt()
		}
		if m.hearing {
			m.health = m.node.Health()
			m.flush()
		}
	}
}

// follow asks an engine for all it has, and again each minute.
func (m *nodeManager) follow(kind corev1.ContainerSpec_Runtime) {
	first := true
	var again func()
	again = func() {
		m.process.after(time.Minute, again)
		m.compare(kind, nil)
	}
	var begin func()
	begin = func() {
		if kind == corev1.ContainerSpec_DOCKER && m.host.engine.down {
			m.process.after(m.w.between(50*time.Millisecond, time.Second), begin)
			return
		}
		m.compare(kind, func() {
			if first {
				first = false
				m.learnt()
			}
		})
		m.process.after(time.Minute, again)
	}
	m.process.after(m.w.between(time.Millisecond, 50*time.Millisecond), begin)
}

// compare asks an engine for all it has.
func (m *nodeManager) compare(kind corev1.ContainerSpec_Runtime, then func()) {
	if kind == corev1.ContainerSpec_DOCKER && m.host.engine.down {
		return
	}
	asOf, list := m.host.clock(), m.host.engine.list(kind)
	m.process.after(m.w.between(time.Millisecond, 30*time.Millisecond), func() {
		adopted := 0
		m.do(func() { adopted = m.node.Reconcile(kind, asOf, list) })
		if then != nil {
			then()
		}
		if adopted > 0 && m.hearing && m.session != nil {
			m.session.close(errOver)
			m.lost(errOver, false)
		}
	})
}

// ended is the engine's word that a program has ended.
func (m *nodeManager) ended(key id.Container, ending container.Ending) {
	m.do(func() { m.node.Fact(key, container.Fact{Event: container.Ended, Ending: ending}) })
}

// track registers, for as long as it takes.
func (m *nodeManager) track() {
	if m.tracking {
		return
	}
	m.tracking = true
	m.register()
}

var pace = backoff.Policy{Min: 100 * time.Millisecond, Max: time.Second}

func (m *nodeManager) register() {
	m.settle()
	clear(m.changed)
	m.health, m.hearing = nil, true
	statuses := m.node.Statuses(func(*corev1.ContainerStatus) bool { return true })
	m.registrations++
	request := &trackerv1.RegisterRequest{
		NodeId: m.host.name, Address: m.host.name, ContainerManager: m.address, Capacity: m.host.capacity(),
		Containers: statuses, Health: m.node.Health(), Version: "world", FolderId: fmt.Sprintf("folder %d of %s", m.host.folders, m.host.name), ProcessId: m.id,
		Registration: m.registrations,
	}
	if m.w.config.Plant == NodeOverstates {
		request.Capacity.CpuMillis *= 3
	}
	m.process.call(managerAddress, 10*time.Second, message{method: "Register", body: request}, func(answer message, err error) {
		if err != nil {
			m.failures++
			m.process.after(pace.After(m.failures), m.register)
			return
		}
		response := answer.body.(*trackerv1.RegisterResponse)
		m.w.laws.reaped(m.host, response.GetReap())
		m.host.forgetful = false
		m.do(func() { m.node.ApplyRegistration(response) })
		m.open(response.GetSession())
	})
}

// open begins the stream of reports and commands.
func (m *nodeManager) open(name string) {
	began := m.w.now
	m.name = name
	var session *side
	session = m.process.dial(managerAddress, message{method: "Session", body: &trackerv1.NodeReport{Session: name}}, func(command message) {
		if m.w.config.Plant == NodeIsDeaf && m.w.chance(3) && command.body.(*trackerv1.NodeCommand).GetStop() != nil {
			return
		}
		m.do(func() { m.node.ApplyCommand(command.body.(*trackerv1.NodeCommand)) })
	}, func(err error) {
		if m.session == session {
			m.lost(err, m.w.now.Sub(began) > 500*time.Millisecond)
		}
	})
	m.session = session
	m.flush()
}

// lost is the end of the stream; the node registers again.
func (m *nodeManager) lost(err error, long bool) {
	m.session = nil
	switch {
	case errors.Is(err, errdefs.ErrAborted) && long:
		m.failures = 0
		m.register()
		return
	case errors.Is(err, errdefs.ErrAborted):
		m.failures++
	default:
		m.failures = 1
	}
	m.process.after(pace.After(m.failures), m.register)
}

// call implements server: a master has a container started.
func (m *nodeManager) call(request message, answer func(message, error)) {
	start := request.body.(*nodev1.StartRequest)
	m.node.Begin(m.host.clock())
	h, err := m.node.Admit(start.GetToken(), start.GetSpec())
	if err != nil {
		m.settle()
		answer(message{}, err)
		return
	}
	told := func() {
		answer(message{method: "Started", body: &nodev1.StartResponse{Status: m.node.Status(h)}}, nil)
	}
	if h.RecordPending() {
		m.waiting[h.Core.ID] = append(m.waiting[h.Core.ID], told)
		m.settle()
		return
	}
	m.settle()
	told()
}

// accept implements server: a master watches its containers.
func (m *nodeManager) accept(first message, s *side) {
	request := first.body.(*nodev1.WatchRequest)
	claims, err := m.node.Verify(request.GetToken())
	if err != nil {
		s.close(err)
		return
	}
	f := &feed{side: s, app: claims.GetAppId()}
	m.settle()
	m.feeds = append(slices.DeleteFunc(m.feeds, func(f *feed) bool { return f.side.over }), f)
	statuses := m.node.Statuses(func(status *corev1.ContainerStatus) bool { return status.GetLease().GetAppId() == f.app })
	s.heard = func(message) {}
	s.send(message{method: "Watched", body: &nodev1.WatchResponse{Containers: statuses, Snapshot: true}})
}
