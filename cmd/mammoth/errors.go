package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mammoth-os/mammoth/internal/wire"
)

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	// exitDiffers is the exit code of --diff if something would change.
	exitDiffers = 3
	// The exit code of a process that a signal has ended, as in a shell.
	exitInterrupted = 128 + int(syscall.SIGINT)
	exitTerminated  = 128 + int(syscall.SIGTERM)
)

// usageError is a mistake in the command line: exit code 2.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitError is an exit code without a message: that of a command that ran in a container, or exitDiffers.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// exitCode prints err for the person, every line a sentence, and returns the process's exit code. An interruption is named
// only if there is nothing else to report.
func (s streams) exitCode(ctx context.Context, err error) int {
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errInterrupted) {
		if !errors.Is(err, errInterrupted) {
			s.say(err)
		}
		if errors.Is(cause, errTerminated) {
			return exitTerminated
		}
		return exitInterrupted
	}
	var exit exitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &exit):
		return int(exit)
	}
	var usage usageError
	s.say(err)
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// say prints an error for a person, every line a sentence.
func (s streams) say(err error) {
	for line := range strings.SplitSeq(wire.Sentence(err), "\n") {
		fmt.Fprintf(s.err, "mammoth: %s\n", visible(line))
	}
}

// flagError is what is wrong with a flag, without the library's own text.
func flagError(cmd *cobra.Command, err error) error {
	text := strings.TrimPrefix(err.Error(), "pflag: ")
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return usagef("%s; see `%s --help`", text, cmd.CommandPath())
	}
	value := invalid.GetFlag().Value
	if address, ok := value.(addressFlag); ok {
		return usagef("--%s: %q is not %s", invalid.GetFlag().Name, invalid.GetValue(), addressHints[address.kind])
	}
	if _, ok := value.(lengthFlag); ok {
		return usagef("--%s: %q is not %s", invalid.GetFlag().Name, invalid.GetValue(), lengthHint)
	}
	kind := "is not " + map[string]string{
		"int": "a whole number", "int32": "a whole number", "int64": "a whole number", "uint64": "a whole number from 0 on", "float64": "a number",
		"bool": "true or false", "duration": "a length of time as in 10s or 5m",
	}[value.Type()]
	return usagef("--%s: %q %s", invalid.GetFlag().Name, invalid.GetValue(), kind)
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		hint := "; --help lists what there is"
		cmd.SuggestionsMinimumDistance = min(2, len(args[0])-1) // a change of all letters is another word
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf("; did you mean %q?", near[0])
		}
		return usagef("unknown command %q for %q%s", args[0], cmd.CommandPath(), hint)
	}
	return usagef("`%s` takes no %q; see `%s --help`", cmd.CommandPath(), args[0], cmd.CommandPath())
}

// names requires the arguments of the command's use line.
func names(want ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(want):
			return usagef("`%s` needs %s; see `%s --help`", cmd.CommandPath(), want[len(args)], cmd.CommandPath())
		case len(args) > len(want):
			return usagef("`%s` takes no %q; see `%s --help`", cmd.CommandPath(), args[len(want)], cmd.CommandPath())
		}
		return nil
	}
}
