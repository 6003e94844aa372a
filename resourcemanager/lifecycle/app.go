// Package lifecycle has the state machines of apps, attempts, containers and nodes. It is pure: tables without callbacks, whose
// owner stores the new state and then acts. The states have the names and numbers of the protocol, and YARN's meaning where YARN
// has the state.
package lifecycle

import "github.com/mammoth-os/mammoth/internal/fsm"

// AppState is the state of an app; see apiv1.App_State.
type AppState uint8

// The states of an app.
const (
	AppUnspecified AppState = iota
	AppAccepted
	AppRunning
	AppStopping
	AppStopped
	AppDegraded
	AppRemoving
	AppRemoved
)

// String is the protocol's name.
func (s AppState) String() string {
	return name(s, "STATE_UNSPECIFIED", "ACCEPTED", "RUNNING", "STOPPING", "STOPPED", "DEGRADED", "REMOVING", "REMOVED")
}

// AppEvent is what can happen to an app.
type AppEvent uint8

// The events of an app.
const (
	// AppSubmitted: it was deployed for the first time.
	AppSubmitted AppEvent = iota
	// AppMasterRegistered: its newest attempt has registered.
	AppMasterRegistered
	// AppAttemptEnded: its newest attempt has ended, and another may follow.
	AppAttemptEnded
	// AppAttemptsExhausted: attempts failed so often that no other is started automatically.
	AppAttemptsExhausted
	// AppStart: a person starts it.
	AppStart
	// AppStop: a person, or its own master, stops it.
	AppStop
	// AppRemove: a person removes it.
	AppRemove
	// AppEmpty: all its containers were seen gone, including its master's.
	AppEmpty
)

// String names the event.
func (e AppEvent) String() string {
	return name(e, "submitted", "master registered", "attempt ended", "attempts exhausted", "start", "stop", "remove", "empty")
}

var appRules = []fsm.Rule[AppState, AppEvent]{
	{From: []AppState{AppUnspecified}, On: AppSubmitted, To: AppAccepted},
	{From: []AppState{AppAccepted, AppRunning}, On: AppMasterRegistered, To: AppRunning},
	{From: []AppState{AppAccepted, AppRunning}, On: AppAttemptEnded, To: AppAccepted},
	{From: []AppState{AppAccepted, AppRunning, AppDegraded}, On: AppAttemptsExhausted, To: AppDegraded},
	{From: []AppState{AppDegraded}, On: AppAttemptEnded, To: AppDegraded},

	{From: []AppState{AppRunning}, On: AppStart, To: AppRunning},
	{From: []AppState{AppAccepted, AppDegraded, AppStopping, AppStopped}, On: AppStart, To: AppAccepted},

	{From: []AppState{AppAccepted, AppRunning, AppDegraded, AppStopping}, On: AppStop, To: AppStopping},
	{From: []AppState{AppStopped}, On: AppStop, To: AppStopped},
	{From: []AppState{AppStopping}, On: AppMasterRegistered, To: AppStopping},
	{From: []AppState{AppStopping}, On: AppAttemptEnded, To: AppStopping},
	{From: []AppState{AppStopping}, On: AppEmpty, To: AppStopped},

	{
		From: []AppState{AppAccepted, AppRunning, AppDegraded, AppStopping, AppStopped, AppRemoving},
		On:   AppRemove, To: AppRemoving,
	},
	{From: []AppState{AppRemoving}, On: AppMasterRegistered, To: AppRemoving},
	{From: []AppState{AppRemoving}, On: AppAttemptEnded, To: AppRemoving},
	{From: []AppState{AppRemoving}, On: AppEmpty, To: AppRemoved},
}

// Apps is the state machine of an app. A request that comes too late, such as a start of an app that is being removed, has no rule.
func Apps() fsm.Table[AppState, AppEvent] { return fsm.New("app", appRules) }
