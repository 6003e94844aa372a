package lifecycle

import "github.com/mammoth-os/mammoth/internal/fsm"

// AttemptState is the state of an attempt; see apiv1.Master_State.
type AttemptState uint8

// The states of an attempt.
const (
	AttemptUnspecified AttemptState = iota
	AttemptScheduled
	AttemptLaunched
	AttemptRegistered
	AttemptFailed
	AttemptFinished
)

// String is the protocol's name.
func (s AttemptState) String() string {
	return name(s, "STATE_UNSPECIFIED", "SCHEDULED", "LAUNCHED", "REGISTERED", "FAILED", "FINISHED")
}

// Live reports whether the attempt may still act for its app.
func (s AttemptState) Live() bool {
	return s == AttemptScheduled || s == AttemptLaunched || s == AttemptRegistered
}

// AttemptEvent is what can happen to an attempt.
type AttemptEvent uint8

// The events of an attempt.
const (
	// AttemptSubmitted: a container was requested for it.
	AttemptSubmitted AttemptEvent = iota
	// AttemptGranted: it has a container, and its node receives the command to launch it.
	AttemptGranted
	// AttemptRegisters: the master has registered. It registers again after a restart of the ResourceManager.
	AttemptRegisters
	// AttemptEnds: its container ended, its node is lost, or it was silent for too long.
	AttemptEnds
	// AttemptFinishes: its work is done, or the app is stopped or removed.
	AttemptFinishes
)

// String names the event.
func (e AttemptEvent) String() string {
	return name(e, "submitted", "granted", "registers", "ends", "finishes")
}

var attemptRules = []fsm.Rule[AttemptState, AttemptEvent]{
	{From: []AttemptState{AttemptUnspecified, AttemptFailed, AttemptFinished}, On: AttemptSubmitted, To: AttemptScheduled},
	{From: []AttemptState{AttemptScheduled}, On: AttemptGranted, To: AttemptLaunched},
	{From: []AttemptState{AttemptLaunched, AttemptRegistered}, On: AttemptRegisters, To: AttemptRegistered},
	{From: []AttemptState{AttemptScheduled, AttemptLaunched, AttemptRegistered}, On: AttemptEnds, To: AttemptFailed},
	{From: []AttemptState{AttemptScheduled, AttemptLaunched, AttemptRegistered}, On: AttemptFinishes, To: AttemptFinished},
}

// Attempts is the state machine of an app's newest attempt. After the end of an attempt, AttemptSubmitted begins the next one: so
// an app never has more than one live attempt.
func Attempts() fsm.Table[AttemptState, AttemptEvent] { return fsm.New("attempt", attemptRules) }
