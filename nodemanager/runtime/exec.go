package runtime

import (
	"fmt"
	"io"
)

// WhyNot is why a command cannot be run.
type WhyNot struct {
	// Missing: there is no such program.
	Missing bool
	// Reason goes behind "cannot run it: ".
	Reason string
}

// The exit codes of a command that cannot be run are a shell's.
const (
	exitNotExecutable = 126
	exitMissing       = 127
)

// CannotRun ends an exec whose command never ran, as a shell would: one sentence where its errors go, and exit code 127 for a
// program that is missing, 126 for one that cannot be executed.
func (e Exec) CannotRun(why WhyNot) (int, error) {
	out, end := e.Stderr, "\n"
	if e.TTY {
		out, end = e.Stdout, "\r\n"
	}
	if out == nil {
		out = io.Discard
	}
	code := exitNotExecutable
	if why.Missing {
		code, why.Reason = exitMissing, "there is no such program in the container"
	}
	_, err := fmt.Fprintf(out, "mammoth: cannot run %s: %s%s", e.Command[0], why.Reason, end)
	return code, err
}
