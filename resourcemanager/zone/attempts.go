package zone

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/fsm"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/sentence"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

const (
	// An attempt that ends by itself so soon after it registered counts as failed.
	earlyEnd = 30 * time.Second
	// So many failed attempts within the window leave the app without a master.
	maxFailures   = 5
	failureWindow = 10 * time.Minute
	// An attempt whose master does not register after its launch, or has no stream, is abandoned after so long.
	masterSilence = time.Minute
	// maxAttempts is how many attempts of an app are kept in its history, with the newest.
	maxAttempts = 20
	// sigkill is the exit code of a process that somebody killed: no failure of the master's own.
	sigkill = 128 + 9
)

func attemptBackoff() backoff.Policy { return backoff.Policy{Min: time.Second, Max: time.Minute} }

// attempts are the runs of masters: when one is started, how its container is launched, and what its end means for the app.
type attempts struct {
	*turn
	config    *config
	scheduler *scheduling
	table     fsm.Table[lifecycle.AttemptState, lifecycle.AttemptEvent]
	apps      *apps
	packages  *packages
	asks      *asks
	masters   *masters
	leases    *leases
	nodes     *nodes
	sessions  *sessions
}

// forgive has the failures of an app so far not count any more.
func (at *attempts) forgive(a *app) {
	a.record.Failures, a.record.AvoidNodes, a.record.RetryAt = nil, nil, nil
}

// heard has the time begin anew after which a silent attempt is abandoned.
func (at *attempts) heard(a *app) { a.attempt.silentSince = at.now }

// registered notes that the newest attempt of an app is at work; it may register more than once.
func (at *attempts) registered(a *app) {
	if a.record.GetAttempt().GetRegisteredAt() == nil {
		a.record.Attempt.RegisteredAt = timestamppb.New(at.now)
	}
	at.heard(a)
	a.attempt.secret = ""
	at.move(a, lifecycle.AttemptRegisters, fmt.Sprintf("attempt %d of %s is at work", a.record.GetAttempt().GetNumber(), a.record.GetName()))
	at.apps.move(a, lifecycle.AppMasterRegistered, "")
	at.apps.changed(a)
}

// mayStart reports whether the time has come for the next master of an app that has none.
func (at *attempts) mayStart(a *app) bool {
	switch {
	case a.state() != lifecycle.AppAccepted && a.state() != lifecycle.AppRunning:
		return false
	case a.external(): // somebody starts it
		return false
	case at.packages.Of(a.record.GetSpec()) == nil: // the installation of the package touches the app
		return false
	}
	if retry := a.record.GetRetryAt(); retry != nil && at.now.Before(retry.AsTime()) {
		at.WakeBy(retry.AsTime())
		return false
	}
	return true
}

// start asks for a container for the next master of an app, if the time has come.
func (at *attempts) start(a *app) {
	if !at.mayStart(a) {
		return
	}
	at.asks.withdraw(a)
	number := a.record.GetAttempt().GetNumber() + 1
	at.archive(a)
	a.record.Attempt = &storev1.Attempt{Number: number}
	a.attempt.secret = ""
	at.move(a, lifecycle.AttemptSubmitted, fmt.Sprintf("attempt %d of %s waits for a container", number, a.record.GetName()))
	at.askForMaster(a, 1)
}

// archive moves the newest attempt of an app, which is over, to the earlier ones.
func (at *attempts) archive(a *app) {
	last := a.record.GetAttempt()
	if last.GetNumber() == 0 {
		return
	}
	last = proto.CloneOf(last)
	last.TokenHash = nil
	earlier := append(slices.Clone(a.record.GetEarlierAttempts()), last)
	a.record.EarlierAttempts = earlier[max(0, len(earlier)-(maxAttempts-1)):]
}

// attemptHistory returns the attempts of an app, oldest first.
func (a *app) attemptHistory() []*apiv1.AppHistory_Attempt {
	var history []*apiv1.AppHistory_Attempt
	for _, one := range append(slices.Clone(a.record.GetEarlierAttempts()), a.record.GetAttempt()) {
		if one.GetNumber() == 0 {
			continue
		}
		history = append(history, &apiv1.AppHistory_Attempt{
			Number: one.GetNumber(), State: one.GetState(), Node: one.GetNode(), ContainerId: one.GetContainerId(),
			LaunchedAt: one.GetLaunchedAt(), RegisteredAt: one.GetRegisteredAt(), EndedAt: one.GetEndedAt(), Reason: one.GetReason(),
		})
	}
	return history
}

// over notes when and why the newest attempt of an app ended.
func (at *attempts) over(a *app, reason string) {
	a.record.Attempt.EndedAt, a.record.Attempt.Reason = timestamppb.New(at.now), reason
}

