// Package container is the life of one container on its node: new, localizing, launching, running, stopping,
// done. It decides and does nothing: facts go in, effects come out as values, deadlines are data and time is
// an argument. Its owner stores the container, then performs the effects and tells what came of them as facts.
package container

import "github.com/mammoth-os/mammoth/internal/fsm"

// State is where a container is in its life. It only rises.
type State uint8

const (
	// New: accepted, and being written down.
	New State = iota
	// Localizing: its image is brought to the node. No process exists.
	Localizing
	// Launching: a start was asked for; a process may exist.
	Launching
	// Running: its process was seen running.
	Running
	// Stopping: its end is wanted, and it was not yet seen gone.
	Stopping
	// Done: it never had a process, or its process was seen gone.
	Done
)

// States are all of them, in the order of a life.
func States() []State { return []State{New, Localizing, Launching, Running, Stopping, Done} }

func (s State) String() string {
	return [...]string{"new", "localizing", "launching", "running", "stopping", "done"}[s]
}

// Event is what a fact is about.
type Event uint8

const (
	// Recorded and RecordFailed answer Record: it will or will not survive a restart of its NodeManager.
	Recorded Event = iota
	RecordFailed
	// Progress of Prepare.
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
	// EndedEarly is Ended while Start has not returned. Apply derives it.
	EndedEarly
	// Found and Missing: the engine, asked for all it has, has it running or has never heard of it. LeftBehind: the
	// engine has it, and it does not run, though it was removed.
	Found
	Missing
	LeftBehind
	// FoundAgain is Found with a later start than the one that was seen: its first process has ended. Apply derives it.
	FoundAgain
	// StopWanted by its application master, the ResourceManager or the node.
	StopWanted
	// Stopped and StopFailed end Stop.
	Stopped
	StopFailed
	// ExitAwaited is Stopped with the exit code still to come. Apply derives it.
	ExitAwaited
	// ExitOverdue: the exit code did not come.
	ExitOverdue
	// Passed and Failing are verdicts of its probe. Unjudged: its probe could not be made, for which it is not to blame.
	Passed
	Failing
	Unjudged
	// HealthOverdue: it had its time to become healthy, and was not.
	HealthOverdue
	// LaunchOverdue: the engine was away for longer than a start is retried.
	LaunchOverdue
	// RetryDue: what failed for want of the engine is to be tried again.
	RetryDue
	// Forgotten: the ResourceManager has stored its end, or holds no lease for it.
	Forgotten
	// Removed, RemoveFailed and RemoveRefused (it runs) end Remove.
	Removed
	RemoveFailed
	RemoveRefused
	// PurgeDue: nobody may ask for its logs any more. Purged and PurgeFailed end Purge.
	PurgeDue
	Purged
	PurgeFailed

	events = iota
)

// Events are all of them.
func Events() []Event {
	all := make([]Event, events)
	for i := range all {
		all[i] = Event(i)
	}
	return all
}

func (e Event) String() string {
	return [...]string{
		"recorded", "record failed", "progress", "prepared", "prepare failed", "prepare unavailable",
		"started", "start failed", "start unavailable", "ended", "ended early", "found", "missing", "left behind", "found again", "stop wanted",
		"stopped", "stop failed", "exit awaited", "exit overdue", "passed", "failing", "unjudged", "health overdue",
		"launch overdue", "retry due", "forgotten", "removed", "remove failed", "remove refused", "purge due", "purged", "purge failed",
	}[e]
}

// Table is the container's state machine. A pair that it does not have is a fact that came too late to matter.
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
	{From: []State{Localizing, Launching}, On: LaunchOverdue, To: Stopping},
	{From: []State{Running}, On: Passed, To: Running},
	{From: []State{Running}, On: Failing, To: Running},
	{From: []State{Running}, On: Unjudged, To: Running},
	{From: []State{Running}, On: HealthOverdue, To: Stopping},

	// What the engine has: after a restart of the NodeManager, or when the engine is back.
	{From: []State{New, Localizing, Launching, Running}, On: Found, To: Running},
	{From: []State{Running}, On: FoundAgain, To: Stopping},
	{From: []State{New, Localizing}, On: Missing, To: Localizing},
	{From: []State{Launching}, On: Missing, To: Launching},
	{From: []State{Running, Stopping}, On: Missing, To: Done},
	{From: []State{Stopping}, On: Found, To: Stopping},
	{From: []State{New, Localizing, Launching, Running, Stopping}, On: Ended, To: Done},

	// The way down. Where no start was asked for, the end of what was under way is the end.
	{From: []State{New, Localizing, Launching, Running, Stopping}, On: StopWanted, To: Stopping},
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
	{From: []State{Stopping}, On: ExitOverdue, To: Done},
	{From: []State{Stopping}, On: Stopped, To: Done},
	{From: []State{Stopping}, On: StopFailed, To: Stopping},
	{From: []State{Stopping}, On: RetryDue, To: Stopping},

	// After the end.
	{From: []State{New}, On: Forgotten, To: New},
	{From: []State{Localizing}, On: Forgotten, To: Localizing},
	{From: []State{Launching}, On: Forgotten, To: Launching},
	{From: []State{Running}, On: Forgotten, To: Running},
	{From: []State{Stopping}, On: Forgotten, To: Stopping},
	{From: []State{Done}, On: Forgotten, To: Done},
	{From: []State{Done}, On: RetryDue, To: Done},
	{From: []State{Done}, On: Removed, To: Done},
	{From: []State{Done}, On: RemoveFailed, To: Done},
	{From: []State{Done}, On: RemoveRefused, To: Done},
	{From: []State{Done}, On: PurgeDue, To: Done},
	{From: []State{Done}, On: Purged, To: Done},
	{From: []State{Done}, On: PurgeFailed, To: Done},

	// Somebody else has started it again, or the engine made it after all: it is ended and removed once more.
	{From: []State{Done}, On: Found, To: Done},
	{From: []State{Done}, On: LeftBehind, To: Done},
	{From: []State{Done}, On: Stopped, To: Done},
	{From: []State{Done}, On: StopFailed, To: Done},
})
