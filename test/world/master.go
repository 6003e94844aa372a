package world

import (
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/dynamicdeploy/driver"
	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
)

// mind is what decides in a master: DynamicDeploy's driver.Master, or a ring.
type mind interface {
	TakeOver(answer *masterv1.RegisterResponse, now time.Time)
	Handle(event appmaster.Event, now time.Time) error
	// Decide returns when it is to decide next at the latest; zero is never.
	Decide(now time.Time) time.Time
	// Starts are the containers to be started since the last call.
	Starts() []driver.Start
	StartEnded(container string, status *corev1.ContainerStatus, err error, now time.Time)
	Finished() bool
}

// master is one run of an application master: the shell of a mind and of an appmaster.Session, with the steps of packages driver and
// appmaster in the same order.
type master struct {
	w *World
	// program is what it runs in; nil if that is outside of the zone.
	program *program
	process *process
	config  appmaster.Config
	session *appmaster.Session
	mind    mind
	// stream is the one to the ResourceManager; nil while there is none.
	stream   *side
	nodes    map[string]*watch
	sending  bool
	deciding bool
	due      time.Time
	finished bool
}

// watch is the master's connection to a node on which it holds containers.
type watch struct {
	m       *master
	node    string
	address string
	token   *corev1.ContainerToken
	held    map[string]bool
	side    *side
	// failures in a row; round tells tries from those before.
	failures, round int
}

func newMaster(p *program) *master {
	env := p.spec.GetEnv()
	attempt, _ := strconv.Atoi(env[appmaster.EnvAttempt])
	return p.engine.host.w.newMasterOn(p.engine.host.name, p, appmaster.Config{
		AppID: env[appmaster.EnvAppID], App: env[appmaster.EnvApp], Attempt: int32(attempt), Token: env[appmaster.EnvToken],
	})
}

// newMasterOn starts a master on a machine. Its program is nil if it is not one of the zone's.
func (w *World) newMasterOn(machine string, p *program, config appmaster.Config) *master {
	m := &master{w: w, program: p, process: w.newProcess(machine, "the master of "+config.App), nodes: map[string]*watch{}, config: config}
	m.session = appmaster.NewSession(appmaster.Listener{Emit: m.tell, Watch: m.watch, Unwatch: m.unwatch, UpdateNode: m.moved})
	m.process.after(w.between(50*time.Millisecond, 500*time.Millisecond), m.register)
	return m
}

func (m *master) now() time.Time {
	if m.program == nil {
		return m.w.now
	}
	return m.program.engine.host.clock()
}

var retry = backoff.Policy{Min: 50 * time.Millisecond, Max: 500 * time.Millisecond}

