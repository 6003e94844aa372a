package driver

import (
	"strings"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// maxReasons is how many reasons a sentence about a failed rollout has.
const maxReasons = 3

// waitReason is a text of the reasons why instances of a role are missing.
func waitReason(role string, waiting []*apiv1.Waiting) string {
	var texts []string
	for _, w := range waiting {
		if w.GetInstances() == 0 || w.GetRole() != role || len(texts) == maxReasons {
			continue
		}
		text := w.GetText()
		if w.GetHelp() != "" {
			text += "; " + w.GetHelp()
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}
