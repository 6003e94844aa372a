package container

import (
	"fmt"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// Machine decides what happens to a container. Its fields are the time limits that all containers of a node share.
type Machine struct {
	// Retention is how long the logs of an ended container are kept.
	Retention time.Duration
	// RetryMin and RetryMax limit the pause before an operation is repeated that the engine did not answer.
	RetryMin, RetryMax time.Duration
	// LaunchTimeout is how long an engine may be away before a start is given up.
	LaunchTimeout time.Duration
	// ExitTimeout is how long after a stop the exit code may take to arrive.
	ExitTimeout time.Duration
}

// Accept starts the life of c.
func (m Machine) Accept(now time.Time, c *Container) []Effect {
	c.State, c.op = New, recording
	c.Health = NoProbe
	if c.HasProbe {
		c.Health = Starting
	}
	return append([]Effect{{Kind: Record}}, c.publish(now))
}

// Refuse is Accept for a container that never runs, so that its lease can end.
func (m Machine) Refuse(now time.Time, c *Container, exit Exit) []Effect {
	c.Removed = true
	return append(c.finish(now, exit), c.publish(now))
}

// Recover continues with a container that was loaded after a restart. Found, Missing or Ended follows as soon as its engine
// answers.
func (m Machine) Recover(now time.Time, c *Container) []Effect {
	c.op, c.failures, c.ended, c.engineError, c.probing, c.runsAgain = idle, 0, nil, "", false, false
	c.retryAt, c.launchBy, c.healthBy, c.exitBy, c.answeredAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}, time.Time{}
	switch c.State {
	case Stopping:
		c.Launched = true
		return []Effect{c.stop(m.grace(c))}
	case Done:
		if c.EndAcknowledged && !c.Removed {
			c.op = removing
			return []Effect{{Kind: Remove}}
		}
	default:
		c.Launched = true // until the engine reports that it does not know it
		if c.State == Running && c.HasProbe && c.Health != Healthy {
			c.healthBy = now.Add(c.StartPeriod)
		}
	}
	return nil
}

// Apply applies one fact.
func (m Machine) Apply(now time.Time, c *Container, fact Fact) []Effect {
	event, believed := c.refine(fact)
	next, ok := table.Next(c.State, event)
	if !believed || !ok {
		return nil
	}
	from := c.State
	if from != next {
		c.State, c.Reason = next, ""
	}
	return m.act(now, c, from, event, fact)
}

// refine maps the fact to an event that leads to one state only, and reports whether it applies at all.
func (c *Container) refine(fact Fact) (Event, bool) {
	switch fact.Event {
	case Ended:
		if c.op == starting {
			return EndedEarly, true
		}
	case Found, Missing, LeftBehind:
		if c.State == Done {
			return fact.Event, c.op == idle && !fact.AsOf.Before(c.FinishedAt)
		}
		underway := c.op == recording || c.op == preparing || c.op == starting
		event := fact.Event
		if event == Found && c.State == Running && !c.Process.StartedAt.IsZero() && fact.Process.StartedAt.After(c.Process.StartedAt) {
			event = FoundAgain
		}
		return event, !underway && (c.answeredAt.IsZero() || c.answeredAt.Before(fact.AsOf))
	case Stopped, StopFailed:
		if c.State == Done {
			return fact.Event, c.op == stopping // otherwise it answers a stop from before the end
		}
		if fact.Event == Stopped && !c.Process.StartedAt.IsZero() && c.ended == nil {
			return ExitAwaited, true
		}
	}
	return fact.Event, true
}

func (m Machine) act(now time.Time, c *Container, from State, event Event, fact Fact) []Effect {
	switch event {
	case Recorded, RecordFailed, Prepared, PrepareFailed, PrepareUnavailable, Started, StartFailed, StartUnavailable,
		Stopped, StopFailed, ExitAwaited, Removed, RemoveFailed, RemoveRefused, Purged, PurgeFailed:
		c.op = idle
	}
	switch event {
	case Started, StartFailed, StartUnavailable:
		c.answeredAt = now
	}
	switch event {
	case Recorded, Prepared, Started, Stopped, Removed, Found, Missing:
		c.failures, c.retryAt, c.launchBy = 0, time.Time{}, time.Time{}
	}
	switch {
	case c.State == Done && from != Done:
		return m.end(now, c, event, fact)
	case c.State == Stopping:
		return m.handleStopping(now, c, from, event, fact)
	case c.State == Done:
		return m.cleanUp(now, c, event)
	}
	return m.handleStarting(now, c, from, event, fact)
}