// askForMaster sets how many containers the app's master still needs: one or none.
func (at *attempts) askForMaster(a *app, pending int) {
	var avoid []id.Node
	for _, name := range a.record.GetAvoidNodes() {
		avoid = append(avoid, id.Node(name))
	}
	if !slices.ContainsFunc(at.nodes.sorted(), func(n *node) bool {
		return n.closed() == "" && n.state().Answers() && !slices.Contains(avoid, n.id)
	}) {
		avoid = nil // better a node that it failed on than none
	}
	at.scheduler.apply(scheduler.SetAsk{App: a.id, Ask: scheduler.Ask{
		Pending: pending, Resources: at.packages.resources(a.record.GetSpec()), Policy: scheduler.Spread, Priority: 1 << 20, Avoid: avoid, Master: true,
		Replaces: a.record.GetAttempt().GetNumber() > 1,
	}})
}

// granted has the node launch the master.
func (at *attempts) granted(c *container) {
	a := c.app
	if a.attemptState() != lifecycle.AttemptScheduled {
		at.leases.stop(c, corev1.Exit_LEASE_ENDED, "no application master is waited for")
		return
	}
	a.record.Attempt.ContainerId, a.record.Attempt.Node = c.id.String(), string(c.node)
	a.record.Attempt.LaunchedAt = timestamppb.New(at.now)
	at.heard(a)
	at.move(a, lifecycle.AttemptGranted, fmt.Sprintf("attempt %d of %s is launched on %s", a.record.GetAttempt().GetNumber(), a.record.GetName(), c.node))
	at.launch(c)
}

// launch sends the master's container to its node, with a secret that nobody else has been sent.
func (at *attempts) launch(c *container) {
	a := c.app
	attempt := id.Attempt{App: a.id, N: a.record.GetAttempt().GetNumber()}
	if a.record.GetAttempt().GetContainerId() != c.id.String() || !a.attemptState().Live() {
		return
	}
	if a.attempt.secret == "" {
		a.attempt.secret = attempt.String() + "." + at.secrets.text()
		hash := sha256.Sum256([]byte(a.attempt.secret))
		a.record.Attempt.TokenHash = hash[:]
		at.apps.changed(a)
	}
	spec := at.packages.Container(a.record.GetSpec(), map[string]string{
		"MAMMOTH_RESOURCEMANAGER": at.config.Advertised(),
		"MAMMOTH_APP_ID":          a.id.String(),
		"MAMMOTH_APP":             a.record.GetName(),
		"MAMMOTH_ATTEMPT":         strconv.Itoa(int(attempt.N)),
		"MAMMOTH_TOKEN":           a.attempt.secret,
	})
	if spec == nil {
		at.leases.stop(c, corev1.Exit_LEASE_ENDED, at.packages.NotInstalled(a.record.GetSpec()))
		return
	}
	n := at.nodes.get(c.node)
	at.sessions.send(n, &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Launch_{Launch: &trackerv1.NodeCommand_Launch{
		Token: at.leases.allocation(c).GetToken(),
		Spec:  spec,
	}}})
}

// containerEnded ends the attempt whose container was seen gone.
func (at *attempts) containerEnded(c *container, exit *corev1.Exit) {
	a := c.app
	if a.record.GetAttempt().GetContainerId() != c.id.String() || !a.attemptState().Live() {
		return
	}
	if exit.GetReason() == corev1.Exit_LAUNCH_FAILED || exit.GetReason() == corev1.Exit_NODE_FAILED {
		a.record.AvoidNodes = append(slices.DeleteFunc(slices.Clone(a.record.GetAvoidNodes()), func(name string) bool {
			return name == string(c.node)
		}), string(c.node))
	}
	at.ended(a, at.isFailure(a, exit), sentence.Exit(exit))
}

// isFailure reports whether the end of the newest attempt's container counts as a failure of the app: the master ended by itself, and had
// not been at work for long. An end that others caused does not count.
func (at *attempts) isFailure(a *app, exit *corev1.Exit) bool {
	registered := a.record.GetAttempt().GetRegisteredAt()
	early := registered == nil || at.now.Sub(registered.AsTime()) < earlyEnd
	switch exit.GetReason() {
	case corev1.Exit_EXITED:
		return early && exit.GetCode() != sigkill
	case corev1.Exit_OOM_KILLED:
		return early
	case corev1.Exit_STOPPED, corev1.Exit_PREEMPTED, corev1.Exit_NODE_LOST, corev1.Exit_VANISHED, corev1.Exit_LEASE_ENDED, corev1.Exit_NODE_FAILED,
		corev1.Exit_KILLED_FROM_OUTSIDE:
		return false
	}
	return registered == nil
}

