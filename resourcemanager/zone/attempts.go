package zone

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
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
	// A launched master that does not register, or a registered one that has no stream, is given up after so long.
	masterSilence = time.Minute
	// sigkill is the exit code of a process that somebody killed: no failure of the master's own.
	sigkill = 128 + 9
)

// masterResources is what an application master is given.
func masterResources() resource.Vector {
	return resource.Vector{resource.CPU: 100, resource.Memory: 64 << 20, resource.Disk: 32 << 20}
}

// masterCommand is found by the process runtime on every node.
func masterCommand() []string { return []string{"mammoth", "appmaster", "dynamicdeploy"} }

func attemptBackoff() backoff.Policy { return backoff.Policy{Min: time.Second, Max: time.Minute} }

// startAttempt asks for a container for the next master of an app, if the time has come.
func (z *Core) startAttempt(a *app) {
	if retry := a.record.GetRetryAt(); retry != nil && z.now.Before(retry.AsTime()) {
		z.wakeBy(retry.AsTime())
		return
	}
	z.withdrawAsks(a)
	number := a.record.GetAttempt().GetNumber() + 1
	a.record.Attempt = &storev1.Attempt{Number: number}
	a.secret = ""
	z.moveAttempt(a, lifecycle.AttemptSubmitted, fmt.Sprintf("attempt %d of %s waits for a container", number, a.record.GetName()))
	z.askForMaster(a, 1)
}

// askForMaster sets how many containers the app's master still needs: one or none.
func (z *Core) askForMaster(a *app, pending int) {
	var avoid []id.Node
	for _, name := range a.record.GetAvoidNodes() {
		avoid = append(avoid, id.Node(name))
	}
	if !slices.ContainsFunc(z.nodes.sorted(), func(n *node) bool {
		return n.closed() == "" && n.state().Answers() && !slices.Contains(avoid, n.id)
	}) {
		avoid = nil // better a node that it failed on than none
	}
	z.scheduler.apply(scheduler.SetAsk{App: a.id, Ask: scheduler.Ask{
		Pending: pending, Resources: masterResources(), Policy: scheduler.Spread, Priority: 1 << 20, Avoid: avoid, Master: true,
		Replaces: a.record.GetAttempt().GetNumber() > 1,
	}})
}

// masterGranted has the node launch the master.
func (z *Core) masterGranted(c *container) {
	a := c.app
	if a.attempt() != lifecycle.AttemptScheduled {
		z.leases.stop(c, corev1.Exit_LEASE_ENDED, "no application master is waited for")
		return
	}
	a.record.Attempt.ContainerId = c.id.String()
	a.record.Attempt.LaunchedAt = timestamppb.New(z.now)
	a.silentSince = z.now
	z.moveAttempt(a, lifecycle.AttemptGranted, fmt.Sprintf("attempt %d of %s is launched on %s", a.record.GetAttempt().GetNumber(), a.record.GetName(), c.node))
	z.launch(c)
}

// launch sends the master's container to its node, with a secret that nobody was told before: the container has
// not been started.
func (z *Core) launch(c *container) {
	a := c.app
	attempt := id.Attempt{App: a.id, N: a.record.GetAttempt().GetNumber()}
	if a.record.GetAttempt().GetContainerId() != c.id.String() || !a.attempt().Live() {
		return
	}
	if a.secret == "" {
		a.secret = attempt.String() + "." + z.secrets.text()
		hash := sha256.Sum256([]byte(a.secret))
		a.record.Attempt.TokenHash = hash[:]
		z.apps.changed(a)
	}
	n := z.nodes.get(c.node)
	z.sessions.send(n, &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Launch_{Launch: &trackerv1.NodeCommand_Launch{
		Token: z.leases.allocation(c).GetToken(),
		Spec: &corev1.ContainerSpec{
			Runtime: corev1.ContainerSpec_PROCESS,
			Command: masterCommand(),
			Env: map[string]string{
				"MAMMOTH_RESOURCEMANAGER": z.config.Advertised(),
				"MAMMOTH_APP_ID":          a.id.String(),
				"MAMMOTH_APP":             a.record.GetName(),
				"MAMMOTH_ATTEMPT":         strconv.Itoa(int(attempt.N)),
				"MAMMOTH_TOKEN":           a.secret,
			},
			Labels: map[string]string{"mammoth.role": "master"},
		},
	}}})
}

// masterEnded is about a master's container that was seen gone.
func (z *Core) masterEnded(c *container, exit *corev1.Exit) {
	a := c.app
	if a.record.GetAttempt().GetContainerId() != c.id.String() || !a.attempt().Live() {
		return
	}
	if exit.GetReason() == corev1.Exit_LAUNCH_FAILED || exit.GetReason() == corev1.Exit_NODE_FAILED {
		a.record.AvoidNodes = append(slices.DeleteFunc(slices.Clone(a.record.GetAvoidNodes()), func(name string) bool {
			return name == string(c.node)
		}), string(c.node))
	}
	z.attemptEnded(a, z.isFailure(a, exit), exitSentence(exit))
}

