package zone

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/spec"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/commands"
)

// maxMemo is how many bytes a master may save for the next one.
const maxMemo = 64 << 10

// ErrSuperseded is the answer to an attempt that is over, or was replaced by a newer one.
var ErrSuperseded = fmt.Errorf("this attempt is over; it must end without touching anything: %w", errdefs.ErrFailedPrecondition)

// appMaster is what the zone keeps of an app's master.
type appMaster struct {
	// stream is zero while the master has none.
	stream StreamID
	// response is sent on the stream at the end of the turn; nil if there is nothing to send.
	response *masterv1.AllocateResponse
	// names are the names of the instances in the order in which people count; nil if one has come or gone since.
	names []string
	// wantsTraffic says that the master is to be sent what balancers count.
	wantsTraffic bool
	// memo is what the master has saved for the next one.
	memo []byte
}

// masters are the application masters: their streams, what they report, and what they are sent. A response is what a master is sent at
// the end of a turn.
type masters struct {
	*turn
	config   *config
	apps     *apps
	asks     *asks
	attempts *attempts
	desired  *desired
	versions *versions
	commands *commands.Commands
	waits    *waits
	leases   *leases
	nodes    *nodes
	damage   *damage
	views    *views
	// byStream are the apps by the streams of their masters.
	byStream map[StreamID]*app
}

func (a *app) connected() bool { return a.master.stream != 0 }

func (a *app) wantsTraffic() bool { return a.master.wantsTraffic }

// authenticate finds the app whose newest attempt holds the bearer token.
func (ms *masters) authenticate(bearer string) (*app, error) {
	refused := fmt.Errorf("the bearer token is not that of an application master: %w", errdefs.ErrUnauthenticated)
	name, _, _ := strings.Cut(bearer, ".")
	attempt, err := id.ParseAttempt(name)
	if err != nil {
		return nil, refused
	}
	if ms.damage.standsStill() || attempt.App.ClusterStart != ms.config.identity.ClusterStart.UnixMilli() {
		// The master waits, as if the ResourceManager were away: what the zone still knows of its app may be nothing, or out of date.
		return nil, fmt.Errorf("the zone has lost records and stands still until \"mammoth store accept\": %w", errdefs.ErrUnavailable)
	}
	a := ms.apps.get(attempt.App)
	if a == nil {
		return nil, fmt.Errorf("%s is not an app of this zone any more: %w", attempt.App, errdefs.ErrNotFound)
	}
	if attempt.N < a.record.GetAttempt().GetNumber() {
		return nil, ErrSuperseded
	}
	hash := sha256.Sum256([]byte(bearer))
	if attempt.N != a.record.GetAttempt().GetNumber() || subtle.ConstantTimeCompare(hash[:], a.record.GetAttempt().GetTokenHash()) != 1 {
		return nil, refused
	}
	if !a.attemptState().Live() {
		return nil, ErrSuperseded
	}
	return a, nil
}

// register hands an app over to its newest attempt; again if that attempt registers again.
func (ms *masters) register(bearer string, request *masterv1.RegisterRequest) (*masterv1.RegisterResponse, error) {
	a, err := ms.authenticate(bearer)
	if err != nil {
		return nil, err
	}
	if request.GetAppId() != a.id.String() || request.GetAttempt() != a.record.GetAttempt().GetNumber() {
		return nil, fmt.Errorf("the token is that of attempt %d of %s: %w", a.record.GetAttempt().GetNumber(), a.id, errdefs.ErrInvalidArgument)
	}
	ms.attempts.registered(a)

	desired := ms.desired.of(a)
	response := &masterv1.RegisterResponse{
		Spec:    desired.GetSpec(),
		Desired: desired,
		Memo:    a.master.memo,
	}
	for _, c := range sortedContainers(a.containers) {
		if c.held() && !c.record.GetLease().GetMaster() {
			response.Containers = append(response.Containers, ms.leases.allocation(c))
		}
	}
	return response, nil
}

