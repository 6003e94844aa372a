package main

import (
	"errors"
	"time"

	"github.com/spf13/pflag"
)

// lengthFlag is a length of time in a flag. Zero is refused: it would be taken for the default.
type lengthFlag struct{ into *time.Duration }

// lengthHint says what such a flag takes.
const lengthHint = "a length of time above zero, as in 10s or 5m"

// lengthVar adds a flag for a length of time, which is refused with a sentence when it is none.
func lengthVar(flags *pflag.FlagSet, into *time.Duration, name, usage string) {
	flags.Var(lengthFlag{into}, name, usage)
}

func (f lengthFlag) String() string {
	if f.into == nil {
		return "0s" // what pflag compares a default with
	}
	return f.into.String()
}

func (f lengthFlag) Set(text string) error {
	length, err := time.ParseDuration(text)
	if err == nil && length <= 0 {
		err = errors.New("too short")
	}
	if err == nil {
		*f.into = length
	}
	return err
}

func (lengthFlag) Type() string { return "duration" }