// handleStarting handles the events until the container runs, and while it runs.
func (m Machine) handleStarting(now time.Time, c *Container, from State, event Event, fact Fact) []Effect {
	switch event {
	case Recorded:
		return c.prepare(now)
	case Progress:
		return c.progress(now, fact)
	case Prepared:
		c.progress(now, Fact{Phase: "load", Bytes: fact.Bytes})
		c.closePhase(now, "")
		return c.start(now)
	case PrepareUnavailable, StartUnavailable:
		if c.ended != nil {
			return m.Apply(now, c, Fact{Event: Ended, Ending: Ending{Code: c.ended.Code}})
		}
		m.retryLater(now, c)
		if c.launchBy.IsZero() {
			c.launchBy = now.Add(m.LaunchTimeout)
		}
		if c.Reason == fact.Detail {
			return nil
		}
		c.Reason, c.engineError = fact.Detail, fact.Detail
		return []Effect{c.publish(now)}
	case RetryDue:
		if c.State == Localizing {
			return c.prepare(now)
		}
		return c.start(now)
	case Missing:
		if c.State == Localizing {
			c.Launched = false
			return c.prepare(now)
		}
		return c.start(now)
	case Started, Found:
		return m.run(now, c, from, fact.Process)
	case EndedEarly:
		exit := c.exit(fact.Ending)
		c.ended = &exit
	case ProbePassed, ProbeFailed:
		return m.applyProbe(now, c, event == ProbePassed, fact.Detail)
	case ProbeInconclusive:
		if !c.healthBy.IsZero() { // time without probes does not count
			c.healthBy = now.Add(c.StartPeriod)
		}
	case EndAcknowledged:
		c.EndAcknowledged = true
		return []Effect{{Kind: Save}}
	}
	return nil
}

// handleStopping handles the events while its stop is requested. The process is stopped only when no start is in progress,
// so that none can appear afterwards.
func (m Machine) handleStopping(now time.Time, c *Container, from State, event Event, fact Fact) []Effect {
	switch event {
	case StopRequested:
		return m.requestStop(now, c, from, fact.Stop)
	case FoundAgain:
		c.setProcess(fact.Process)
		return m.requestStop(now, c, from, Stop{Reason: KilledFromOutside, Message: "it was killed from outside Mammoth and started again", Grace: new(time.Duration)})
	case HealthTimeout:
		message := fmt.Sprintf("did not become healthy within %v", c.StartPeriod)
		if c.Health == Unhealthy {
			message = fmt.Sprintf("was unhealthy for %v", c.StartPeriod)
		}
		if c.HealthDetail != "" {
			message += ": " + c.HealthDetail
		}
		return m.requestStop(now, c, from, Stop{Reason: NotHealthy, Message: message})
	case LaunchTimeout:
		message := fmt.Sprintf("could not be started within %v", m.LaunchTimeout)
		if c.engineError != "" {
			message += ": " + c.engineError
		}
		return m.requestStop(now, c, from, Stop{Reason: NodeFailed, Message: message})
	case Started:
		c.setProcess(fact.Process)
		return []Effect{c.stop(m.grace(c))}
	case StartFailed, StartUnavailable:
		return []Effect{c.stop(m.grace(c))}
	case EndedEarly:
		exit := c.exit(fact.Ending)
		c.ended = &exit
	case ExitAwaited:
		if c.exitBy.IsZero() {
			c.exitBy = now.Add(m.ExitTimeout)
		}
	case StopFailed:
		m.retryLater(now, c)
		if c.Reason == fact.Detail {
			return nil
		}
		c.Reason = fact.Detail
		return []Effect{c.publish(now)}
	case RetryDue:
		return []Effect{c.stop(m.grace(c))}
	case Found: // the engine is back
		if c.op == idle && c.exitBy.IsZero() {
			return []Effect{c.stop(m.grace(c))}
		}
	case EndAcknowledged:
		c.EndAcknowledged = true
		return []Effect{{Kind: Save}}
	}
	return nil
}

