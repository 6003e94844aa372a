package images

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// evictEvery is the shortest time between two calls of dropIdle that look for something.
const evictEvery = time.Second

// collector owns the deletion of what is not used: idle uploads, old pending blobs, and what nothing refers to. It looks for them at
// intervals, and at once when space is short.
type collector struct {
	limits   Limits
	contents *contents
	uploads  *uploads
	examiner *examiner

	stop    context.CancelFunc
	stopped chan struct{}

	mu sync.Mutex
	// looked is when dropIdle last looked.
	looked time.Time
}

// start begins to look at intervals, among these uploads too. It comes before all else. The caller calls close.
func (c *collector) start(u *uploads) {
	ctx, stop := context.WithCancel(context.Background())
	c.uploads, c.stop, c.stopped = u, stop, make(chan struct{})
	go c.run(ctx)
}

func (c *collector) close() {
	c.stop()
	<-c.stopped
}

func (c *collector) run(ctx context.Context) {
	defer close(c.stopped)
	ticker := time.NewTicker(max(c.limits.UploadIdle/6, time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			c.dropOlder(ctx, now, c.limits.UploadIdle)
		}
	}
}

// dropIdle drops uploads that were idle for UploadIdleFull, and blobs pushed as long ago whose manifest did not come. It
// reports whether it looked for any, which it does once a second at most.
func (c *collector) dropIdle(ctx context.Context) bool {
	now := time.Now()
	c.mu.Lock()
	early := now.Sub(c.looked) < evictEvery
	if !early {
		c.looked = now
	}
	c.mu.Unlock()
	if early {
		return false
	}
	c.dropOlder(ctx, now, c.limits.UploadIdleFull)
	return true
}

func (c *collector) dropOlder(ctx context.Context, now time.Time, idle time.Duration) {
	c.uploads.dropIdle(now, idle)
	// An error means that the pins or the directory cannot be read. Then nothing more is freed, until the next round tries again.
	_, _ = c.collectIdle(ctx, now, idle, func(*catalog) error { return nil })
}

// collect changes the catalog and deletes the blobs that nothing refers to any more. It returns how many bytes that freed.
func (c *collector) collect(ctx context.Context, change func(*catalog) error) (freed int64, err error) {
	return c.collectIdle(ctx, time.Now(), c.limits.UploadIdle, change)
}

// collectIdle does so. Pending blobs are kept for the time idle.
func (c *collector) collectIdle(ctx context.Context, now time.Time, idle time.Duration, change func(*catalog) error) (freed int64, err error) {
	pinned, err := c.limits.Pinned(ctx)
	if err != nil {
		return 0, fmt.Errorf("learn which images are in use: %w", err)
	}
	return c.contents.collect(collection{
		pinned: pinned, pushing: c.uploads.pushing(), now: now, idle: idle, change: change, kept: c.examiner.forgetOthers,
	})
}
