package appmaster

import (
	"cmp"
	"maps"
	"slices"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// Session is a Client without its connections: it receives the answers of the ResourceManager and emits the events that follow from
// them. No event is lost or emitted twice, over any number of streams. It has no clock and no network, and calls its Listener
// before a method returns. Its methods belong to one goroutine, except Next and those of its Outbox.
type Session struct {
	*Outbox
	listener Listener
	// held are the leases of the app's containers, by container id.
	held map[string]*corev1.Lease
	// traffic is the newest count of each instance on the present stream.
	traffic map[string]*masterv1.Traffic
	// missing are the leases that were held before the last registration and are not in its answer.
	missing []*corev1.Lease
	// noticed are the containers with a preemption notice that was not cancelled, as far as is known.
	noticed map[string]bool
	// commands are the ids of the received commands that the ResourceManager may repeat.
	commands map[string]bool
	// connected is true once the first answer of the present stream was applied.
	connected bool
}

// Listener is what a Session calls.
type Listener struct {
	// Emit hands an event to the master.
	Emit func(Event)
	// Watch watches the node of a held container, under its newest address and token. Unwatch ends that for one container.
	Watch   func(*masterv1.Allocation)
	Unwatch func(node, container string)
	// UpdateNode sets the address of a node's ContainerManager.
	UpdateNode func(node, containerManager string)
}

// NewSession returns a Session that has not registered yet.
func NewSession(listener Listener) *Session {
	return &Session{
		Outbox: newOutbox(), listener: listener,
		held: map[string]*corev1.Lease{}, noticed: map[string]bool{}, commands: map[string]bool{}, traffic: map[string]*masterv1.Traffic{},
	}
}

// Begin applies the answer to the first registration. The first stream follows.
func (s *Session) Begin(answer *masterv1.RegisterResponse) {
	for _, allocation := range answer.GetContainers() {
		s.track(allocation)
	}
}

// Resume applies the answer to a registration after a stream has ended, and emits what has changed while the ResourceManager could
// not be reached. A new stream follows.
func (s *Session) Resume(answer *masterv1.RegisterResponse) {
	still := map[string]bool{}
	for _, allocation := range answer.GetContainers() {
		still[allocation.GetLease().GetContainerId()] = true
		s.allocated(allocation)
	}
	s.missing = nil
	for container, lease := range s.held {
		if !still[container] {
			s.missing = append(s.missing, lease)
		}
	}
	slices.SortFunc(s.missing, func(a, b *corev1.Lease) int { return cmp.Compare(a.GetContainerId(), b.GetContainerId()) })
	if answer.GetDesired() != nil {
		s.listener.Emit(DesiredChanged{Desired: answer.GetDesired()})
	}
	s.reset()
	clear(s.traffic)
	s.connected = false
}

// Next is the request with all that is unsent on the present stream, nil if there is none.
func (s *Session) Next() *masterv1.AllocateRequest { return s.next() }

// Apply applies an answer on the present stream.
func (s *Session) Apply(answer *masterv1.AllocateResponse) {
	s.acknowledge(answer.GetAppliedSequence())
	for _, update := range answer.GetNodes() {
		s.listener.UpdateNode(update.GetNodeId(), update.GetContainerManager())
		s.listener.Emit(NodeChanged{Node: update.GetNodeId(), State: update.GetState(), Reason: update.GetReason()})
	}
	if answer.GetDesired() != nil {
		s.listener.Emit(DesiredChanged{Desired: answer.GetDesired()})
	}
	for _, allocation := range answer.GetAllocated() {
		s.allocated(allocation)
	}
	for _, status := range answer.GetCompleted() {
		s.completed(status)
	}
	if !s.connected {
		s.cancelUnrepeated(answer.GetPreemptions())
	}
	for _, notice := range answer.GetPreemptions() {
		event := Preemption{ContainerID: notice.GetContainerId(), Reason: notice.GetReason()}
		if !notice.GetWithdrawn() {
			event.Deadline = notice.GetDeadline().AsTime()
			s.noticed[notice.GetContainerId()] = true
		} else {
			delete(s.noticed, notice.GetContainerId())
		}
		s.listener.Emit(event)
	}
	for _, instance := range answer.GetWithdrawn() {
		s.listener.Emit(Withdrawn{Instance: instance})
	}
	if answer.GetWaits() != nil {
		s.listener.Emit(WaitingChanged{Waiting: answer.GetWaits().GetWaiting()})
	}
	for _, traffic := range answer.GetTraffic() {
		// Counts start at zero with every stream.
		before := s.traffic[traffic.GetInstance()]
		s.traffic[traffic.GetInstance()] = traffic
		s.listener.Emit(Traffic{
			Instance: traffic.GetInstance(),
			Requests: traffic.GetRequests() - before.GetRequests(), Errors: traffic.GetErrors() - before.GetErrors(),
		})
	}
	s.receive(answer.GetCommands())
	if !s.connected {
		s.connected = true
		s.completeMissing()
		s.listener.Emit(Connected{})
	}
}

// cancelUnrepeated cancels the preemptions whose notice is not in the first answer of the stream: they were cancelled while the
// ResourceManager could not be reached.
func (s *Session) cancelUnrepeated(notices []*masterv1.PreemptionNotice) {
	repeated := map[string]bool{}
	for _, notice := range notices {
		repeated[notice.GetContainerId()] = true
	}
	for _, container := range slices.Sorted(maps.Keys(s.noticed)) {
		if !repeated[container] {
			delete(s.noticed, container)
			s.listener.Emit(Preemption{ContainerID: container})
		}
	}
}

// receive emits each command once. Only the first answer of a stream repeats commands: those without an answer.
func (s *Session) receive(commands []*masterv1.Command) {
	before := s.commands
	if !s.connected {
		s.commands = map[string]bool{}
	}
	for _, command := range commands {
		known := before[command.GetId()]
		s.commands[command.GetId()] = true
		if !known {
			s.listener.Emit(CommandReceived{Command: command})
		}
	}
}

// completeMissing reports the end of each missing lease for which the first answer of the stream had no exit.
func (s *Session) completeMissing() {
	for _, lease := range s.missing {
		s.completed(&corev1.ContainerStatus{
			Lease: lease,
			State: corev1.ContainerStatus_DONE,
			Exit: &corev1.Exit{
				Reason: corev1.Exit_VANISHED, Code: -1,
				Message: "it ended while the ResourceManager could not be reached",
			},
		})
	}
	s.missing = nil
}

func (s *Session) track(allocation *masterv1.Allocation) {
	s.held[allocation.GetLease().GetContainerId()] = allocation.GetLease()
	s.listener.Watch(allocation)
}

// allocated emits a grant once.
func (s *Session) allocated(allocation *masterv1.Allocation) {
	lease := allocation.GetLease()
	_, known := s.held[lease.GetContainerId()]
	s.track(allocation)
	if known {
		return
	}
	s.countGrant(lease.GetAskId())
	s.listener.Emit(Allocated{Allocation: allocation})
}

// completed emits an end once. The ResourceManager repeats an end on every new stream until it is acknowledged by a release.
func (s *Session) completed(status *corev1.ContainerStatus) {
	container := status.GetLease().GetContainerId()
	delete(s.noticed, container)
	lease, held := s.held[container]
	if !held && s.releasing(container) {
		return
	}
	if held {
		delete(s.held, container)
		s.listener.Unwatch(lease.GetNodeId(), container)
	}
	s.Release(container, "") // it has ended
	s.listener.Emit(Completed{Status: status})
}
