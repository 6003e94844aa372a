package driver

import (
	"strings"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// mostWaits is how many reasons a sentence about a failed rollout carries.
const maxReasons = 3

// waitsOf is in words what instances of a role wait for.
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
