package container

import "time"

// Phase is a timed step on the way to running: download, load, run.
type Phase struct {
	// Name is "download", "load" or "run".
	Name string
	// StartedAt is when the phase began.
	StartedAt time.Time
	// Duration is negative while the phase is in progress.
	Duration time.Duration
	// Bytes is how many bytes were fetched, for "download".
	Bytes int64 `json:",omitempty"`
	// Error is why the phase failed, one sentence; empty if it did not.
	Error string `json:",omitempty"`
}

func (c *Container) progress(now time.Time, fact Fact) []Effect {
	last := len(c.Phases) - 1
	if last < 0 {
		return nil
	}
	if fact.Bytes > 0 {
		c.Phases[0].Bytes = fact.Bytes
	}
	if fact.Phase == "" || c.Phases[last].Name == fact.Phase || fact.Phase == "download" {
		return nil
	}
	c.closePhase(now, "")
	c.openPhase(now, fact.Phase)
	return []Effect{c.publish(now)}
}

func (c *Container) openPhase(now time.Time, name string) {
	c.Phases = append(c.Phases, Phase{Name: name, StartedAt: now, Duration: -1})
}

func (c *Container) closePhase(now time.Time, failure string) {
	if len(c.Phases) == 0 {
		return
	}
	last := &c.Phases[len(c.Phases)-1]
	if last.Duration < 0 {
		last.Duration, last.Error = max(0, now.Sub(last.StartedAt)), failure
	}
}
