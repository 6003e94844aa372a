package disk

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

func fill(t *testing.T, path string, size int64) *os.File {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	block := make([]byte, 64<<10)
	for i := range block {
		block[i] = byte(i) | 1
	}
	for ; size > 0; size -= int64(len(block)) {
		if _, err := file.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func near(got, want int64) bool { return got >= want && got < want+want/4+(64<<10) }

func TestUsageCountsBlocksOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o750); err != nil {
		t.Fatal(err)
	}
	fill(t, filepath.Join(dir, "a/b/one"), 1<<20)
	if err := os.Link(filepath.Join(dir, "a/b/one"), filepath.Join(dir, "two")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc", filepath.Join(dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	sparse := fill(t, filepath.Join(dir, "sparse"), 0)
	if err := sparse.Truncate(1 << 40); err != nil {
		t.Fatal(err)
	}
	if got, err := Usage(dir, filepath.Join(dir, "gone")); err != nil || !near(got, 1<<20) {
		t.Errorf("usage %d, %v", got, err)
	}
}

// UsageSoon counts a few files completely, even without any time.
func TestAFewFilesAreAlwaysCounted(t *testing.T) {
	dir := t.TempDir()
	fill(t, filepath.Join(dir, "few"), 1<<20)
	if got, err := usageSoon(0, []string{dir}); err != nil || !near(got, 1<<20) {
		t.Errorf("of one file usage is %d, %v", got, err)
	}
	for i := range fewFiles {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	part, err := usageSoon(0, []string{dir})
	whole, wholeErr := Usage(dir)
	if part >= whole || err != nil || wholeErr != nil {
		t.Errorf("of many files %d bytes are counted of %d: %v, %v", part, whole, err, wholeErr)
	}
	if got, err := usageSoon(time.Hour, []string{dir}); err != nil || got != whole {
		t.Errorf("in an hour %d bytes are counted of %d, %v", got, whole, err)
	}
}

func TestDeletedFilesAreFound(t *testing.T) {
	before := Deleted([]int{os.Getpid()})
	file := fill(t, filepath.Join(t.TempDir(), "file"), 2<<20)
	if err := os.Remove(file.Name()); err != nil {
		t.Fatal(err)
	}
	if got := Deleted([]int{os.Getpid(), 1 << 30}); !near(got-before, 2<<20) {
		t.Errorf("%d bytes before, %d after", before, got)
	}
}

func TestDriverMayQuota(t *testing.T) {
	xfs := [][2]string{{"Backing Filesystem", "xfs"}, {"Supports d_type", "true"}}
	ext := [][2]string{{"Backing Filesystem", "extfs"}}
	for _, c := range []struct {
		driver string
		status [][2]string
		want   bool
	}{{"overlay2", xfs, true}, {"overlay2", ext, false}, {"btrfs", nil, true}, {"overlayfs", xfs, false}} {
		if got := DriverMayQuota(c.driver, c.status); got != c.want {
			t.Errorf("%s on %v: %v", c.driver, c.status, got)
		}
	}
}

// A container that exceeds its quota is stopped within five seconds, however idle it was before.
func TestWatcherEndsWithinFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWatcher(slog.New(slog.DiscardHandler))
		defer w.Close()
		used := make(chan int64, 1)
		used <- 0
		ended := make(chan int64, 10)
		c := id.Container{Epoch: 1}
		w.Add(Subject{
			ID: c, Quota: 100,
			Measure: func(context.Context) (int64, error) {
				n := <-used
				used <- n
				return n, nil
			},
			Exceeded: func(_ context.Context, n int64) { ended <- n },
		})
		<-time.After(time.Hour)
		<-used
		used <- 101
		over := time.Now()
		if n := <-ended; n != 101 || time.Since(over) > 5*time.Second {
			t.Errorf("ended with %d after %v", n, time.Since(over))
		}
		// A container that could not be ended is ended again.
		if n := <-ended; n != 101 || time.Since(over) > 10*time.Second {
			t.Errorf("ended again with %d after %v", n, time.Since(over))
		}
		w.Remove(c)
		<-time.After(time.Minute)
		if len(ended) != 0 {
			t.Error("ended after its removal")
		}
	})
}

func TestAnEngineThatDoesNotAnswerForOneKeepsNobodyElseFromTheirQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWatcher(slog.New(slog.DiscardHandler))
		defer w.Close()
		w.Add(Subject{ID: id.Container{Epoch: 1}, Quota: 100, Measure: func(ctx context.Context) (int64, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}})
		ended := make(chan struct{}, 1)
		w.Add(Subject{
			ID: id.Container{Epoch: 2}, Quota: 100,
			Measure: func(context.Context) (int64, error) { return 101, nil },
			Exceeded: func(ctx context.Context, _ int64) {
				<-ctx.Done() // nor does it answer here
				select {
				case ended <- struct{}{}:
				default:
				}
			},
		})
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Error("a container over its quota was not ended")
		}
	})
}

func TestExceededSentence(t *testing.T) {
	if got := Exceeded(72<<20, 64<<20); got != "disk quota exceeded (72MiB of 64MiB)" {
		t.Errorf("%q", got)
	}
}
