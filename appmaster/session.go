package appmaster

import (
	"cmp"
	"slices"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// Session is a Client without its connections: it takes what the ResourceManager answers, and tells what that comes to. It sees
// to it that nothing is lost and nothing is told twice, over any number of streams. It knows no clock and no network, and calls its
// Listener before a method returns. But for those of its Outbox its methods belong to one goroutine.
type Session struct {
	*Outbox
	listener Listener
	// held are the containers of the app that have not ended, as far as the ResourceManager has told.
	held map[string]*corev1.Lease
	// counted is what balancers have counted since the present stream was opened, by instance.
	counted map[string]*masterv1.Traffic
	// missing were held before the last registration and are no more.
	missing []*corev1.Lease
	// greeted says that the present stream has been answered on.
	greeted bool
}

// Listener is what a Session calls.
type Listener struct {
	Tell func(Event)
	// Watch has the node of a held container watched, under its newest address and token. Unwatch ends that for one container.
	Watch   func(*masterv1.Allocation)
	Unwatch func(node, container string)
	// Moved says where a node is reached now.
	Moved func(node, containerManager string)
}

// NewSession makes a Session that has not registered yet.
func NewSession(listener Listener) *Session {
	return &Session{Outbox: newOutbox(), listener: listener, held: map[string]*corev1.Lease{}, counted: map[string]*masterv1.Traffic{}}
}

// Begin takes the answer to the first registration. The first stream is opened next.
func (s *Session) Begin(answer *masterv1.RegisterResponse) {
	for _, allocation := range answer.GetContainers() {
		s.hold(allocation)
	}
}

// Resume takes the answer to a registration after a stream has ended, and tells what happened while the ResourceManager was out of
// reach. The next stream is opened next.
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
	if answer.GetWanted() != nil {
		s.listener.Tell(WantedChanged{Wanted: answer.GetWanted()})
	}
	s.reset()
	clear(s.counted)
	s.greeted = false
}

// Next is the request that says all that is due on the present stream, or nil when nothing is.
func (s *Session) Next() *masterv1.AllocateRequest { return s.next() }

// Heed takes an answer on the present stream.
func (s *Session) Heed(answer *masterv1.AllocateResponse) {
	s.acknowledge(answer.GetAppliedSequence())
	for _, update := range answer.GetNodes() {
		s.listener.Moved(update.GetNodeId(), update.GetContainerManager())
		s.listener.Tell(NodeChanged{Node: update.GetNodeId(), State: update.GetState(), Reason: update.GetReason()})
	}
	if answer.GetWanted() != nil {
		s.listener.Tell(WantedChanged{Wanted: answer.GetWanted()})
	}
	for _, allocation := range answer.GetAllocated() {
		s.allocated(allocation)
	}
	for _, status := range answer.GetCompleted() {
		s.completed(status)
	}
	for _, notice := range answer.GetPreemptions() {
		told := Preempted{ContainerID: notice.GetContainerId(), Reason: notice.GetReason()}
		if !notice.GetWithdrawn() {
			told.Deadline = notice.GetDeadline().AsTime()
		}
		s.listener.Tell(told)
	}
	for _, instance := range answer.GetWithdrawn() {
		s.listener.Tell(Withdrawn{Instance: instance})
	}
	if answer.GetWaits() != nil {
		s.listener.Tell(Waits{Waiting: answer.GetWaits().GetWaiting()})
	}
	for _, traffic := range answer.GetTraffic() {
		// Counts begin at zero with every stream.
		before := s.counted[traffic.GetInstance()]
		s.counted[traffic.GetInstance()] = traffic
		s.listener.Tell(Traffic{
			Instance: traffic.GetInstance(),
			Requests: traffic.GetRequests() - before.GetRequests(), Errors: traffic.GetErrors() - before.GetErrors(),
		})
	}
	if !s.greeted {
		s.greeted = true
		s.conclude()
		s.listener.Tell(Connected{})
	}
}

// conclude tells the end of what is held no more, where the first answer of the stream did not say how it ended.
func (s *Session) conclude() {
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

func (s *Session) hold(allocation *masterv1.Allocation) {
	s.held[allocation.GetLease().GetContainerId()] = allocation.GetLease()
	s.listener.Watch(allocation)
}

// allocated tells of a grant unless it is known.
func (s *Session) allocated(allocation *masterv1.Allocation) {
	lease := allocation.GetLease()
	_, known := s.held[lease.GetContainerId()]
	s.hold(allocation)
	if known {
		return
	}
	s.granted(lease.GetAskId())
	s.listener.Tell(Allocated{Allocation: allocation})
}

// completed tells of an end unless it was told. The ResourceManager repeats an end on every new stream until it is
// acknowledged, which is done by releasing what has ended.
func (s *Session) completed(status *corev1.ContainerStatus) {
	container := status.GetLease().GetContainerId()
	lease, held := s.held[container]
	if !held && s.releasing(container) {
		return
	}
	if held {
		delete(s.held, container)
		s.listener.Unwatch(lease.GetNodeId(), container)
	}
	s.Release(container)
	s.listener.Tell(Completed{Status: status})
}