func (m Machine) requestStop(now time.Time, c *Container, from State, stop Stop) []Effect {
	if from == Stopping {
		if stop.Grace == nil || *stop.Grace >= m.grace(c) || !c.exitBy.IsZero() {
			return nil
		}
		c.StopRequest.Grace = stop.Grace
		if c.op != stopping {
			return nil // it is stopped when Stop is due
		}
		return []Effect{c.stop(m.grace(c)), {Kind: Save}}
	}
	c.StopRequest = &stop
	c.Reason = stop.Message
	c.healthBy, c.launchBy, c.retryAt, c.failures = time.Time{}, time.Time{}, time.Time{}, 0
	effects := []Effect{{Kind: Save}}
	if from == Running {
		effects = append(effects, c.unprobe())
	}
	switch {
	case c.op == preparing || c.op == starting:
		effects = append(effects, Effect{Kind: Cancel})
	case c.op == recording:
	case c.Launched:
		effects = append(effects, c.stop(m.grace(c)))
	default:
		return append(append(effects, c.publish(now)), m.Apply(now, c, Fact{Event: Stopped})...)
	}
	return append(effects, c.publish(now))
}

// end is the transition to Done.
func (m Machine) end(now time.Time, c *Container, event Event, fact Fact) []Effect {
	var exit Exit
	switch event {
	case Ended:
		exit = c.exit(fact.Ending)
		if c.ended != nil {
			exit = *c.ended
		}
	case RecordFailed, PrepareFailed, StartFailed:
		if c.StopRequest != nil {
			exit = c.exit(Ending{Code: -1})
			break
		}
		exit = Exit{Reason: LaunchFailed, Code: -1, Message: fact.Detail}
		if fact.NodeFault || event == RecordFailed {
			exit.Reason = NodeFailed
		}
	case Missing:
		if c.StopRequest == nil {
			exit = Exit{Reason: Vanished, Code: -1, Message: "it ended unobserved, and its exit code is unknown"}
			break
		}
		exit = c.exit(Ending{Code: -1})
	default:
		exit = c.exit(Ending{Code: -1})
		if c.ended != nil {
			exit = *c.ended
		}
	}
	ended := now
	if event == Ended && !fact.Ending.At.IsZero() {
		ended = fact.Ending.At
	}
	effects := c.finish(ended, exit)
	effects = append(effects, c.unprobe(), c.publish(now))
	if c.EndAcknowledged {
		c.op = removing
		effects = append(effects, Effect{Kind: Remove})
	}
	return effects
}

func (m Machine) run(now time.Time, c *Container, from State, seen Process) []Effect {
	before := c.Process
	c.setProcess(seen)
	c.Launched = true
	if c.ended != nil {
		return m.Apply(now, c, Fact{Event: Ended, Ending: Ending{Code: c.ended.Code}})
	}
	if from == Running {
		if c.probing && seen.equal(before) {
			return nil
		}
		return c.probe()
	}
	effects := []Effect{{Kind: Save}}
	if c.HasProbe {
		c.Health = Starting
		c.healthBy = now.Add(c.StartPeriod)
	} else {
		c.closePhase(now, "")
	}
	return append(append(effects, c.probe()...), c.publish(now))
}

func (m Machine) applyProbe(now time.Time, c *Container, passed bool, detail string) []Effect {
	before, beforeDetail := c.Health, c.HealthDetail
	c.HealthDetail = detail
	switch {
	case passed:
		if c.Health == Starting {
			c.closePhase(now, "")
		}
		c.Health, c.HealthDetail, c.healthBy = Healthy, "", time.Time{}
	case c.Health == Healthy:
		c.Health, c.healthBy = Unhealthy, now.Add(c.StartPeriod)
	}
	if c.Health == before && c.HealthDetail == beforeDetail {
		return nil
	}
	switch {
	case c.Health != Healthy:
		c.HealthySince = time.Time{}
	case before != Healthy:
		c.HealthySince = now
	}
	effects := []Effect{c.publish(now)}
	if c.Health != before {
		effects = append(effects, Effect{Kind: Save})
	}
	return effects
}

