// Package spec checks the spec of an app and fills in its defaults. The command line, package manifest, the ResourceManager and
// nodes use it, so that all of them accept the same specs and refuse others with the same sentences.
//
// Vocabulary: a spec is complete if all defaults are filled in; a Fault is one thing that is wrong with it; the essence of a spec
// is the part that cannot change in a running instance.
package spec

import (
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// These are the limits of a spec. docs/design/limits.md lists them too.
const (
	// MaxBytes is the size of a whole spec as a message. A master receives all versions that may still run in one message.
	MaxBytes = 256 << 10
	// MaxInstances limits the instances of all roles of an app together.
	MaxInstances = 10_000
	MaxRoles     = 64
	// MaxList limits the lists whose items cost work: a schedule's entries, ports, constraints, affinities.
	MaxList = 64
	// MaxWord is Linux's limit of one argument, or of one variable as NAME=VALUE, including the NUL at its end.
	MaxWord = 128 << 10
	// MaxPath is Linux's limit of a path, including the NUL at its end.
	MaxPath     = 4096
	MaxName     = 40
	maxText     = 256
	maxPort     = 65535
	maxPortName = 15
	maxSignal   = 15
)

// Quotas of an instance. Engines start no container below MinMemory.
const (
	MinMemory   = 6 << 20
	MaxCPU      = 10_000_000 // millicores
	MaxMemory   = 1 << 46
	MaxDisk     = 1 << 50
	MaxPids     = 1 << 22
	MaxExtended = 1 << 53
)

// Limits of durations.
const (
	MaxGrace        = 24 * time.Hour
	MaxDrain        = 24 * time.Hour
	MaxStartPeriod  = 24 * time.Hour
	MaxDeadline     = 7 * 24 * time.Hour
	MaxWindow       = 7 * 24 * time.Hour
	MaxBackoff      = 24 * time.Hour
	MinInterval     = 10 * time.Millisecond
	MaxInterval     = time.Hour
	MaxTimeout      = time.Minute
	shortestTimeout = time.Millisecond
)

// Fault is one thing that is wrong with a spec.
type Fault struct {
	// Role is the name of the role that has it; empty for the app itself, and for a role without a name.
	Role string
	// Key is the place in a manifest: the keys from the outermost to the innermost, and the index for an item of a list. The
	// manifest need not have it. For the whole spec it is one empty text.
	Key []string
	// Sentence names the key.
	Sentence string
}

// Faults are the faults that were found in a spec, at least one, always in the same order. As an error they have the class
// errdefs.ErrInvalidArgument.
type Faults []Fault

// Error is the sentence of the first fault.
func (f Faults) Error() string {
	if f[0].Role == "" {
		return f[0].Sentence
	}
	return fmt.Sprintf("role %s: %s", f[0].Role, f[0].Sentence)
}

// Unwrap is the error's class.
func (f Faults) Unwrap() error { return errdefs.ErrInvalidArgument }

// checker collects faults.
type checker struct {
	role   string
	faults Faults
}

// fail adds a fault of the value at a key such as "stop.grace".
func (c *checker) fail(key, format string, args ...any) {
	c.failAt(strings.Split(key, "."), format, args...)
}

func (c *checker) failAt(key []string, format string, args ...any) {
	c.faults = append(c.faults, Fault{Role: c.role, Key: key, Sentence: fmt.Sprintf(format, args...)})
}

// quoted quotes a person's text, truncated for a message.
func quoted(text string) string {
	const most = 80
	if len(text) > most {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(text[:most], ""))
	}
	return fmt.Sprintf("%q", text)
}
