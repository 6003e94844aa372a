package zone

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// maxMemo is how much a master may save for the one after it.
const maxMemo = 64 << 10

// ErrSuperseded is what an attempt is answered that was replaced by a newer one.
var ErrSuperseded = fmt.Errorf("this attempt was replaced by a newer one; it must end without touching anything: %w", errdefs.ErrFailedPrecondition)

// authenticate finds the app whose newest attempt holds the bearer token.
func (z *Core) authenticate(bearer string) (*app, error) {
	refused := fmt.Errorf("the bearer token is not that of an application master: %w", errdefs.ErrUnauthenticated)
	name, _, _ := strings.Cut(bearer, ".")
	attempt, err := id.ParseAttempt(name)
	if err != nil {
		return nil, refused
	}
	if z.damage.standsStill() || attempt.App.ClusterStart != z.config.identity.ClusterStart.UnixMilli() {
		// It waits, as if the ResourceManager were away: what the zone still knows of its app may be nothing, or out of date.
		return nil, fmt.Errorf("the zone has lost records and stands still until \"mammoth store accept\": %w", errdefs.ErrUnavailable)
	}
	a := z.apps.get(attempt.App)
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
	if !a.attempt().Live() {
		return nil, ErrSuperseded
	}
	return a, nil
}

// registerMaster hands an app over to its newest attempt; again if that attempt registers again.
func (z *Core) registerMaster(bearer string, request *masterv1.RegisterRequest) (*masterv1.RegisterResponse, error) {
	a, err := z.authenticate(bearer)
	if err != nil {
		return nil, err
	}
	if request.GetAppId() != a.id.String() || request.GetAttempt() != a.record.GetAttempt().GetNumber() {
		return nil, fmt.Errorf("the token is that of attempt %d of %s: %w", a.record.GetAttempt().GetNumber(), a.id, errdefs.ErrInvalidArgument)
	}
	if a.record.GetAttempt().GetRegisteredAt() == nil {
		a.record.Attempt.RegisteredAt = timestamppb.New(z.now)
	}
	a.silentSince = z.now
	a.secret = ""
	z.moveAttempt(a, lifecycle.AttemptRegisters, fmt.Sprintf("attempt %d of %s is at work", a.record.GetAttempt().GetNumber(), a.record.GetName()))
	z.apps.move(a, lifecycle.AppMasterRegistered, "")
	z.apps.changed(a)

	response := &masterv1.RegisterResponse{
		Spec:    z.heldSpec(a),
		Wanted:  z.wanted(a),
		Largest: z.units.resources(z.scheduler.Largest()),
		Memo:    a.memo,
	}
	for _, c := range sortedContainers(a.containers) {
		if c.held() && !c.record.GetLease().GetMaster() {
			response.Containers = append(response.Containers, z.leases.allocation(c))
		}
	}
	return response, nil
}

// openAllocate begins a master's stream. Its first answer repeats what the master cannot know it lost: what is
// wanted, containers that it may not have heard of, ends, the state of its nodes, and what is out of the registry.
func (z *Core) openAllocate(bearer string, stream StreamID) error {
	a, err := z.authenticate(bearer)
	if err != nil {
		return err
	}
	if a.attempt() != lifecycle.AttemptRegistered {
		return fmt.Errorf("attempt %d of %s has to register first: %w", a.record.GetAttempt().GetNumber(), a.record.GetName(), errdefs.ErrFailedPrecondition)
	}
	z.endStream(a, fmt.Errorf("another stream was opened: %w", errdefs.ErrAborted))
	a.stream = stream
	z.streaming[stream] = a
	clear(a.traffic)
	a.out = &masterv1.AllocateResponse{Wanted: z.wanted(a), Waits: &masterv1.Waits{Waiting: a.wait.shown}}
	nodes := map[id.Node]bool{}
	for _, c := range sortedContainers(a.containers) {
		if c.record.GetLease().GetMaster() {
			continue
		}
		switch {
		case c.state() == lifecycle.ContainerNew && !c.record.GetStopping():
			a.out.Allocated = append(a.out.Allocated, z.leases.allocation(c))
		case !c.held() && !c.record.GetAcknowledged():
			a.out.Completed = append(a.out.Completed, c.record.GetStatus())
		}
		if c.held() && c.notice != nil {
			a.out.Preemptions = append(a.out.Preemptions, c.notice)
		}
		if n := z.nodes.get(c.node); c.held() && n != nil && !nodes[n.id] {
			nodes[n.id] = true
			a.out.Nodes = append(a.out.Nodes, z.nodes.update(n))
		}
	}
	for _, name := range sortedKeys(a.instances) {
		if report := a.instances[name].GetReport(); leaving(report) {
			z.withdraw(a, name)
		}
	}
	z.apps.touch(a)
	return nil
}

