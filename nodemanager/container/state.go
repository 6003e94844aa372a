// Package container is the life of one container on its node: new, localizing, launching, running, stopping, done. It only
// decides: facts go in, effects come out as values, deadlines are data and time is an argument. Its owner stores the
// container, performs the effects and returns their results as facts.
//
// Vocabulary: a Fact is something that happened, an Event its kind; an Effect is what the owner has to do; an edge is the
// part of the owner that blocks, such as a call of the engine.
package container

import "github.com/mammoth-os/mammoth/internal/fsm"

// State is the state of a container. It only rises.
type State uint8

const (
	// New: accepted, and being stored.
	New State = iota
	// Localizing: its image is being brought to the node. No process exists.
	Localizing
	// Launching: a start was requested; a process may exist.
	Launching
	// Running: its process was seen running.
	Running
	// Stopping: a stop was requested, and it has not been seen gone.
	Stopping
	// Done: it never had a process, or its process was seen gone.
	Done
)

// States lists all states in order.
func States() []State { return []State{New, Localizing, Launching, Running, Stopping, Done} }

func (s State) String() string {
	return [...]string{"new", "localizing", "launching", "running", "stopping", "done"}[s]
}

// Event is the kind of a fact.
type Event uint8

const (
	// Recorded and RecordFailed answer Record: the container does or does not survive a restart of its NodeManager.
	Recorded Event = iota
	RecordFailed
	// Progress reports on Prepare.
	Progress
	// Prepared, PrepareFailed and PrepareUnavailable (the engine did not answer) end Prepare.
	Prepared
	PrepareFailed
	PrepareUnavailable
	// Started, StartFailed and StartUnavailable end Start.
	Started
	StartFailed
	StartUnavailable
	// Ended: the whole process tree was seen gone.
	Ended
	// EndedEarly is Ended before Start has returned. Apply derives it.
	EndedEarly
	// Found: the engine has it running. Missing: the engine does not know it. LeftBehind: the engine has it, not running,
	// although it was removed. All three come from a listing.
	Found
	Missing
	LeftBehind
	// FoundAgain is Found with a later start than the known one: its first process has ended. Apply derives it.
	FoundAgain
	// StopRequested by its application master, the ResourceManager or the node.
	StopRequested
	// Stopped and StopFailed end StopProcess.
	Stopped
	StopFailed
	// ExitAwaited is Stopped while the exit code has not arrived. Apply derives it.
	ExitAwaited
	// ExitTimeout: the exit code did not arrive.
	ExitTimeout
	// ProbePassed and ProbeFailed are results of a probe. ProbeInconclusive: the probe could not be made, which is not the
	// container's fault.
	ProbePassed
	ProbeFailed
	ProbeInconclusive
	// HealthTimeout: it did not become healthy in time.
	HealthTimeout
	// LaunchTimeout: the engine was away for longer than a start is repeated.
	LaunchTimeout
	// RetryDue: an operation that the engine did not answer is to be repeated.
	RetryDue
	// EndAcknowledged: the ResourceManager has stored its end, or holds no lease for it.
	EndAcknowledged
	// Removed, RemoveFailed and RemoveRefused (it is running) end Remove.
	Removed
	RemoveFailed
	RemoveRefused
	// PurgeDue: its logs have expired. Purged and PurgeFailed end Purge.
	PurgeDue
	Purged
	PurgeFailed
)

func (e Event) String() string {
	return [...]string{
		"recorded", "record failed", "progress", "prepared", "prepare failed", "prepare unavailable",
		"started", "start failed", "start unavailable", "ended", "ended early", "found", "missing", "left behind", "found again", "stop requested",
		"stopped", "stop failed", "exit awaited", "exit timeout", "probe passed", "probe failed", "probe inconclusive", "health timeout",
		"launch timeout", "retry due", "end acknowledged", "removed", "remove failed", "remove refused", "purge due", "purged", "purge failed",
	}[e]
}

// Table is the container's state machine. A pair that is missing is a fact that came too late and is ignored.
func Table() fsm.Table[State, Event] { return table }

