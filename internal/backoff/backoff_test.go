package backoff_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mammoth-os/mammoth/internal/backoff"
)

func TestAfterDoublesUpToItsCap(t *testing.T) {
	policy := backoff.Policy{Min: time.Second, Max: 10 * time.Second}
	for failures, want := range map[int]time.Duration{0: 1, 1: 1, 2: 2, 3: 4, 4: 8, 5: 10, 1000: 10} {
		if got := policy.After(failures); got != want*time.Second {
			t.Errorf("after %d failures: %v, want %v", failures, got, want*time.Second)
		}
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reason := errors.New("the zone stops")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(reason) })
		start := time.Now()
		if err := backoff.Sleep(ctx, time.Hour); !errors.Is(err, reason) {
			t.Errorf("got %v, want %v", err, reason)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}