// masterLeft is about a stream that is over; it may be an earlier one.
func (z *Core) masterLeft(stream StreamID) { z.refuseStream(stream, errLeft) }

// refuseStream ends a stream whose request was refused; what follows on it is not taken either.
func (z *Core) refuseStream(stream StreamID, why error) {
	if a := z.streaming[stream]; a != nil {
		z.endStream(a, why)
		return
	}
	z.out.Ends = append(z.out.Ends, StreamEnd{stream, why})
}

func (z *Core) endStream(a *app, why error) {
	if a.stream == 0 {
		return
	}
	z.out.Ends = append(z.out.Ends, StreamEnd{a.stream, why})
	delete(z.streaming, a.stream)
	a.stream, a.out = 0, nil
	a.silentSince = z.now
	z.lookAfter(a)
}

// allocate takes what a master asks and reports.
func (z *Core) allocate(bearer string, stream StreamID, request *masterv1.AllocateRequest) error {
	a, err := z.authenticate(bearer)
	if err != nil {
		return err
	}
	if a.stream != stream {
		return fmt.Errorf("another stream was opened: %w", errdefs.ErrAborted)
	}
	if len(request.GetMemo()) > maxMemo {
		return fmt.Errorf("the memo has %d bytes, at most %d can be saved: %w", len(request.GetMemo()), maxMemo, errdefs.ErrInvalidArgument)
	}
	if err := a.bounded(request); err != nil {
		return err
	}
	asks, err := z.readAsks(a, request.GetAsks())
	if err != nil {
		return err
	}
	for _, ask := range asks {
		if err := z.setAsk(a, ask); err != nil {
			return err
		}
	}
	for _, name := range request.GetRelease() {
		z.release(a, name)
	}
	for _, report := range request.GetInstances() {
		z.reportInstance(a, report)
	}
	for _, name := range request.GetGoneInstances() {
		z.instanceGone(a, name)
	}
	if memo := request.GetMemo(); memo != nil {
		a.memo = memo
		z.save(kindMemo, a.id.String(), &storev1.Memo{AppId: a.id.String(), Memo: memo})
	}
	if observed := request.GetObservedGeneration(); observed > a.record.GetObservedGeneration() {
		a.record.ObservedGeneration = min(observed, a.record.GetGeneration())
		z.apps.changed(a)
	}
	if rollout := request.GetRollout(); rollout != nil {
		z.reportRollout(a, rollout)
	}
	if revert := request.GetRevert(); revert != nil {
		z.revert(a, revert)
	}
	z.say(a).AppliedSequence = request.GetSequence()
	return nil
}

// What a master may have said in all: twice the instances of the largest app, of which a rollout may double as many.
const (
	mostInstances = 2*spec.MaxInstances + 1000
	mostAsked     = mostInstances
)

// bounded says what with a request would be too much of an app.
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
	asked := map[string]int32{}
	for name, known := range a.asks {
		asked[name] = known.GetAsk().GetCount()
	}
	for _, ask := range request.GetAsks() {
		asked[ask.GetId()] = ask.GetCount()
	}
	sum := int64(len(asked))
	for _, count := range asked {
		sum += int64(max(0, count-1))
	}
	if sum > mostAsked {
		return fmt.Errorf("the asks of %s are for %d containers together, and the most is %d: %w", a.record.GetName(), sum, mostAsked, errdefs.ErrInvalidArgument)
	}
	return nil
}

// release ends a lease once its container was seen gone. For one that has ended it says that the master knows.
func (z *Core) release(a *app, name string) {
	cid, err := id.ParseContainer(name)
	c := a.containers[cid]
	if err != nil || c == nil || c.record.GetLease().GetMaster() {
		return
	}
	if c.held() {
		z.leases.stop(c, corev1.Exit_STOPPED, z.whyGivenBack(a, c))
		return
	}
	if !c.record.GetAcknowledged() {
		c.record.Acknowledged = true
		z.leases.changed(c)
	}
}