// open begins a master's stream. The first response repeats what the master may have missed: the desired state, grants, ends, preemption
// notices, the state of its nodes, and which instances are withdrawn.
func (ms *masters) open(bearer string, stream StreamID) error {
	a, err := ms.authenticate(bearer)
	if err != nil {
		return err
	}
	if a.attemptState() != lifecycle.AttemptRegistered {
		return fmt.Errorf("attempt %d of %s has to register first: %w", a.record.GetAttempt().GetNumber(), a.record.GetName(), errdefs.ErrFailedPrecondition)
	}
	ms.endStream(a, fmt.Errorf("another stream was opened: %w", errdefs.ErrAborted))
	a.master.stream, a.master.wantsTraffic = stream, false
	ms.byStream[stream] = a
	a.endpoints.ResetTraffic()
	a.master.response = &masterv1.AllocateResponse{Desired: ms.desired.of(a), Waits: &masterv1.Waits{Waiting: a.waits()}, Commands: ms.commands.Unanswered(a.id)}
	nodes := map[id.Node]bool{}
	for _, c := range sortedContainers(a.containers) {
		if n := ms.nodes.get(c.node); c.held() && n != nil && !nodes[n.id] {
			nodes[n.id] = true
			a.master.response.Nodes = append(a.master.response.Nodes, ms.nodes.update(n))
		}
		if c.record.GetLease().GetMaster() {
			continue
		}
		switch {
		case c.state() == lifecycle.ContainerNew && !c.record.GetStopping():
			a.master.response.Allocated = append(a.master.response.Allocated, ms.leases.allocation(c))
		case !c.held() && !c.record.GetAcknowledged():
			a.master.response.Completed = append(a.master.response.Completed, c.record.GetStatus())
		}
		if c.held() && c.notice != nil {
			a.master.response.Preemptions = append(a.master.response.Preemptions, c.notice)
		}
	}
	for _, name := range id.SortedKeys(a.instances) {
		if report := a.instances[name].GetReport(); leaving(report) {
			a.endpoints.Withdraw(name)
		}
	}
	ms.apps.touch(a)
	return nil
}

// streamEnded notes that a stream has ended; it may be an earlier one.
func (ms *masters) streamEnded(stream StreamID) { ms.refuse(stream, errLeft) }

// refuse ends a stream whose request was refused; later requests on it are refused too.
func (ms *masters) refuse(stream StreamID, why error) {
	if a := ms.byStream[stream]; a != nil {
		ms.endStream(a, why)
		return
	}
	ms.out.Ends = append(ms.out.Ends, StreamEnd{stream, why})
}

func (ms *masters) endStream(a *app, why error) {
	if !a.connected() {
		return
	}
	ms.out.Ends = append(ms.out.Ends, StreamEnd{a.master.stream, why})
	delete(ms.byStream, a.master.stream)
	a.master.stream, a.master.response = 0, nil
	ms.attempts.heard(a)
	ms.waits.enqueue(a)
}

// allocate takes in a request of a master: its asks, releases and reports.
func (ms *masters) allocate(bearer string, stream StreamID, request *masterv1.AllocateRequest) error {
	a, err := ms.authenticate(bearer)
	if err != nil {
		return err
	}
	if a.master.stream != stream {
		return fmt.Errorf("another stream was opened: %w", errdefs.ErrAborted)
	}
	if len(request.GetMemo()) > maxMemo {
		return fmt.Errorf("the memo has %d bytes, at most %d can be saved: %w", len(request.GetMemo()), maxMemo, errdefs.ErrInvalidArgument)
	}
	if err := a.bounded(request); err != nil {
		return err
	}
	asks, err := ms.asks.parseAll(a, request.GetAsks())
	if err != nil {
		return err
	}
	for _, ask := range asks {
		if err := ms.asks.set(a, ask); err != nil {
			return err
		}
	}
	for _, release := range request.GetRelease() {
		ms.release(a, release)
	}
	for _, name := range request.GetCheckpoints() {
		ms.leases.checkpoint(a, name)
	}
	for _, report := range request.GetInstances() {
		ms.reportInstance(a, report)
	}
	for _, name := range request.GetGoneInstances() {
		ms.instanceGone(a, name)
	}
	if memo := request.GetMemo(); memo != nil {
		a.master.memo = memo
		ms.Save(kindMemo, a.id.String(), &storev1.Memo{AppId: a.id.String(), Memo: memo})
	}
	if observed := request.GetObservedGeneration(); observed > a.record.GetObservedGeneration() {
		a.record.ObservedGeneration = min(observed, a.record.GetGeneration())
		ms.apps.changed(a)
	}
	if status := request.GetStatus(); status != nil {
		ms.versions.report(a, status)
	}
	if request.Traffic != nil {
		a.master.wantsTraffic = request.GetTraffic()
	}
	for _, note := range request.GetNotes() {
		ms.versions.note(a, note)
	}
	if revise := request.GetRevise(); revise != nil {
		ms.versions.revise(a, revise)
	}
	for _, answer := range request.GetAnswers() {
		ms.answered(a, answer)
	}
	ms.response(a).AppliedSequence = request.GetSequence()
	return nil
}

