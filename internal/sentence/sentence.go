// Package sentence puts together the sentences that people read, where more than one program says the same: the names of many things, and
// what happens unless something changes.
// It has no state.
package sentence

import (
	"fmt"
	"strings"
)

// most is how many names a sentence has.
const most = 3

// Names names the first few: "web-1, web-2, web-3 and 4 more".
func Names(names []string) string {
	text := strings.Join(names[:min(len(names), most)], ", ")
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// Because is a sentence with its reason, and with what a person could do; either may be empty.
func Because(text, reason, help string) string {
	if reason != "" {
		text += ": " + reason
	}
	if help != "" {
		text += "; " + help
	}
	return text
}

// Outlook is what happens unless something changes: "version 4 is reverted at 10:31:20 unless it makes progress". When is a moment, such as
// "at 10:31:20" or "in 2m0s"; it and unless may be empty.
func Outlook(text, when, unless string) string {
	if when != "" {
		text += " " + when
	}
	if unless != "" {
		text += " unless " + unless
	}
	return text
}
