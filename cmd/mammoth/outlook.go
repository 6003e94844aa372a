package main

import (
	"fmt"
	"time"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
)

// failureOutlook is the number of failures of a version, and when its rollout fails; empty if it cannot fail.
func failureOutlook(app *apiv1.App) string {
	r := rolloutOf(app)
	failures, limit := r.GetFailures(), r.GetMaxFailures()
	if limit <= 0 && r.GetFailsAt() == nil || ends(app) {
		return ""
	}
	fate := "its rollout fails"
	if r.GetReverts() {
		fate = "it is reverted"
	}
	by := ""
	if r.GetFailsAt() != nil {
		by = " at " + momentOf(r.GetFailsAt().AsTime())
	}
	version := fmt.Sprintf("version %d", r.GetVersion())
	switch {
	case failures == 0 && limit > 0 && by != "":
		return fmt.Sprintf("%s: %s after %d failures, or%s without progress", version, fate, limit, by)
	case failures == 0 && limit > 0:
		return fmt.Sprintf("%s: %s after %d failures", version, fate, limit)
	case limit > 0 && failures >= limit:
		return fmt.Sprintf("%s failed %d of %d times; %s%s unless a node turns out to be to blame", version, failures, limit, fate, by)
	case by == "":
		return fmt.Sprintf("%s failed %d of %d times; %s after %d", version, failures, limit, fate, limit)
	case limit <= 0:
		return fmt.Sprintf("%s: %s%s without progress", version, fate, by)
	}
	return fmt.Sprintf("%s failed %d of %d times; %s after %d, or%s without progress", version, failures, limit, fate, limit, by)
}

// outlookText is what happens unless something changes.
func outlookText(outlook *apiv1.Outlook) string {
	text := outlook.GetText()
	if outlook.GetAt() != nil {
		text += " at " + momentOf(outlook.GetAt().AsTime())
	}
	if outlook.GetUnless() != "" {
		text += " unless " + outlook.GetUnless()
	}
	return text
}

// inTrouble reports whether a rollout may fail, so that its outlook is shown.
func inTrouble(app *apiv1.App) bool {
	r := rolloutOf(app)
	return r.GetFailures() > 0 || r.GetState() == dynamicdeployv1.Rollout_PROGRESSING && len(app.GetWaiting()) > 0
}

// momentOf is a future time of day, with its date if it is not soon.
func momentOf(at time.Time) string {
	if time.Until(at) > 20*time.Hour {
		return at.Local().Format("2006-01-02 15:04:05")
	}
	return at.Local().Format("15:04:05")
}
