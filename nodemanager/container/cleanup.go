package container

import "time"

// tidy is everything after the end: remove what is left once the end was heard, purge the logs later.
func (m Machine) tidy(now time.Time, c *Container, event Event) []Effect {
	switch event {
	case Forgotten:
		if c.Forgotten {
			return nil
		}
		c.Forgotten = true
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
		c.again = true
		m.retryLater(now, c)
	case Found:
		c.again, c.Removed = true, false
		return []Effect{c.stop(0)}
	case LeftBehind:
		if !c.Removed {
			return nil // Remove is still to come
		}
		c.Removed = false
		return c.remove()
	case Stopped:
		c.again = false
		return c.remove()
	case RetryDue:
		switch {
		case c.again:
			return []Effect{c.stop(0)}
		case c.Forgotten && !c.Removed:
			c.op = removing
			return []Effect{{Kind: Remove}}
		case c.Removed:
			return c.purge()
		}
	case PurgeDue:
		return c.purge()
	case Purged:
		c.op = purging // for good
		return []Effect{{Kind: Drop}}
	}
	return nil
}

// remove begins Remove if nobody has to be told of the container any more.
func (c *Container) remove() []Effect {
	effects := []Effect{{Kind: Save}}
	if c.Forgotten {
		c.op = removing
		effects = append(effects, Effect{Kind: Remove})
	}
	return effects
}

func (c *Container) purge() []Effect {
	c.op = purging
	return []Effect{{Kind: Purge}}
}

// purgeAt is when nothing of an ended container needs to be kept any more.
func (m Machine) purgeAt(c *Container) time.Time {
	if c.State != Done || !c.Forgotten || !c.Removed || c.op != idle || !c.retryAt.IsZero() {
		return time.Time{}
	}
	at := c.FinishedAt.Add(m.Retention)
	if at.Before(c.KeepUntil) {
		return c.KeepUntil
	}
	return at
}
