package zone

import (
	"fmt"
	"time"

	"github.com/mammoth-os/mammoth/internal/sentence"
)

// because is a sentence with its reason, which may be empty.
func because(text, reason string) string { return sentence.Because(text, reason, "") }

// stateName is empty for the state before the first.
func stateName[S interface {
	~uint8
	String() string
}](state S) string {
	if state == 0 {
		return ""
	}
	return state.String()
}

// countWord is "1 node" or "3 nodes".
func countWord(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// durationWords writes how long something has lasted.
func durationWords(d time.Duration) string { return d.Round(time.Second).String() }