var table = fsm.New("container", []fsm.Rule[State, Event]{
	{From: []State{New}, On: Recorded, To: Localizing},
	{From: []State{New}, On: RecordFailed, To: Done},
	{From: []State{Localizing}, On: Progress, To: Localizing},
	{From: []State{Localizing}, On: Prepared, To: Launching},
	{From: []State{Localizing}, On: PrepareFailed, To: Done},
	{From: []State{Localizing}, On: PrepareUnavailable, To: Localizing},
	{From: []State{Launching}, On: Started, To: Running},
	{From: []State{Launching}, On: StartFailed, To: Done},
	{From: []State{Launching}, On: StartUnavailable, To: Launching},
	{From: []State{Launching}, On: EndedEarly, To: Launching},
	{From: []State{Localizing}, On: RetryDue, To: Localizing},
	{From: []State{Launching}, On: RetryDue, To: Launching},
	{From: []State{Localizing, Launching}, On: LaunchTimeout, To: Stopping},
	{From: []State{Running}, On: ProbePassed, To: Running},
	{From: []State{Running}, On: ProbeFailed, To: Running},
	{From: []State{Running}, On: ProbeInconclusive, To: Running},
	{From: []State{Running}, On: HealthTimeout, To: Stopping},

	// Listings: after a restart of the NodeManager, or when the engine is back.
	{From: []State{New, Localizing, Launching, Running}, On: Found, To: Running},
	{From: []State{Running}, On: FoundAgain, To: Stopping},
	{From: []State{New, Localizing}, On: Missing, To: Localizing},
	{From: []State{Launching}, On: Missing, To: Launching},
	{From: []State{Running, Stopping}, On: Missing, To: Done},
	{From: []State{Stopping}, On: Found, To: Stopping},
	{From: []State{New, Localizing, Launching, Running, Stopping}, On: Ended, To: Done},

	// Stopping. If no start was requested, the end of the operation in progress is the end.
	{From: []State{New, Localizing, Launching, Running, Stopping}, On: StopRequested, To: Stopping},
	{From: []State{Stopping}, On: Recorded, To: Done},
	{From: []State{Stopping}, On: RecordFailed, To: Done},
	{From: []State{Stopping}, On: Prepared, To: Done},
	{From: []State{Stopping}, On: PrepareFailed, To: Done},
	{From: []State{Stopping}, On: PrepareUnavailable, To: Done},
	{From: []State{Stopping}, On: Started, To: Stopping},
	{From: []State{Stopping}, On: StartFailed, To: Stopping},
	{From: []State{Stopping}, On: StartUnavailable, To: Stopping},
	{From: []State{Stopping}, On: EndedEarly, To: Stopping},
	{From: []State{Stopping}, On: ExitAwaited, To: Stopping},
	{From: []State{Stopping}, On: ExitTimeout, To: Done},
	{From: []State{Stopping}, On: Stopped, To: Done},
	{From: []State{Stopping}, On: StopFailed, To: Stopping},
	{From: []State{Stopping}, On: RetryDue, To: Stopping},

	// The acknowledgement may come before the end. The rest follows the end.
	{From: []State{New}, On: EndAcknowledged, To: New},
	{From: []State{Localizing}, On: EndAcknowledged, To: Localizing},
	{From: []State{Launching}, On: EndAcknowledged, To: Launching},
	{From: []State{Running}, On: EndAcknowledged, To: Running},
	{From: []State{Stopping}, On: EndAcknowledged, To: Stopping},
	{From: []State{Done}, On: EndAcknowledged, To: Done},
	{From: []State{Done}, On: RetryDue, To: Done},
	{From: []State{Done}, On: Removed, To: Done},
	{From: []State{Done}, On: RemoveFailed, To: Done},
	{From: []State{Done}, On: RemoveRefused, To: Done},
	{From: []State{Done}, On: PurgeDue, To: Done},
	{From: []State{Done}, On: Purged, To: Done},
	{From: []State{Done}, On: PurgeFailed, To: Done},

	// It was started again from outside, or the engine created it late: it is stopped and removed again.
	{From: []State{Done}, On: Found, To: Done},
	{From: []State{Done}, On: LeftBehind, To: Done},
	{From: []State{Done}, On: Stopped, To: Done},
	{From: []State{Done}, On: StopFailed, To: Done},
})
