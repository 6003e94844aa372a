package main

import (
	"slices"
	"time"

	"github.com/mammoth-os/mammoth/internal/sentence"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// outlookText is what happens to an app unless something changes, in the words of its master; empty if nothing is known to happen.
func outlookText(app *apiv1.App) string {
	outlook, when := app.GetStatus().GetOutlook(), ""
	if outlook == nil || ends(app) {
		return ""
	}
	if outlook.GetAt() != nil {
		when = "at " + momentOf(outlook.GetAt().AsTime())
	}
	return sentence.Outlook(outlook.GetText(), when, outlook.GetUnless())
}

// inTrouble reports whether whoever waits for an app is shown its outlook: the work goes on and waits for something, or has met failures.
func inTrouble(app *apiv1.App) bool {
	return hasFailures(app) || app.GetStatus().GetState() == apiv1.MasterStatus_WORKING && len(app.GetWaiting()) > 0
}

// hasFailures reports whether instances of the version that the master works on have failed.
func hasFailures(app *apiv1.App) bool {
	return slices.ContainsFunc(app.GetInstances(), func(instance *apiv1.Instance) bool {
		return instance.GetFailures() > 0 && instance.GetVersion() == app.GetStatus().GetVersion()
	})
}

// momentOf is a future time of day, with its date if it is not soon.
func momentOf(at time.Time) string {
	if time.Until(at) > 20*time.Hour {
		return at.Local().Format("2006-01-02 15:04:05")
	}
	return at.Local().Format("15:04:05")
}
