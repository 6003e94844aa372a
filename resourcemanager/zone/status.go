package zone

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
)

// appStatus counts what the master of an app has said of its work. It is not stored.
type appStatus struct {
	// reports counts what the master has said. A status that waits for balancers is dropped if another one has come.
	reports int
}

// report takes in what a master says of its work.
func (vs *versions) report(a *app, status *apiv1.MasterStatus) {
	if status.GetVersion() == 0 {
		status = proto.CloneOf(status)
		status.Version = a.record.GetVersion()
	}
	before := a.record.GetStatus()
	a.status.reports++
	if proto.Equal(before, status) {
		return
	}
	if status.GetState() != apiv1.MasterStatus_WORKING && before.GetState() != status.GetState() {
		// A client that waits for the end of the work must find requests routed that way.
		a.endpoints.OnConfirmed(endpoints.Then{Status: status, Report: a.status.reports})
		vs.apps.touch(a)
		return
	}
	vs.setStatus(a, status)
}

// confirmed takes in the status of a report once balancers have confirmed what was published before it.
func (vs *versions) confirmed(a *app, status *apiv1.MasterStatus, report int) {
	if a.status.reports == report {
		vs.setStatus(a, status)
	}
}

func (vs *versions) setStatus(a *app, after *apiv1.MasterStatus) {
	r := a.record
	before := r.GetStatus()
	r.Status = after
	if before.GetState() != after.GetState() || before.GetVersion() != after.GetVersion() {
		from := ""
		if before.GetVersion() == after.GetVersion() && before != nil {
			from = before.GetState().String()
		}
		text := r.GetName() + ": " + after.GetText()
		if after.GetText() == "" {
			text = fmt.Sprintf("version %d of %s: %s", after.GetVersion(), r.GetName(), strings.ToLower(after.GetState().String()))
		}
		vs.Emit(&apiv1.Event{
			Kind: "status", App: r.GetName(), From: from, To: after.GetState().String(),
			Message: because(text, after.GetReason()),
		})
	}
	vs.apps.changed(a)
}

// forgetStatus forgets what an earlier master said, for an app that is started after a stop.
func (vs *versions) forgetStatus(a *app) { a.record.Status = nil }

// presentStatus is what the master has said of the present version of an app that is to have so many instances.
func (a *app) presentStatus(wanted int32) *apiv1.MasterStatus {
	switch {
	case a.record.GetStatus().GetVersion() == a.record.GetVersion():
		return a.record.GetStatus()
	case withoutRoles(a):
		return &apiv1.MasterStatus{Version: a.record.GetVersion()} // it has no such work unless its master says so
	}
	return a.unreported(wanted)
}

// unreported is the status of an app whose master has not said anything of the present version.
func (a *app) unreported(wanted int32) *apiv1.MasterStatus {
	return &apiv1.MasterStatus{
		State: apiv1.MasterStatus_WORKING, Version: a.record.GetVersion(), Total: wanted,
		Text:   fmt.Sprintf("0 of %s are at version %d", countWord(int(wanted), "instance"), a.record.GetVersion()),
		Reason: "its application master has not begun yet",
	}
}

func isWorking(status *apiv1.MasterStatus) bool {
	return status.GetState() == apiv1.MasterStatus_WORKING
}

// statusObstacles are what an explanation says of work that has failed, or was done otherwise than it was to be.
func statusObstacles(status *apiv1.MasterStatus) []*apiv1.Obstacle {
	if status.GetState() != apiv1.MasterStatus_FAILED && (status.GetState() != apiv1.MasterStatus_DONE || status.GetReason() == "") {
		return nil
	}
	return []*apiv1.Obstacle{{
		Subject: fmt.Sprintf("version %d", status.GetVersion()), Count: status.GetTotal() - status.GetDone(),
		Reason: because(status.GetText(), status.GetReason()), Help: status.GetHelp(),
	}}
}