// reportInstance replaces what is known of one instance.
func (z *Core) reportInstance(a *app, report *masterv1.InstanceReport) {
	if report.GetId() == "" {
		return
	}
	instance := a.instances[report.GetId()]
	before := instance.GetReport()
	if proto.Equal(before, report) {
		return
	}
	if instance == nil {
		instance = &storev1.Instance{AppId: a.id.String()}
		a.instances[report.GetId()] = instance
		a.instanceListChanged(report.GetId())
	}
	if before.GetState() != report.GetState() {
		instance.Since = timestamppb.New(z.now)
		z.emit(&apiv1.Event{
			Kind: "instance", App: a.record.GetName(), Instance: report.GetId(), Container: report.GetContainerId(),
			Node: z.leases.nodeOf(a, report.GetContainerId()), From: instanceState(before.GetState()), To: report.GetState().String(),
			Message: because(fmt.Sprintf("%s is %s", report.GetId(), strings.ToLower(report.GetState().String())), report.GetReason()),
		})
	}
	if report.GetInService() && (!before.GetInService() || before.GetContainerId() != report.GetContainerId()) {
		instance.RegisteredAt = timestamppb.New(z.now)
	}
	instance.Report = report
	z.save(kindInstance, instanceKey(a, report.GetId()), instance)
	if before.GetInService() && !report.GetInService() || leaving(report) {
		z.withdraw(a, report.GetId())
	}
	if report.GetInService() {
		a.withdrawals[report.GetId()]++ // an earlier withdrawal is overtaken
	}
	z.apps.touch(a)
}

// leaving reports whether the master waits for the instance to be out of the registry.
func leaving(report *masterv1.InstanceReport) bool {
	return !report.GetInService() &&
		(report.GetState() == apiv1.Instance_DRAINING || report.GetState() == apiv1.Instance_STOPPING)
}

func (z *Core) instanceGone(a *app, name string) {
	instance := a.instances[name]
	if instance == nil {
		return
	}
	delete(a.instances, name)
	a.instanceListChanged(name)
	delete(a.withdrawals, name)
	z.forget(kindInstance, instanceKey(a, name))
	z.emit(&apiv1.Event{
		Kind: "instance", App: a.record.GetName(), Instance: name, Container: instance.GetReport().GetContainerId(),
		From: instanceState(instance.GetReport().GetState()), To: "GONE", Message: name + " is gone",
	})
	z.apps.touch(a)
}

// reportRollout replaces what is known of the change to the wanted version.
func (z *Core) reportRollout(a *app, report *masterv1.RolloutReport) {
	r := a.record
	before := r.GetRollout()
	after := &apiv1.Rollout{
		State: report.GetState(), Version: report.GetVersion(), Updated: report.GetUpdated(), Total: report.GetTotal(), Reason: report.GetReason(),
		Percent:  report.GetPercent(),
		Failures: report.GetFailures(), MaxFailures: report.GetMaxFailures(), FailsAt: report.GetFailsAt(), Reverts: report.GetReverts(),
	}
	a.rolloutReports++
	if proto.Equal(before, after) {
		return
	}
	if after.GetState() != apiv1.Rollout_PROGRESSING && before.GetState() != after.GetState() {
		// A step is done once balancers route by it.
		z.whenRouted(a, confirmation{rollout: after, report: a.rolloutReports})
		return
	}
	z.setRollout(a, after)
}

func (z *Core) setRollout(a *app, after *apiv1.Rollout) {
	r := a.record
	before := r.GetRollout()
	r.Rollout = after
	switch state := after.GetState(); {
	case after.GetVersion() != r.GetVersion():
	case state == apiv1.Rollout_FAILED:
		z.fell(a, after.GetReason())
	case state == apiv1.Rollout_DONE, state == apiv1.Rollout_REVERTED:
		z.cameUp(a)
		if r.GetPaused() {
			// The next one is not held because this one was.
			r.Paused = false
			z.say(a).Wanted = z.wanted(a)
		}
	}
	if before.GetState() != after.GetState() || before.GetVersion() != after.GetVersion() {
		from := ""
		if before.GetVersion() == after.GetVersion() && before != nil {
			from = before.GetState().String()
		}
		z.emit(&apiv1.Event{
			Kind: "rollout", App: r.GetName(), From: from, To: after.GetState().String(),
			Message: because(fmt.Sprintf("version %d of %s: %d of %d instances, %s", after.GetVersion(), r.GetName(),
				after.GetUpdated(), after.GetTotal(), strings.ToLower(after.GetState().String())), after.GetReason()),
		})
	}
	z.apps.changed(a)
}

// finish is a master's last word. On an app that people still want to run it means that its work is done.
func (z *Core) finish(bearer string, request *masterv1.FinishRequest) error {
	a, err := z.authenticate(bearer)
	if err != nil {
		return err
	}
	reason := request.GetReason()
	if reason == "" {
		reason = "its application master finished"
	}
	if !a.ending() {
		z.endApp(a, lifecycle.AppStop, reason)
	}
	z.finishAttempt(a, reason)
	return nil
}

func instanceState(state apiv1.Instance_State) string {
	if state == apiv1.Instance_STATE_UNSPECIFIED {
		return ""
	}
	return state.String()
}

func instanceKey(a *app, name string) string { return a.id.String() + "/" + name }