// The most that a master may report and ask for: twice the instances of the largest app, since a rollout may double them.
const (
	mostInstances = 2*spec.MaxInstances + 1000
	mostAsked     = mostInstances
)

// forgetMemo forgets what the master of an app has saved for the next one.
func (ms *masters) forgetMemo(a *app) {
	a.master.memo = nil
	ms.Forget(kindMemo, a.id.String())
}

// bounded refuses a request after which an app would have too many instances or asks.
func (a *app) bounded(request *masterv1.AllocateRequest) error {
	instances := len(a.instances)
	for _, report := range request.GetInstances() {
		if a.instances[report.GetId()] == nil {
			instances++
		}
	}
	if instances > mostInstances && len(request.GetInstances()) > 0 {
		return fmt.Errorf("%s would have %d instances, and the most is %d: %w", a.record.GetName(), instances, mostInstances, errdefs.ErrInvalidArgument)
	}
	if len(request.GetAsks()) == 0 {
		return nil
	}
	sum := a.askedWith(request.GetAsks())
	if sum > mostAsked {
		return fmt.Errorf("the asks of %s are for %d containers together, and the most is %d: %w", a.record.GetName(), sum, mostAsked, errdefs.ErrInvalidArgument)
	}
	return nil
}

// finish ends an attempt whose master says that its work is done. The app is stopped if it was to run.
func (ms *masters) finish(bearer string, request *masterv1.FinishRequest) error {
	a, err := ms.authenticate(bearer)
	if err != nil {
		return err
	}
	reason := request.GetReason()
	if reason == "" {
		reason = "its application master finished"
	}
	if !a.ending() {
		ms.desired.end(a, lifecycle.AppStop, reason)
		ms.desired.noteOutcome(a, request.GetFailed())
	}
	ms.attempts.finish(a, reason)
	return nil
}

// leave ends an attempt whose master says that it ends.
func (ms *masters) leave(bearer, reason string) error {
	a, err := ms.authenticate(bearer)
	if err != nil {
		return err
	}
	if reason == "" {
		reason = "it left"
	}
	if a.attemptState().Live() {
		ms.attempts.abandon(a, a.container(a.record.GetAttempt().GetContainerId()), false, reason)
	}
	return nil
}

// response is what the app's master is sent at the end of the turn. Callers add to it.
func (ms *masters) response(a *app) *masterv1.AllocateResponse {
	if a.master.response == nil {
		a.master.response = &masterv1.AllocateResponse{}
	}
	ms.apps.touch(a)
	return a.master.response
}

// countTraffic has the master of an app sent what balancers have counted of an instance, if it wants that.
func (ms *masters) countTraffic(count *companionv1.Traffic) {
	a := ms.apps.withName(spec.AppOf(count.GetService()))
	if a == nil || !a.connected() || a.instances[count.GetEndpoint()] == nil || !a.wantsTraffic() {
		return
	}
	response := ms.response(a)
	response.Traffic = append(response.Traffic, a.endpoints.Count(count))
}

// deliver hands over the responses of the turn. Without a stream a response is dropped: the first one of the next stream repeats it.
func (ms *masters) deliver() {
	for _, a := range ms.apps.touchedInOrder() {
		if a.master.response != nil && a.connected() {
			ms.out.Responses = append(ms.out.Responses, ResponseSend{a.master.stream, a.master.response})
		}
		a.master.response = nil
	}
}
