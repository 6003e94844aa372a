package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// foreign reports whether what an app's containers run, and how many there are to be, is its master's affair.
func foreign(app *apiv1.App) bool { return app.GetSpec() != nil && !spec.HasRoles(app.GetSpec()) }

// runningText is how many instances of an app run, and of how many where that is known.
func runningText(app *apiv1.App) string {
	if foreign(app) {
		return fmt.Sprintf("%s run", plural(int(app.GetRunning()), "instance"))
	}
	return runningOf(app.GetRunning(), desiredCount(app), " instances")
}

// runningOf is how many instances run, of those that are desired. During a rollout there may be more.
func runningOf(running, desired int32, noun string) string {
	if running > desired {
		return fmt.Sprintf("%d%s run, desired: %d", running, noun, desired)
	}
	return fmt.Sprintf("%d of %d%s run", running, desired, noun)
}

// optionsText is what an app says for its master, in one line.
func optionsText(options *structpb.Struct) string {
	text, err := json.Marshal(options.AsMap())
	if err != nil {
		return "?" // the zone takes only what is JSON
	}
	return string(text)
}

// worked is done when a master that is not DynamicDeploy has done its work on the version; where the work has an end, when it has
// succeeded.
func worked(c change, now *apiv1.App) (bool, error) {
	status := now.GetStatus()
	switch {
	case now.GetVersion() > c.app.GetVersion():
		return false, errReplaced
	case now.GetState() == apiv1.App_DEGRADED:
		return false, fmt.Errorf("it has no application master: %s", reasonOf(now.GetReason(), now))
	case now.GetState() == apiv1.App_STOPPED && now.GetOutcome() == apiv1.App_SUCCEEDED:
		return true, nil
	case now.GetState() == apiv1.App_STOPPED && now.GetOutcome() != apiv1.App_OUTCOME_NONE:
		return false, errors.New(because("its work has "+map[bool]string{true: "failed", false: "been killed"}[now.GetOutcome() == apiv1.App_FAILED], now.GetReason()))
	case now.GetState() == apiv1.App_STOPPED || now.GetState() == apiv1.App_REMOVING:
		return false, errors.New(because("it is "+word(now.GetState())+" meanwhile", now.GetReason()))
	case now.GetEnds() || now.GetState() != apiv1.App_RUNNING || !heeded(c, now):
		return false, nil
	case status.GetState() == apiv1.MasterStatus_FAILED:
		return false, errors.New(failureOf(now))
	}
	return status.GetState() != apiv1.MasterStatus_WORKING, nil
}

// workText is how the work of a master that is not DynamicDeploy is.
func workText(app *apiv1.App) string {
	if app.GetState() == apiv1.App_STOPPED {
		return because(stateWord(app), app.GetReason())
	}
	text := runningText(app)
	if app.GetStatus().GetText() != "" {
		text = app.GetStatus().GetText()
	}
	return withWhy(fmt.Sprintf("%s, version %d", text, app.GetVersion()), app.GetStatus())
}
