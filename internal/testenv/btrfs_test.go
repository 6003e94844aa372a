package testenv_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/testenv"
)

func TestAMountedFileIsWrittenDirectlyAndGivenBack(t *testing.T) {
	testenv.Need(t, "root", "program:mkfs.btrfs", "program:losetup")
	file, dir := filepath.Join(t.TempDir(), "file"), t.TempDir()
	if err := testenv.MountBtrfs(file, "200M", dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("b"), 0o600); err != nil {
		t.Error(err)
	}
	devices := func() string {
		out, err := exec.Command("losetup", "--list", "--noheadings", "--output", "BACK-FILE,DIO").CombinedOutput()
		if err != nil {
			t.Error(err)
		}
		return string(out)
	}
	if got := strings.Fields(devices()); len(got) < 2 || !strings.Contains(devices(), file) {
		t.Errorf("the devices are %q", got)
	} else if at := slices.Index(got, file); got[at+1] != "1" {
		t.Errorf("%s is written through the page cache: %q", file, got)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if got := devices(); strings.Contains(got, file) {
		t.Errorf("after the unmount the devices are %q", got)
	}
}
