package container

import "time"

// cleanUp handles what follows the end: Remove once the end was acknowledged, Purge later.
func (m Machine) cleanUp(now time.Time, c *Container, event Event) []Effect {
	switch event {
	case EndAcknowledged:
		if c.EndAcknowledged {
			return nil
		}
		c.EndAcknowledged = true
		if c.Removed {
			return []Effect{{Kind: Save}}
		}
		c.op = removing
		return []Effect{{Kind: Save}, {Kind: Remove}}
	case Removed:
		c.Removed = true
		return []Effect{{Kind: Save}}
	case RemoveFailed, PurgeFailed, StopFailed:
		m.retryLater(now, c)
	case RemoveRefused:
		c.runsAgain = true
		m.retryLater(now, c)
	case Found:
		c.runsAgain, c.Removed = true, false
		return []Effect{c.stop(0)}
	case LeftBehind:
		if !c.Removed {
			return nil // Remove comes first
		}
		c.Removed = false
		return c.remove()
	case Stopped:
		c.runsAgain = false
		return c.remove()
	case RetryDue:
		switch {
		case c.runsAgain:
			return []Effect{c.stop(0)}
		case c.EndAcknowledged && !c.Removed:
			c.op = removing
			return []Effect{{Kind: Remove}}
		case c.Removed:
			return c.purge()
		}
	case PurgeDue:
		return c.purge()
	case Purged:
		c.op = purging // and nothing after it
		return []Effect{{Kind: Drop}}
	}
	return nil
}

// remove starts Remove once the end was acknowledged.
func (c *Container) remove() []Effect {
	effects := []Effect{{Kind: Save}}
	if c.EndAcknowledged {
		c.op = removing
		effects = append(effects, Effect{Kind: Remove})
	}
	return effects
}

func (c *Container) purge() []Effect {
	c.op = purging
	return []Effect{{Kind: Purge}}
}

// purgeAt is when the logs of an ended container expire.
func (m Machine) purgeAt(c *Container) time.Time {
	if c.State != Done || !c.EndAcknowledged || !c.Removed || c.op != idle || !c.retryAt.IsZero() {
		return time.Time{}
	}
	at := c.FinishedAt.Add(m.Retention)
	if at.Before(c.KeepUntil) {
		return c.KeepUntil
	}
	return at
}
