// Package backoff computes the pauses between retries. It has no clock and no random source.
// Its callers own the time of the next attempt.
package backoff

import (
	"context"
	"time"
)

// Policy doubles the wait from Min with every failure in a row, up to Max.
type Policy struct {
	Min time.Duration
	Max time.Duration
}

// After is the pause after so many failures in a row, at least 1.
func (p Policy) After(failures int) time.Duration {
	wait := p.Min
	for i := 1; i < failures; i++ {
		wait *= 2
		if wait >= p.Max || wait <= 0 {
			return p.Max
		}
	}
	return min(wait, p.Max)
}

// Sleep waits. If ctx ends first, it returns the cause.
func Sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
