package world

import (
	"slices"
	"time"
)

// Shrink looks for a run with fewer actions that breaks the same law, until nothing more can be left out or the time is over.
func Shrink(failed Result, config Config, until time.Time) (Result, Config) {
	config.Seed, config.Trace = failed.Seed, nil
	config.Actions = slices.DeleteFunc(slices.Clone(failed.Actions), func(a Action) bool { return a.At > failed.At })
	config = config.complete()
	config.Cycles = int(failed.At/config.cycle()) + 1
	breaks := func(actions []Action) bool {
		if actions == nil {
			actions = []Action{}
		}
		with := config
		with.Actions = actions
		result := Run(with)
		if result.Broken != failed.Broken {
			return false
		}
		failed = result
		return true
	}
	if !breaks(config.Actions) {
		return failed, config
	}
	for size := max(1, len(config.Actions)/2); size > 0; {
		shrunk := false
		for from := 0; from < len(config.Actions) && time.Now().Before(until); {
			fewer := slices.Delete(slices.Clone(config.Actions), from, min(from+size, len(config.Actions)))
			if breaks(fewer) {
				config.Actions, shrunk = fewer, true
				continue
			}
			from += size
		}
		if !shrunk || size > len(config.Actions) {
			size /= 2
		}
	}
	if config.Actions == nil {
		config.Actions = []Action{}
	}
	return failed, config
}