// isFailure reports whether the end of the newest attempt's container is held against the app: what ended it came from
// inside, and it had not been at work for long. What others did to it is not.
func (z *Core) isFailure(a *app, exit *corev1.Exit) bool {
	registered := a.record.GetAttempt().GetRegisteredAt()
	early := registered == nil || z.now.Sub(registered.AsTime()) < earlyEnd
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

// attemptEnded begins the next attempt, unless too many have failed.
func (z *Core) attemptEnded(a *app, counts bool, reason string) {
	number := a.record.GetAttempt().GetNumber()
	z.endStream(a, fmt.Errorf("attempt %d of %s is over", number, a.record.GetName()))
	if a.attempt() == lifecycle.AttemptScheduled {
		z.askForMaster(a, 0)
	}
	// Nothing that only a master could use may take the room that the next master needs.
	z.withdrawAsks(a)
	z.moveAttempt(a, lifecycle.AttemptEnds, fmt.Sprintf("attempt %d of %s ended: %s", number, a.record.GetName(), reason))
	a.record.RetryAt = nil
	if counts {
		a.record.Failures = append(slices.DeleteFunc(slices.Clone(a.record.GetFailures()), func(at *timestamppb.Timestamp) bool {
			return z.now.Sub(at.AsTime()) > failureWindow
		}), timestamppb.New(z.now))
		failures := len(a.record.GetFailures())
		if failures >= maxFailures && !a.ending() {
			z.apps.move(a, lifecycle.AppAttemptsExhausted, fmt.Sprintf(
				"no master: %d attempts failed within %s, the last because it ended: %s; \"mammoth app restart %s\" tries again",
				failures, failureWindow, reason, a.record.GetName()))
			return
		}
		if failures > 1 {
			a.record.RetryAt = timestamppb.New(z.now.Add(attemptBackoff().After(failures - 1)))
		}
	}
	z.apps.move(a, lifecycle.AppAttemptEnded, "its application master ended: "+reason)
	z.apps.changed(a)
	if !a.ending() && a.state() == lifecycle.AppAccepted {
		z.startAttempt(a)
	}
}

// finishAttempt ends a live attempt that has done its work.
func (z *Core) finishAttempt(a *app, reason string) {
	if !a.attempt().Live() {
		return
	}
	if a.attempt() == lifecycle.AttemptScheduled {
		z.askForMaster(a, 0)
	}
	z.moveAttempt(a, lifecycle.AttemptFinishes, fmt.Sprintf("attempt %d of %s is finished: %s", a.record.GetAttempt().GetNumber(), a.record.GetName(), reason))
	z.stopMaster(a, reason)
}

// stopMaster has the newest attempt's container stopped.
func (z *Core) stopMaster(a *app, reason string) {
	cid, err := id.ParseContainer(a.record.GetAttempt().GetContainerId())
	if c := z.leases.get(cid); err == nil && c != nil {
		z.leases.stop(c, corev1.Exit_STOPPED, reason)
	}
}

// dueAttempt gives up on masters that are silent.
func (z *Core) dueAttempt(a *app) {
	record := a.record.GetAttempt()
	cid, _ := id.ParseContainer(record.GetContainerId())
	c := z.leases.get(cid)
	lost := c != nil && z.nodes.get(c.node) != nil && z.nodes.get(c.node).state() == lifecycle.NodeLost
	silent := z.now.Sub(a.silentSince)
	away := silent > masterSilence || lost && silent > z.config.NodeTimeout
	switch a.attempt() {
	case lifecycle.AttemptLaunched:
		if away {
			z.giveUp(a, c, lost, fmt.Sprintf("it did not register within %s", masterSilence))
		}
	case lifecycle.AttemptRegistered:
		if a.stream == 0 && away {
			z.giveUp(a, c, lost, fmt.Sprintf("it was silent for %s", masterSilence))
		}
	case lifecycle.AttemptFailed, lifecycle.AttemptUnspecified, lifecycle.AttemptFinished:
		z.apps.touch(a) // settling starts the next one when its time has come
	}
}

// giveUp ends an attempt whose container may still run. It is stopped, and refused from now on; its lease is held until
// its node says that it is gone.
func (z *Core) giveUp(a *app, c *container, lost bool, reason string) {
	if lost {
		reason = fmt.Sprintf("its node %s is lost", c.node)
	}
	if c != nil {
		z.leases.stop(c, corev1.Exit_STOPPED, reason)
	}
	z.attemptEnded(a, !lost && a.attempt() == lifecycle.AttemptLaunched, reason)
}

func (z *Core) moveAttempt(a *app, event lifecycle.AttemptEvent, message string) {
	from := a.attempt()
	to, ok := z.tables.attempts.Next(from, event)
	if !ok || to == from {
		return
	}
	a.record.Attempt.State = apiv1.Master_State(to)
	z.emit(&apiv1.Event{
		Kind: "attempt", App: a.record.GetName(), Attempt: id.Attempt{App: a.id, N: a.record.GetAttempt().GetNumber()}.String(),
		Container: a.record.GetAttempt().GetContainerId(), From: stateName(from), To: to.String(), Message: message,
	})
	z.apps.changed(a)
}

func (a *app) attempt() lifecycle.AttemptState {
	return lifecycle.AttemptState(a.record.GetAttempt().GetState())
}