// refused reports whether an answer means that somebody else is in charge.
func refused(err error) bool {
	for _, class := range []error{
		errdefs.ErrAborted, errdefs.ErrFailedPrecondition, errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrPermissionDenied,
		errdefs.ErrUnauthenticated, errdefs.ErrAlreadyExists,
	} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// end is the end of the program by itself.
func (m *master) end(code int) {
	m.w.trace("%s ends by itself with %d", m.process.name, code)
	if m.program == nil {
		m.process.kill()
		return
	}
	m.program.ended(container.Ending{Code: code}, true)
}

// newMind is what decides in it.
func (m *master) newMind() mind {
	if m.program == nil || slices.Equal(m.program.spec.GetCommand(), []string{ringPackage}) {
		return newRing(m.config, m.session.Outbox)
	}
	return driver.NewMaster(m.config, m.session.Outbox, slog.New(slog.DiscardHandler))
}

// insist calls the ResourceManager until it answers.
func (m *master) insist(request message, failures int, done func(message)) {
	m.process.call(managerAddress, 5*time.Second, request, func(answer message, err error) {
		switch {
		case err == nil:
			done(answer)
		case refused(err):
			m.end(0)
		default:
			m.process.after(retry.After(failures), func() { m.insist(request, failures+1, done) })
		}
	})
}

// register begins, or begins anew after a stream has ended.
func (m *master) register() {
	request := message{method: "RegisterMaster", credential: m.config.Token, body: &masterv1.RegisterRequest{AppId: m.config.AppID, Attempt: m.config.Attempt}}
	m.insist(request, 1, func(answer message) {
		response := answer.body.(*masterv1.RegisterResponse)
		if m.mind == nil {
			m.session.Begin(response)
			m.mind = m.newMind()
			m.mind.TakeOver(response, m.now())
		} else {
			m.session.Resume(response)
		}
		m.open()
		m.decide()
	})
}

func (m *master) open() {
	var stream *side
	stream = m.process.dial(managerAddress, message{method: "Allocate", credential: m.config.Token}, func(answer message) {
		response := answer.body.(*masterv1.AllocateResponse)
		if response.GetSuperseded() {
			m.end(0)
			return
		}
		m.session.Apply(response)
		if m.w.config.Plant == MasterChats {
			m.session.Outbox.SaveMemo([]byte(m.w.now.String()))
		}
		m.decide()
	}, func(err error) {
		if m.stream != stream {
			return
		}
		m.stream = nil
		m.w.trace("%s lost its stream: %v", m.process.name, err)
		m.tell(appmaster.Disconnected{Err: err})
		m.register()
	})
	m.stream = stream
	m.send()
}

// redo has the session begin anew, to be given fresh tokens.
func (m *master) redo() {
	if stream := m.stream; stream != nil {
		m.stream = nil
		stream.close(errOver)
		m.register()
	}
}

// send sends what is due, after a moment.
func (m *master) send() {
	if m.sending {
		return
	}
	m.sending = true
	m.process.after(2*time.Millisecond, func() {
		m.sending = false
		if m.stream == nil {
			return
		}
		for request := m.session.Next(); request != nil; request = m.session.Next() {
			m.stream.send(message{method: "Request", body: request})
		}
	})
}

// tell is an event of the session or of a watch.
func (m *master) tell(event appmaster.Event) {
	if m.process.dead || m.mind == nil {
		return
	}
	if err := m.mind.Handle(event, m.now()); err != nil {
		m.end(0)
		return
	}
	m.decide()
}

// decide has the master decide once, for all that has come at this instant.
func (m *master) decide() {
	if m.deciding {
		return
	}
	m.deciding = true
	m.process.after(0, func() {
		m.deciding = false
		m.decideNow()
	})
}

func (m *master) decideNow() {
	next := m.mind.Decide(m.now())
	for _, start := range m.mind.Starts() {
		m.start(start, 1, m.w.now.Add(10*time.Second))
	}
	m.send()
	if m.mind.Finished() && !m.finished {
		m.finished = true
		request := message{method: "Finish", credential: m.config.Token, body: &masterv1.FinishRequest{Reason: "removed"}}
		m.insist(request, 1, func(message) { m.end(0) })
		return
	}
	if next.IsZero() || m.due.Equal(next) {
		return
	}
	m.due = next
	m.process.after(max(0, next.Sub(m.now())), func() {
		if m.due.Equal(next) {
			m.due = time.Time{}
			m.decide()
		}
	})
}

// start has a node start a container. One that does not answer is asked again until a time.
func (m *master) start(start driver.Start, failures int, until time.Time) {
	lease := start.Allocation.GetLease()
	name := lease.GetContainerId()
	done := func(answer message, err error) {
		response, _ := answer.body.(*nodev1.StartResponse)
		m.mind.StartEnded(name, response.GetStatus(), err, m.now())
		m.decide()
	}
	n := m.nodes[lease.GetNodeId()]
	if n == nil {
		done(message{}, errdefs.ErrNotFound)
		return
	}
	again := func(err error) {
		wait := backoff.Policy{Min: 20 * time.Millisecond, Max: time.Second}.After(failures)
		if m.w.now.Add(wait).After(until) {
			done(message{}, err)
			return
		}
		m.process.after(wait, func() { m.start(start, failures+1, until) })
	}
	if !m.w.now.Before(until) {
		done(message{}, errDeadline)
		return
	}
	m.process.call(n.address, until.Sub(m.w.now), message{method: "Start", body: &nodev1.StartRequest{Token: start.Allocation.GetToken(), Spec: start.Spec}},
		func(answer message, err error) {
			if errors.Is(err, errdefs.ErrUnavailable) {
				again(err)
				return
			}
			done(answer, err)
		})
}

// watch sees to it that the node of a container is watched, under its newest address and token.
func (m *master) watch(allocation *masterv1.Allocation) {
	name := allocation.GetLease().GetNodeId()
	n := m.nodes[name]
	if n == nil {
		n = &watch{m: m, node: name, held: map[string]bool{}}
		m.nodes[name] = n
	}
	n.held[allocation.GetLease().GetContainerId()] = true
	n.move(allocation.GetContainerManager(), allocation.GetWatchToken())
}

func (m *master) unwatch(name, container string) {
	n := m.nodes[name]
	if n == nil {
		return
	}
	delete(n.held, container)
	if len(n.held) == 0 {
		delete(m.nodes, name)
		n.round++
		if n.side != nil {
			n.side.close(errOver)
		}
	}
}

func (m *master) moved(name, address string) {
	if n := m.nodes[name]; n != nil {
		n.move(address, nil)
	}
}

// move tells where the node is reached now.
func (n *watch) move(address string, token *corev1.ContainerToken) {
	changed := address != "" && address != n.address || token != nil && n.token == nil
	if address != "" {
		n.address = address
	}
	if token != nil {
		n.token = token
	}
	if changed && n.address != "" && n.token != nil {
		n.round++
		if n.side != nil {
			side := n.side
			n.side = nil
			side.close(errOver)
			n.m.process.after(0, func() { n.m.tell(appmaster.NodeDisconnected{Node: n.node}) })
		}
		n.failures = 0
		round := n.round
		n.m.process.after(0, func() { n.open(round) })
	}
}

func (n *watch) open(round int) {
	if n.round != round {
		return
	}
	m := n.m
	n.side = m.process.dial(n.address, message{method: "Watch", body: &nodev1.WatchRequest{Token: n.token, AppId: m.config.AppID}}, func(answer message) {
		response := answer.body.(*nodev1.WatchResponse)
		n.failures = 0
		if response.GetSnapshot() {
			m.tell(appmaster.NodeSnapshot{Node: n.node, Containers: response.GetContainers()})
			return
		}
		for _, status := range response.GetContainers() {
			m.tell(appmaster.StatusChanged{Status: status})
		}
	}, func(err error) {
		if n.round != round {
			return
		}
		n.side = nil
		n.failures++
		if errors.Is(err, errdefs.ErrUnauthenticated) || errors.Is(err, errdefs.ErrPermissionDenied) {
			m.redo()
		}
		if n.failures == 1 {
			m.tell(appmaster.NodeDisconnected{Node: n.node})
		}
		m.process.after(retry.After(n.failures), func() { n.open(round) })
	})
}
