package health

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// Sign is one thing about the node that is looked at: the empty string is good, else one sentence.
type Sign func(ctx context.Context) string

// WatchNode looks at every sign each interval until ctx ends, and tells whenever what is wrong has changed. The
// first look is told in any case; the node is healthy when nothing is wrong.
func WatchNode(ctx context.Context, interval time.Duration, signs []Sign, tell func(reason string)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	last, first := "", true
	for {
		reason := ""
		for _, sign := range signs {
			if reason = sign(ctx); reason != "" {
				break
			}
		}
		if ctx.Err() != nil {
			return
		}
		if first || reason != last {
			tell(reason)
		}
		last, first = reason, false
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Disk is a sign that the file system of path is nearly full: less than 1 % and less than 1 GiB, or less than
// 64 MiB, are free.
func Disk(path string, measure func(path string) (free, total int64, err error)) Sign {
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

// Descriptors is a sign that this process can open hardly any more files: fewer than a twentieth are left, which is at least
// 8 and at most 256. count gives how many it has open.
func Descriptors(limit func() (int, error), count func() (int, error)) Sign {
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
		return fmt.Sprintf("its NodeManager has nearly all of the %d files open that it may; raise its limit (ulimit -n), or end what connects to it", most)
	}
}

// clockTolerance is by how much the clock may move between two looks, and clockQuiet how long it has to keep
// still to be trusted again.
const (
	clockTolerance = 5 * time.Second
	clockQuiet     = 30 * time.Second
)

// Clock is a sign that the time of day has jumped: leases and tokens are judged by it. now gives the time of
// day, elapsed the time that has really passed since some instant.
func Clock(now func() time.Time, elapsed func() time.Duration) Sign {
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
