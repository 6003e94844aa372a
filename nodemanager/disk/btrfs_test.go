package disk

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/testenv"
)

// The kernel does not enforce inconsistent quota groups, and enforces them again after a rescan.
func TestQuotaGroupsThatDoNotAddUpAreCountedAgain(t *testing.T) {
	testenv.Need(t, "root", "program:mkfs.btrfs", "program:btrfs")
	dir := t.TempDir()
	if err := testenv.MountBtrfs(filepath.Join(t.TempDir(), "file"), "200M", dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	btrfs := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("btrfs", args...).CombinedOutput(); err != nil {
			t.Fatalf("btrfs %v: %v: %s", args, err, out)
		}
	}
	btrfs("quota", "enable", dir)
	btrfs("subvolume", "create", filepath.Join(dir, "one"))
	fill(t, filepath.Join(dir, "one/file"), 1<<20)
	unix.Sync()
	b, err := OpenBtrfs(filepath.Join(dir, "one"))
	if err != nil {
		t.Fatal(err)
	}
	await(t, b, true)
	btrfs("qgroup", "create", "1/1", dir)
	btrfs("qgroup", "assign", "--no-rescan", "0/256", "1/1", dir)
	btrfs("subvolume", "snapshot", filepath.Join(dir, "one"), filepath.Join(dir, "two"))
	btrfs("qgroup", "assign", "--no-rescan", "0/257", "1/1", dir)
	if b.Enforces() {
		t.Fatal("groups that share what they hold add up")
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		begun, err := b.Rescan()
		if err == nil && !begun && time.Now().Before(deadline) {
			<-time.After(10 * time.Millisecond) // the count of before ends a moment after the groups add up
			continue
		}
		if err != nil || !begun || b.Rescans() != 1 {
			t.Errorf("the count was begun: %t, %d times, %v", begun, b.Rescans(), err)
		}
		break
	}
	await(t, b, true)
}

// await waits until a count that is under way is over.
func await(t *testing.T, b *Btrfs, holds bool) {
	t.Helper()
	over := time.After(20 * time.Second)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for b.Enforces() != holds {
		select {
		case <-look.C:
		case <-over:
			t.Fatalf("sizes are held to: %t, want %t", !holds, holds)
		}
	}
}

func TestWhatIsNoBtrfsIsSaidSo(t *testing.T) {
	if b, err := OpenBtrfs("/proc"); err == nil {
		t.Errorf("/proc is %+v", b)
	}
}

func TestTheUsageOfARootLeavesOtherFileSystemsOut(t *testing.T) {
	testenv.Need(t, "root")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", filepath.Join(dir, "tmp"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(filepath.Join(dir, "tmp"), 0); err != nil {
			t.Error(err)
		}
	})
	fill(t, filepath.Join(dir, "one"), 1<<20)
	fill(t, filepath.Join(dir, "tmp/two"), 4<<20)
	var top unix.Stat_t
	if err := unix.Stat(dir, &top); err != nil {
		t.Fatal(err)
	}
	got, err := walk(dir, map[file]bool{}, func(stat *unix.Stat_t) bool { return stat.Dev == top.Dev }, func() bool { return true })
	if err != nil || !near(got, 1<<20) {
		t.Errorf("%d bytes, %v", got, err)
	}
	if got, err := UsageOfRoot(1 << 30); err == nil {
		t.Errorf("a process that is not there has %d bytes", got)
	}
}