// ended records the end of the newest attempt. It begins the next one if the app is to have one now; too many failures leave the app without a
// master.
func (at *attempts) ended(a *app, counts bool, reason string) {
	number := a.record.GetAttempt().GetNumber()
	at.masters.endStream(a, fmt.Errorf("attempt %d of %s is over", number, a.record.GetName()))
	if a.attemptState() == lifecycle.AttemptScheduled {
		at.askForMaster(a, 0)
	}
	// Nothing that only a master could use may take the room that the next master needs.
	at.asks.withdraw(a)
	at.over(a, reason)
	at.move(a, lifecycle.AttemptEnds, fmt.Sprintf("attempt %d of %s ended: %s", number, a.record.GetName(), reason))
	a.record.RetryAt = nil
	if counts {
		a.record.Failures = append(slices.DeleteFunc(slices.Clone(a.record.GetFailures()), func(failed *timestamppb.Timestamp) bool {
			return at.now.Sub(failed.AsTime()) > failureWindow
		}), timestamppb.New(at.now))
		failures := len(a.record.GetFailures())
		if failures >= maxFailures && !a.ending() {
			at.apps.move(a, lifecycle.AppAttemptsExhausted, fmt.Sprintf(
				"no master: %d attempts failed within %s, the last because it ended: %s; \"mammoth app restart %s\" tries again",
				failures, failureWindow, reason, a.record.GetName()))
			return
		}
		if failures > 1 {
			a.record.RetryAt = timestamppb.New(at.now.Add(attemptBackoff().After(failures - 1)))
		}
	}
	at.apps.move(a, lifecycle.AppAttemptEnded, "its application master ended: "+reason)
	at.apps.changed(a)
	if !a.ending() && a.state() == lifecycle.AppAccepted {
		at.start(a)
	}
}

// finish ends a live attempt that is not needed any more, which is no failure.
func (at *attempts) finish(a *app, reason string) {
	if !a.attemptState().Live() {
		return
	}
	if a.attemptState() == lifecycle.AttemptScheduled {
		at.askForMaster(a, 0)
	}
	at.over(a, reason)
	at.move(a, lifecycle.AttemptFinishes, fmt.Sprintf("attempt %d of %s is finished: %s", a.record.GetAttempt().GetNumber(), a.record.GetName(), reason))
	at.stopMaster(a, reason)
}

// stopMaster has the newest attempt's container stopped.
func (at *attempts) stopMaster(a *app, reason string) {
	if c := a.container(a.record.GetAttempt().GetContainerId()); c != nil {
		at.leases.stop(c, corev1.Exit_STOPPED, reason)
	}
}

// due abandons an attempt that is silent, and has the next one begin when its time has come.
func (at *attempts) due(a *app) {
	switch a.attemptState() {
	case lifecycle.AttemptLaunched:
		at.abandonSilent(a, "it did not register within %s")
	case lifecycle.AttemptRegistered:
		if !a.connected() {
			at.abandonSilent(a, "it was silent for %s")
		}
	case lifecycle.AttemptFailed, lifecycle.AttemptUnspecified, lifecycle.AttemptFinished:
		if at.mayStart(a) {
			at.apps.touch(a) // settling starts it
		}
	}
}

// abandonSilent ends an attempt that has not been heard of for too long. format says for how long.
func (at *attempts) abandonSilent(a *app, format string) {
	c := a.container(a.record.GetAttempt().GetContainerId())
	lost := c != nil && at.nodes.get(c.node) != nil && at.nodes.get(c.node).state() == lifecycle.NodeLost
	silent := at.now.Sub(a.attempt.silentSince)
	if silent > masterSilence || lost && silent > at.config.NodeTimeout {
		at.abandon(a, c, lost, fmt.Sprintf(format, masterSilence))
	}
}

// abandon ends an attempt whose container may still run. The container is stopped, and what its master sends is refused; its lease is
// held until the node has seen the container gone.
func (at *attempts) abandon(a *app, c *container, lost bool, reason string) {
	if lost {
		reason = fmt.Sprintf("its node %s is lost", c.node)
	}
	if c != nil {
		at.leases.stop(c, corev1.Exit_STOPPED, reason)
	}
	at.ended(a, !lost && !a.external() && a.attemptState() == lifecycle.AttemptLaunched, reason)
}

func (at *attempts) move(a *app, event lifecycle.AttemptEvent, message string) {
	from := a.attemptState()
	to, ok := at.table.Next(from, event)
	if !ok || to == from {
		return
	}
	a.record.Attempt.State = apiv1.Master_State(to)
	at.Emit(&apiv1.Event{
		Kind: "attempt", App: a.record.GetName(), Attempt: id.Attempt{App: a.id, N: a.record.GetAttempt().GetNumber()}.String(),
		Container: a.record.GetAttempt().GetContainerId(), From: stateName(from), To: to.String(), Message: message,
	})
	at.apps.changed(a)
}

// appAttempt is what is known of an app's newest attempt and not stored.
type appAttempt struct {
	// secret is its bearer token until it has registered.
	secret string
	// silentSince is when its stream ended, it registered or was launched, or the ResourceManager was started.
	silentSince time.Time
}

// resubmit gives the scheduler all asks of an app, and the one for its master.
func (at *attempts) resubmit(a *app) {
	at.asks.submit(a)
	if a.attemptState() == lifecycle.AttemptScheduled {
		at.askForMaster(a, 1)
	}
}

func (a *app) attemptState() lifecycle.AttemptState {
	return lifecycle.AttemptState(a.record.GetAttempt().GetState())
}
