package main

import (
	"fmt"

	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// calendarNotes describes, for each role with a schedule, the number in force, who set it, and until when.
func calendarNotes(app *apiv1.App) []string {
	var notes []string
	for _, held := range app.GetSchedules() {
		number := plural(int(held.GetInstances()), "instance")
		if held.GetRole() != "" {
			number += " of " + held.GetRole()
		}
		var note string
		switch {
		case held.GetByCalendar() && held.GetUntil() == nil:
			note = fmt.Sprintf("%s by the calendar", number)
		case held.GetByCalendar():
			note = fmt.Sprintf("%s by the calendar until %s, then %d", number, moment(held.GetUntil()), held.GetThen())
		case held.GetUntil() == nil:
			continue
		default:
			note = fmt.Sprintf("%s until %s, when the calendar sets %d", number, moment(held.GetUntil()), held.GetThen())
		}
		if held.GetByCalendar() && held.GetInstances() != held.GetSpecInstances() {
			note += fmt.Sprintf(" (%d without it)", held.GetSpecInstances())
		}
		notes = append(notes, note)
	}
	return notes
}

// bySpec is the note beside an app's count if the calendar has set another one than the manifest.
func bySpec(app *apiv1.App) string {
	if specified := spec.Instances(app.GetSpec()); len(app.GetSchedules()) > 0 && specified != desiredCount(app) {
		return fmt.Sprintf(" (%d without the calendar)", specified)
	}
	return ""
}
