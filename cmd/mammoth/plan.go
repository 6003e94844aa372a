package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/mammoth-os/mammoth/internal/manifest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// dryRunTable says where what is new would be placed, and what would be replaced.
func dryRunTable(w io.Writer, name string, answer *apiv1.DeployResponse) error {
	if len(answer.GetPlacements()) > 0 {
		t := newTable(w, "INSTANCE", "NODE")
		for _, placed := range answer.GetPlacements() {
			t.row(placed.GetInstance(), placed.GetNode())
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if err := previewText(w, answer.GetPreview()); err != nil {
		return err
	}
	if summary := answer.GetExplanation().GetSummary(); summary != "" || len(answer.GetExplanation().GetObstacles()) > 0 {
		return explanationText(w, answer.GetExplanation())
	}
	_, err := fmt.Fprintf(w, "%s: all %d instances would be placed; nothing was changed\n", name, len(answer.GetPlacements()))
	return err
}

// previewText is what the app's master says of each role that it would do.
func previewText(w io.Writer, preview *apiv1.Previewed) error {
	for _, line := range preview.GetLines() {
		text := line.GetText()
		if line.GetRole() != "" {
			text = line.GetRole() + ": " + text
		}
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	return nil
}

// printDiff prints what a deployment would change. Its error is the exit code for differences.
func (c *deploymentCommands) printDiff(name string, answer *apiv1.DeployResponse) error {
	if err := c.print(answer, func(w io.Writer) error { return diffText(w, name, answer) }); err != nil {
		return err
	}
	if manifest.Differs(answer.GetDiff()) {
		return exitError(exitDiffers)
	}
	return nil
}

// effects say what becomes of a role, behind a mark.
var effects = map[apiv1.RoleDiff_Effect]struct{ mark, text string }{
	apiv1.RoleDiff_UNCHANGED: {" ", "nothing changes"},
	apiv1.RoleDiff_IN_PLACE:  {"~", "its instances keep running"},
	apiv1.RoleDiff_REPLACED:  {"~", "its instances are replaced"},
	apiv1.RoleDiff_ADDED:     {"+", "its instances are started"},
	apiv1.RoleDiff_REMOVED:   {"-", "its instances are ended"},
}

// diffText writes a diff: + is new, - goes, ~ changes.
func diffText(w io.Writer, name string, answer *apiv1.DeployResponse) error {
	diff := answer.GetDiff()
	if !manifest.Differs(diff) {
		_, err := fmt.Fprintf(w, "%s: nothing would change\n", name)
		return err
	}
	var out strings.Builder
	write := func(indent string, fields []*apiv1.FieldDiff) {
		for _, field := range fields {
			switch before, after := field.GetBefore(), field.GetAfter(); {
			case before == "":
				fmt.Fprintf(&out, "%s+ %s: %s\n", indent, field.GetKey(), after)
			case after == "":
				fmt.Fprintf(&out, "%s- %s: %s\n", indent, field.GetKey(), before)
			default:
				fmt.Fprintf(&out, "%s~ %s: %s → %s\n", indent, field.GetKey(), before, after)
			}
		}
	}
	write("", diff.GetFields())
	for _, role := range diff.GetRoles() {
		what := name
		if role.GetRole() != "" {
			what = "role " + role.GetRole()
		}
		effect := effects[role.GetEffect()]
		fmt.Fprintf(&out, "%s %s: %s\n", effect.mark, what, effect.text)
		write("  ", role.GetFields())
	}
	if _, err := io.WriteString(w, out.String()); err != nil {
		return err
	}
	if err := previewText(w, answer.GetPreview()); err != nil {
		return err
	}
	if len(answer.GetExplanation().GetObstacles()) > 0 {
		return explanationText(w, answer.GetExplanation())
	}
	return nil
}
