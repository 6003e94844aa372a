package health

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// NodeCheck is one check of the node. It returns the empty string if all is well, else one sentence.
type NodeCheck func(ctx context.Context) string

// WatchNode runs the checks in their order at each interval, up to the first that fails, until ctx ends. It reports the first result, and each
// that differs from the one before. The node is healthy when all checks are good.
func WatchNode(ctx context.Context, interval time.Duration, checks []NodeCheck, report func(reason string)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	last, first := "", true
	for {
		reason := ""
		for _, check := range checks {
			if reason = check(ctx); reason != "" {
				break
			}
		}
		if ctx.Err() != nil {
			return
		}
		if first || reason != last {
			report(reason)
		}
		last, first = reason, false
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Disk reports that the file system of path is nearly full: less than 1 % and less than 1 GiB, or less than 64 MiB, are
// free.
func Disk(path string, measure func(path string) (free, total int64, err error)) NodeCheck {
	return func(context.Context) string {
		free, total, err := measure(path)
		if err != nil {
			return fmt.Sprintf("the file system of %s cannot be read: %v", path, err)
		}
		if free < 64<<20 || free < 1<<30 && free < total/100 {
			return fmt.Sprintf("the disk of %s is nearly full: %s of %s are free", path, resource.FormatBytes(free), resource.FormatBytes(total))
		}
		return ""
	}
}

// Descriptors reports that this process can open hardly any more files: fewer than a twentieth are left, which is at least 8
// and at most 256. count returns how many are open.
func Descriptors(limit func() (int, error), count func() (int, error)) NodeCheck {
	return func(context.Context) string {
		most, err := limit()
		if err != nil {
			return ""
		}
		used, err := count()
		var number syscall.Errno
		switch {
		case errors.As(err, &number) && (number == syscall.EMFILE || number == syscall.ENFILE):
			return fmt.Sprintf("its NodeManager cannot open another file: %v", number)
		case err != nil || used < most-max(8, min(most/20, 256)):
			return ""
		}
		return fmt.Sprintf("its NodeManager has opened nearly all of the %d files that it may; raise its limit (ulimit -n), or close connections to it", most)
	}
}

// clockTolerance is how much the clock may jump between two checks, and clockQuiet how long it must not jump to be trusted
// again.
const (
	clockTolerance = 5 * time.Second
	clockQuiet     = 30 * time.Second
)

// Clock reports that the time of day has jumped: leases and tokens depend on it. now is the time of day, elapsed the real
// time since some instant.
func Clock(now func() time.Time, elapsed func() time.Duration) NodeCheck {
	lastNow, lastElapsed := now(), elapsed()
	var jumpedAt time.Duration
	var reason string
	return func(context.Context) string {
		thisNow, thisElapsed := now(), elapsed()
		jump := thisNow.Sub(lastNow) - (thisElapsed - lastElapsed)
		lastNow, lastElapsed = thisNow, thisElapsed
		if jump.Abs() > clockTolerance {
			reason, jumpedAt = fmt.Sprintf("the clock jumped by %v", jump.Round(time.Second)), thisElapsed
		}
		if reason != "" && thisElapsed-jumpedAt >= clockQuiet {
			reason = ""
		}
		return reason
	}
}
