package main

import (
	"errors"
	"time"

	"github.com/spf13/pflag"
)

// lengthFlag is a duration in a flag. Zero is refused: it would mean the default.
type lengthFlag struct{ into *time.Duration }

// lengthHint describes the values of such a flag.
const lengthHint = "a length of time above zero, as in 10s or 5m"

// lengthVar adds a flag for a duration; an invalid one is refused with a sentence.
func lengthVar(flags *pflag.FlagSet, into *time.Duration, name, usage string) {
	flags.Var(lengthFlag{into}, name, usage)
}

func (f lengthFlag) String() string {
	if f.into == nil {
		return "0s" // pflag's zero value
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