// Deadline is when Tick is to be called; zero if never.
func (m Machine) Deadline(c *Container) time.Time {
	var first time.Time
	for _, at := range []time.Time{c.retryAt, c.launchBy, c.healthBy, c.exitBy, m.purgeAt(c)} {
		if !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// Tick applies what depends on time alone.
func (m Machine) Tick(now time.Time, c *Container) []Effect {
	var effects []Effect
	due := func(at time.Time) bool { return !at.IsZero() && !now.Before(at) }
	for _, deadline := range []struct {
		at    *time.Time
		event Event
	}{{&c.exitBy, ExitTimeout}, {&c.healthBy, HealthTimeout}, {&c.launchBy, LaunchTimeout}, {&c.retryAt, RetryDue}} {
		if due(*deadline.at) {
			*deadline.at = time.Time{}
			effects = append(effects, m.Apply(now, c, Fact{Event: deadline.event})...)
		}
	}
	if due(m.purgeAt(c)) {
		effects = append(effects, m.Apply(now, c, Fact{Event: PurgeDue})...)
	}
	return effects
}

func (m Machine) retryLater(now time.Time, c *Container) {
	c.failures++
	wait := m.RetryMin
	for i := 1; i < c.failures && wait < m.RetryMax; i++ {
		wait *= 2
	}
	c.retryAt = now.Add(min(wait, m.RetryMax))
}

// maxGrace is the upper limit of a grace.
const maxGrace = 24 * time.Hour

// grace is between zero and maxGrace, since a stop with a negative or endless wait would not succeed.
func (m Machine) grace(c *Container) time.Duration {
	grace := c.Grace
	if c.StopRequest != nil && c.StopRequest.Grace != nil {
		grace = *c.StopRequest.Grace
	}
	return min(max(0, grace), maxGrace)
}

func (c *Container) prepare(now time.Time) []Effect {
	c.op = preparing
	c.Phases = nil
	c.openPhase(now, "download")
	return []Effect{{Kind: Save}, {Kind: Prepare}, c.publish(now)}
}

func (c *Container) start(now time.Time) []Effect {
	c.op, c.Launched = starting, true
	if last := len(c.Phases) - 1; last < 0 || c.Phases[last].Name != "run" {
		c.openPhase(now, "run")
	}
	return []Effect{{Kind: Start}, {Kind: Save}, c.publish(now)}
}

func (c *Container) stop(grace time.Duration) Effect {
	c.op = stopping
	return Effect{Kind: StopProcess, Grace: grace}
}

func (c *Container) probe() []Effect {
	if !c.HasProbe {
		return nil
	}
	c.probing = true
	return []Effect{{Kind: Probe, Healthy: c.Health == Healthy}}
}

func (c *Container) unprobe() Effect {
	c.probing = false
	return Effect{Kind: Unprobe}
}

func (c *Container) setProcess(seen Process) {
	if c.Process.StartedAt.IsZero() || !seen.StartedAt.IsZero() {
		c.Process = seen
	}
}

// publish numbers the change. The number also follows the clock, so that a number lost in a crash is not used again.
func (c *Container) publish(now time.Time) Effect {
	c.Sequence = max(c.Sequence+1, now.UnixMicro())
	return Effect{Kind: Publish}
}

func (c *Container) finish(at time.Time, exit Exit) []Effect {
	c.State, c.Reason = Done, exit.Message
	c.Exit, c.FinishedAt, c.op = &exit, at, idle
	c.retryAt, c.launchBy, c.healthBy, c.exitBy, c.failures = time.Time{}, time.Time{}, time.Time{}, time.Time{}, 0
	failure := ""
	if exit.Reason == LaunchFailed || exit.Reason == NodeFailed {
		failure = exit.Message
	}
	c.closePhase(at, failure)
	return []Effect{{Kind: Save}}
}

// exit is why it ended: the requested stop, or else how the process ended.
func (c *Container) exit(ending Ending) Exit {
	exit := Exit{Reason: Exited, Code: ending.Code, Message: ending.Message}
	switch {
	case c.StopRequest != nil:
		exit.Reason, exit.Message = c.StopRequest.Reason, c.StopRequest.Message
		if exit.Message == "" {
			exit.Message = "it was stopped"
		}
	case ending.DiskQuota:
		exit.Reason = DiskQuotaExceeded
	case ending.OOM:
		exit.Reason = OOMKilled
		exit.Message = "OOMKilled: it reached its memory quota"
		if c.MemoryBytes > 0 {
			exit.Message += " of " + resource.FormatBytes(c.MemoryBytes)
		}
	case ending.EngineDown:
		exit.Reason, exit.Message = NodeFailed, "its engine went down with it"
	case ending.Signal != "":
		exit.Reason, exit.Message = KilledFromOutside, "it was killed from outside Mammoth, with "+ending.Signal
	case exit.Message != "":
	case ending.Code > 128:
		exit.Message = fmt.Sprintf("was killed by signal %d", ending.Code-128)
	default:
		exit.Message = fmt.Sprintf("exited with code %d", ending.Code)
	}
	return exit
}

// Adopt begins with a container that its engine has and no record exists for. The ResourceManager decides whether it stays.
func (m Machine) Adopt(now time.Time, c *Container, seen Process) []Effect {
	c.State, c.Launched = Running, true
	c.Reason = "found without a record"
	c.setProcess(seen)
	return []Effect{{Kind: Save}, c.publish(now)}
}
