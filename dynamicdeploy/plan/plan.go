// Package plan decides what happens to the instances of one role. Facts go in, actions come out, and the time is an
// argument: the package has no clock, no goroutine and no connection.
//
// A Role is all that its master knows: the slots with what nodes report of their containers, the nodes, and the rollout. Its parts
// own these; a view judges slots at one instant.
//
// An instance is a numbered slot ("web-3"). A slot is opened with the lowest free number, is filled by one container after
// another, and is forgotten when it is not needed any more. Two things decide what is done with a slot:
//
//   - the chooser (mode.go, choose.go) decides which slots are to leave and opens new ones, from the count, the versions, the
//     strategy and the health of all slots;
//   - nextSteps (table.go) maps the goal of a slot and the phase it is in to one step.
//
// Vocabulary: a slot is outdated if it does not run the desired version, or is to be replaced by a restart, and evicted if its node is drained or its container
// is about to be preempted. A container is routed to as soon as it is healthy, and counts once it has been healthy for
// Update.MinHealthy. The base is the version that serves until the desired one has come up completely.
package plan

import (
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Desired is the state that a role is to reach.
type Desired struct {
	// Count is the number of instances; zero when the app is stopped or removed.
	Count int
	// Version is the version that all instances are to run.
	Version int32
	// RestartBefore replaces containers that were granted before this instant. Zero replaces none.
	RestartBefore time.Time
	// Drain is the time between the withdrawal of an instance and its stop.
	Drain time.Duration
	// StartPeriod is how long a running container may take to become healthy; zero is without limit.
	StartPeriod time.Duration
	// StartMargin is added to StartPeriod, because the node is expected to report the container unhealthy first.
	StartMargin time.Duration
	// Update is how instances are moved to Version.
	Update Update
	// Restart is how failed instances are restarted.
	Restart Restart
	// CanRevert is true if a failed rollout of Version is reverted.
	CanRevert bool
	// Reverted is true if Version was made by a revert.
	Reverted bool
	// Paused is true while a person has paused the rollout.
	Paused bool
	// Stopped is true while the app is stopped or removed: a rollout that is under way goes on once it is started again.
	Stopped bool
}

// Update is how one version replaces another.
type Update struct {
	Strategy Strategy
	// Percent is the share of the requests that a canary receives. From 100 on the canary is promoted: it replaces the base.
	Percent int
	// Exclusive routes to the new instances of a BlueGreen rollout only after all old ones are gone.
	Exclusive bool
	// MaxSurge is how many instances there may be above the count. MaxUnavailable is how many of the count may not be healthy.
	MaxSurge, MaxUnavailable int
	// MinHealthy is how long an instance must be healthy without a break before it counts.
	MinHealthy time.Duration
	// Deadline is how long a rollout may make no progress before it fails. Zero is without limit.
	Deadline time.Duration
	// MaxErrorPercent is the highest share of errors among the answers of the new version. Zero is without limit.
	MaxErrorPercent float64
}

// Strategy is how a rollout proceeds.
type Strategy uint8

// Rolling replaces instances a few at a time. Canary first runs some instances of the new version beside the base and gives
// them a share of the requests. BlueGreen starts all instances of the new version before any of them is routed to.
const (
	Rolling Strategy = iota
	Canary
	BlueGreen
)

// Restart is the back-off after failures, which are counted within a sliding window.
type Restart struct {
	// Window is how long a failure is counted.
	Window time.Duration
	// MaxFailures is the number of failures within the window with which a version has failed.
	MaxFailures int
	// Backoff is the pause after the second failure. It doubles with each further one, up to MaxBackoff.
	Backoff, MaxBackoff time.Duration
}

// Grant is a container that was granted to the role and has not been started.
type Grant struct {
	Container id.Container
	Node      id.Node
	// Ask is the id of the ask that was granted. An earlier master may have made it.
	Ask string
	// Version is the newest version that needs the resources of this container. It counts only for an ask that is not open any more,
	// or that an earlier master made.
	Version int32
	At      time.Time
}

// Adopted is a container that an earlier master has started.
type Adopted struct {
	Container id.Container
	Number    int
	Version   int32
	Node      id.Node
	GrantedAt time.Time
}

// Status is what a node reports of a container that has not ended.
type Status struct {
	Container id.Container
	Stage     Stage
	Health    Health
	// RunningSince is set from StageRunning on, HealthySince while the container is Healthy. Both are read from the node's clock.
	RunningSince, HealthySince time.Time
	// Reason is the result of the last failed probe, one sentence; it may be empty.
	Reason string
}

// Stage is how far a node has come with a container.
type Stage uint8

// The stages of a container.
const (
	StagePreparing Stage = iota
	StageDownloading
	StageLoading
	StageLaunching
	StageRunning
	StageStopping
)

// Health is the result of a node's probes of a running container.
type Health uint8

// HealthUnknown containers have not been healthy yet. A container without a probe is Healthy while it runs.
const (
	HealthUnknown Health = iota
	Healthy
	Unhealthy
)

// Exit is how a container ended.
type Exit struct {
	Blame Blame
	// Reason is one sentence.
	Reason string
}

// Blame is what the end of a container counts against.
type Blame uint8

const (
	// BlameNobody is for a container that was preempted, or stopped from outside. That is no failure.
	BlameNobody Blame = iota
	// BlameApp is for a process that ended or did not become healthy. It counts against the version.
	BlameApp
	// BlameNode is for a node that could not run the container or did not answer. It does not count against the version.
	BlameNode
	// BlameEither is for a container that never ran, because of its spec or because of the node. It counts against both.
	BlameEither
)

// onVersion reports whether a failure counts against the version.
func (b Blame) onVersion() bool { return b == BlameApp || b == BlameEither }

// onNode reports whether a failure counts against the node.
func (b Blame) onNode() bool { return b == BlameNode || b == BlameEither }

// StartError is why a node did not accept a start.
type StartError uint8

const (
	// StartRefused: the node refused for a reason of its own.
	StartRefused StartError = iota
	// StartInvalid: the node does not run such a spec.
	StartInvalid
	// StartUnanswered: the node did not answer. The container may run.
	StartUnanswered
)

// NodeState is a node's state according to the ResourceManager.
type NodeState uint8

// Instances are placed on NodeReady nodes, moved away from NodeDraining ones, and replaced when their node is NodeLost.
const (
	NodeReady NodeState = iota
	NodeUnhealthy
	NodeDraining
	NodeLost
)

// Action is something that the caller of Next has to do: one of the types below.
type Action interface{ isAction() }

// Ask requests one container for an instance.
type Ask struct {
	ID, Instance string
	Number       int
	Version      int32
	// Avoid lists nodes that failures count against.
	Avoid []id.Node
	// Replaces is true if the instance has run before.
	Replaces bool
}

// WithdrawAsk takes an ask back.
type WithdrawAsk struct{ ID string }

// Start runs a version in a granted container. The caller may repeat it.
type Start struct {
	Container id.Container
	Instance  string
	Number    int
	Version   int32
}

// Withdraw reports an instance as not in service. The caller answers with Role.Withdrawn once no balancer routes to it.
type Withdraw struct{ Instance string }

// Release gives a container back. If it runs, it is stopped.
type Release struct {
	Container id.Container
	// Reason is one clause for people.
	Reason string
}

// Forget drops the report of an instance that is gone.
type Forget struct{ Instance string }

// Revert requests the version before.
type Revert struct {
	From   int32
	Reason string
}

func (Ask) isAction()         {}
func (WithdrawAsk) isAction() {}
func (Start) isAction()       {}
func (Withdraw) isAction()    {}
func (Release) isAction()     {}
func (Forget) isAction()      {}
func (Revert) isAction()      {}

// Instance is the report of one slot.
type Instance struct {
	Name string
	// Container is zero while the slot has none.
	Container id.Container
	Version   int32
	State     InstanceState
	// InService is true if the instance is to be routed to while its node reports it healthy.
	InService bool
	// Weight is its share of the requests, relative to the other instances in service; 100 is the normal one.
	Weight   int
	Restarts int
	// Failures is their number within the restart window.
	Failures int
	// Reason explains the state in one sentence; it may be empty.
	Reason string
	// NextAttempt is the end of the back-off, zero if there is none.
	NextAttempt time.Time
}

// InstanceState is the state of an instance as people see it.
type InstanceState uint8

// InstanceUnknown is the state of an adopted instance whose node has not reported yet.
const (
	InstanceUnknown InstanceState = iota
	InstancePending
	InstanceDownloading
	InstanceLoading
	InstanceStarting
	InstanceRunning
	InstanceUnhealthy
	InstanceDraining
	InstanceStopping
	InstanceBackoff
	InstanceUnreachable
)

// Rollout is how far the change to the desired version has come.
type Rollout struct {
	Version int32
	State   RolloutState
	// Updated is how many of the Total desired instances run the version and count.
	Updated, Total int
	// Percent is the share of the requests that the version receives.
	Percent int
	// Reason explains the state in one sentence; it may be empty.
	Reason string
	// Failures is the number of failures of the version so far; with MaxFailures it has failed. Failures, MaxFailures, FailsAt and
	// Reverts are zero while the rollout cannot fail: when it is over or a person has paused it.
	Failures, MaxFailures int
	// FailsAt is when the rollout fails if nothing changes; zero if it does not fail by time alone.
	FailsAt time.Time
	// Reverts is true if the version before is restored when the rollout fails.
	Reverts bool
}

// RolloutState is the state of a rollout.
type RolloutState uint8

// A rollout is Reverted when the version that a revert has restored runs.
const (
	NoRollout RolloutState = iota
	Progressing
	Done
	Failed
	Reverted
	// Paused: the rollout continues when a person promotes or resumes it.
	Paused
)
