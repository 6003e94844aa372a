package world

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Failure is a run that broke a law, and what was found when it was run again.
type Failure struct {
	First Result
	// Repeats says that it broke the law in the same way again.
	Repeats bool
	// Shrunk is the shortest run that was found to break the same law, and Config what it is made of. They are set if it repeats.
	Shrunk Result
	Config Config
}

// Look runs a run that broke a law again. If that repeats, it looks until a time for a shorter run that breaks the same law.
func Look(failed Result, config Config, until time.Time) Failure {
	config.Seed, config.Trace, config.Record = failed.Seed, nil, nil
	f := Failure{First: failed}
	again := Run(config)
	f.Repeats = again.Broken == failed.Broken && again.Sentence == failed.Sentence && again.Sent == failed.Sent
	if f.Repeats {
		f.Shrunk, f.Config = Shrink(failed, config, until)
	}
	return f
}

// Write prints it, with the commands that run it again.
func (f Failure) Write(to io.Writer, config Config) {
	line := func(format string, about ...any) { _, _ = fmt.Fprintf(to, format+"\n", about...) }
	config.Seed = f.First.Seed
	line("seed %d broke %q at %s: %s", f.First.Seed, f.First.Broken, f.First.At.Round(time.Millisecond), strings.TrimSpace(f.First.Sentence))
	line("  run it again: %s", config.Command())
	if !f.Repeats {
		line("  it did NOT break that law in the same way when it was run again: something in it is not made from its seed")
		return
	}
	line("  it broke the law again. Of %d actions these are left, which break it at %s: %s", len(f.First.Actions), f.Shrunk.At.Round(time.Millisecond), strings.TrimSpace(f.Shrunk.Sentence))
	for _, action := range f.Config.Actions {
		line("    %s", action)
	}
	line("  run what is left: %s", f.Config.Command())
}

// Command is the command that runs it again and prints all that happens.
func (c Config) Command() string {
	c = c.complete()
	command := fmt.Sprintf("go run ./test/world/cmd/world -seed %d -hours %d -trouble %s", c.Seed, c.Cycles, c.Trouble)
	if c.Plant != "" {
		command += fmt.Sprintf(" -plant '%s'", c.Plant)
	}
	if c.Actions != nil {
		command += fmt.Sprintf(" -actions '%s'", FormatActions(c.Actions))
	}
	return command
}

// FormatActions and ParseActions write and read a list of actions: "10s deploy 123, 16s cut 4". An empty list is "none".
func FormatActions(actions []Action) string {
	var texts []string
	for _, action := range actions {
		texts = append(texts, action.String())
	}
	if len(texts) == 0 {
		return "none"
	}
	return strings.Join(texts, ", ")
}

// ParseActions refuses what is no list of actions that a world knows.
func ParseActions(text string) ([]Action, error) {
	actions := []Action{}
	if strings.TrimSpace(text) == "none" {
		return actions, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		words := strings.Fields(part)
		if len(words) != 3 {
			return nil, fmt.Errorf("%q is no action; one is a time, a kind and a seed, as in \"10s deploy 123\"", strings.TrimSpace(part))
		}
		at, err := time.ParseDuration(words[0])
		if err != nil {
			return nil, fmt.Errorf("the action %q begins with no time: %w", strings.TrimSpace(part), err)
		}
		seed, err := strconv.ParseUint(words[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the action %q ends with no seed: %w", strings.TrimSpace(part), err)
		}
		if !slices.ContainsFunc(kinds(), func(k kind) bool { return k.name == words[1] }) {
			return nil, fmt.Errorf("a world knows no action %q; \"go run ./test/world/cmd/world\" prints those of a seed", words[1])
		}
		actions = append(actions, Action{at, words[1], seed})
	}
	return actions, nil
}
