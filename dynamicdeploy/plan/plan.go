// Package plan decides what becomes of the instances of one role: facts go in, actions come out, time is an argument.
//
// An instance is a slot with a number ("web-3"). It is opened with the lowest free number, is given one container after
// another as they fail, and is closed when it is no longer wanted. What is done with a slot follows from one table
// (table.go): the goal it has × the phase it is seen in → one step. Which goal it has follows from arithmetic over all
// slots (choose.go): count, versions, surge, health.
package plan

import (
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Wanted is what people want of the role now.
type Wanted struct {
	// Count of instances; zero when the app is stopped or removed.
	Count int
	// Version that they are to run. Instances of every other version are replaced.
	Version int32
	// RestartBefore: containers granted before this instant are replaced too. Zero is none.
	RestartBefore time.Time
	// Drain is how long a withdrawn instance goes on before it is stopped.
	Drain time.Duration
	// StartPeriod is how long a running container may take to become healthy; zero is for ever.
	StartPeriod time.Duration
	// Hesitation is added to StartPeriod before it is called unhealthy: its node is to do that first.
	Hesitation time.Duration
	Update     Update
	Restart    Restart
	// CanRevert says that a failed rollout of Version is to be taken back.
	CanRevert bool
	// Reverted says that Version itself is such a taking back.
	Reverted bool
	// Paused: the rollout is held where it is.
	Paused bool
}

// Update is how one version takes the place of another.
type Update struct {
	Strategy Strategy
	// Percent is the share of requests that a canary is given; from 100 on it takes the place of the version before it.
	Percent int
	// Exclusive: new instances of BlueGreen serve only once the old ones are gone.
	Exclusive bool
	// MaxSurge is how many instances there may be above the count; MaxUnavailable how many healthy ones may be missing.
	MaxSurge, MaxUnavailable int
	// MinHealthy is how long an instance must have been healthy, without a break, before it counts.
	MinHealthy time.Duration
	// Deadline without progress after which a rollout has failed. Zero is none.
	Deadline time.Duration
	// MaxErrorPercent is the share of the new version's answers that may be errors. Zero does not look.
	MaxErrorPercent float64
}

// Strategy is the way from one version to the next.
type Strategy uint8

// Rolling replaces instances a few at a time. Canary first puts some of the new version beside the old one and gives them
// a share of the requests. BlueGreen has as many new instances as old ones ready before any of them serves.
const (
	Rolling Strategy = iota
	Canary
	BlueGreen
)

// Restart is how failures are held back. They are counted in a sliding window.
type Restart struct {
	Window              time.Duration
	MaxFailures         int
	Backoff, MaxBackoff time.Duration
}

// Grant is a container that was given to the role and not started yet.
type Grant struct {
	Container id.Container
	Node      id.Node
	// Ask that it answers, of this master or of one before it.
	Ask string
	// Version whose resources it has; only used for an Ask of an earlier master.
	Version int32
	At      time.Time
}

// Adopted is a container that an earlier master started.
type Adopted struct {
	Container id.Container
	Number    int
	Version   int32
	Node      id.Node
	GrantedAt time.Time
}

// Status is what a node has seen of a container that has not ended.
type Status struct {
	Container id.Container
	Stage     Stage
	Health    Health
	// RunningSince is set from Running on, GoodSince while it is Good. They are the node's clock.
	RunningSince, GoodSince time.Time
	// Reason is the node's sentence about a failing probe; may be empty.
	Reason string
}

// Stage is how far a container has come on its node.
type Stage uint8

// The stages of a container.
const (
	Preparing Stage = iota
	Downloading
	Loading
	Launching
	Running
	Ending
)

// Health is what the node's probes say of a running container.
type Health uint8

// Unproven containers have not been healthy yet. Where no probe is declared, running is Good.
const (
	Unproven Health = iota
	Good
	Bad
)

// Exit is how a container ended.
type Exit struct {
	Blame Blame
	// Reason is one sentence.
	Reason string
}

// Blame says whose fault an end was.
type Blame uint8

const (
	// Nobody: it was preempted, or stopped from outside. It does not count as a failure.
	Nobody Blame = iota
	// App: the process ended, or did not become healthy. That is held against its version.
	App
	// Node: the node could not run it, or did not answer. That says nothing of its version.
	Node
	// Either: it never ran, and what it was to run may be the reason as well as the node.
	Either
)

// ofVersion reports whether a failure is held against the version.
func (b Blame) ofVersion() bool { return b == App || b == Either }

// ofNode reports whether a failure is held against the node.
func (b Blame) ofNode() bool { return b == Node || b == Either }

// Refusal is why a start was not accepted.
type Refusal uint8

const (
	// Refused by the node, for a reason of its own.
	Refused Refusal = iota
	// RefusedSpec: the node does not run such a thing.
	RefusedSpec
	// Unanswered: the container may run all the same, and serve.
	Unanswered
)

// NodeState is what the ResourceManager thinks of a node.
type NodeState uint8

// Only a Ready node is preferred; from a Draining one instances are moved, from a Lost one they are replaced.
const (
	Ready NodeState = iota
	Unwell
	Draining
	Lost
)

// Action is one thing to be done. Each is one of the types below.
type Action interface{ isAction() }

// Ask for one container for an instance.
type Ask struct {
	ID, Instance string
	Number       int
	Version      int32
	// Avoid names nodes that are to blame for failures.
	Avoid []id.Node
	// Replaces says that the instance has run before.
	Replaces bool
}

// Unask withdraws an ask.
type Unask struct{ ID string }

// Start the version in a granted container. It may have been started already, which is harmless.
type Start struct {
	Container id.Container
	Instance  string
	Number    int
	Version   int32
}

// TakeOut reports an instance as not in service, and asks to be told when no balancer routes to it any more.
type TakeOut struct{ Instance string }

// Release gives a container back; it is stopped if it runs.
type Release struct{ Container id.Container }

// Close forgets an instance that is gone.
type Close struct{ Instance string }

// Revert asks to go back to the version before.
type Revert struct {
	From   int32
	Reason string
}

func (Ask) isAction()     {}
func (Unask) isAction()   {}
func (Start) isAction()   {}
func (TakeOut) isAction() {}
func (Release) isAction() {}
func (Close) isAction()   {}
func (Revert) isAction()  {}

// Instance is what is reported of one slot.
type Instance struct {
	Name      string
	Container id.Container
	Version   int32
	State     State
	InService bool
	// Weight is its share of the requests among the instances that are in service; 100 is the normal one.
	Weight   int
	Restarts int
	// Failures within the window.
	Failures int
	Reason   string
	// NextAttempt is when a start that is held back is tried.
	NextAttempt time.Time
}

// State is an instance's state as people see it.
type State uint8

// Unseen instances were taken over and no node has spoken of them yet.
const (
	Unseen State = iota
	Pending
	IsDownloading
	IsLoading
	Starting
	IsRunning
	Unhealthy
	IsDraining
	Stopping
	Backoff
	Unreachable
)

// Rollout is how far the change to the wanted version has come.
type Rollout struct {
	Version        int32
	State          RolloutState
	Updated, Total int
	// Percent is the share of requests that the new version is given.
	Percent int
	Reason  string
	// Failures of the version that count so far, of the MaxFailures with which it has failed. These and the two below are zero
	// unless the rollout is judged at present.
	Failures, MaxFailures int
	// FailsAt is when it has failed if nothing changes: without progress, or with too many failures unless a node turns out to be
	// to blame. Zero while nothing of that passes.
	FailsAt time.Time
	// Reverts: the version before is brought back then.
	Reverts bool
}

// RolloutState is where a rollout stands.
type RolloutState uint8

// The states of a rollout. It is Reverted when the version that a revert brought back runs.
const (
	NoRollout RolloutState = iota
	Progressing
	Done
	Failed
	Reverted
	// Paused: people have to say how it goes on.
	Paused
)
