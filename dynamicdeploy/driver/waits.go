package driver

import (
	"strings"

	"github.com/mammoth-os/mammoth/internal/sentence"
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
		texts = append(texts, sentence.Because(w.GetText(), "", w.GetHelp()))
	}
	return strings.Join(texts, "; ")
}
