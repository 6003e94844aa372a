package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mammoth-os/mammoth/test/zone"
)

func TestBadInputGetsOneSentenceAndLeavesNothing(t *testing.T) {
	d := start(t, zone.Options{})
	good := d.Programs.Hello
	flags := func(more ...string) []string {
		return append([]string{"deploy", good, "--name", "bad", "--cpu", "0.1", "--memory", "64MiB", "--disk", "64MiB"}, more...)
	}
	d.refused(2, []string{"5MiB"}, flags("--memory", "5")...)
	d.refused(2, []string{"-1"}, flags("--cpu", "-1")...)
	d.refused(1, []string{"node-1"}, flags("--memory", "900GiB")...)
	d.refused(2, []string{"1000000"}, flags("--instances", "1000000")...)
	d.refused(2, []string{"mammoth app stop"}, flags("--instances", "0")...)
	d.refused(2, []string{"name"}, flags("--name", "my app")...)
	d.refused(1, []string{"host"}, flags("--network", "host", "--port", "8080")...)
	d.refused(1, []string{"web:9"}, "deploy", "web:9", "--name", "bad")
	d.refused(1, []string{"nobody"}, flags("--queue", "nobody")...)

	dir := t.TempDir()
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"truncated.image": whole[:len(whole)/2], "text.image": []byte("this is no image\n"), "empty.image": nil} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		d.refused(1, nil, "image", "push", path, "bad:1")
	}
	if listed := d.run("image", "ls"); strings.Contains(listed, "bad") {
		t.Errorf("a refused image is listed: %s", listed)
	}
	if apps := d.run("app", "ls"); strings.Contains(apps, "bad") {
		t.Errorf("a refused app is listed: %s", apps)
	}
	if left := d.left("bad"); left != "" {
		t.Errorf("a refused app has containers: %s", left)
	}
}

func TestAnAppThatExitsAtOnceBacksOffAndIsExplained(t *testing.T) {
	d := start(t, zone.Options{})
	d.command("crash", "args: [exit, \"3\"]\nresources: {cpu: 100m, memory: 64MiB, disk: 64MiB}\n")
	d.eventually("explain tells of the exit code and the wait", func() (bool, string) {
		out := d.run("app", "explain", "crash")
		return strings.Contains(out, "3") && strings.Contains(out, "back"), out
	})
}

func TestTooMuchForTheZoneIsExplained(t *testing.T) {
	d := start(t, zone.Options{})
	plan := d.run("deploy", d.Programs.Hello, "--name", "big", "--instances", "4", "--cpu", "1.5", "--memory", "64MiB", "--disk", "64MiB", "--dry-run")
	if !strings.Contains(plan, "node-1") || !strings.Contains(plan, "cpu") {
		t.Errorf("the dry run says %q: neither where nor why not", plan)
	}
	d.run("deploy", d.Programs.Hello, "--name", "big", "--instances", "4", "--cpu", "1.5", "--memory", "64MiB", "--disk", "64MiB")
	d.eventually("explain says what is missing", func() (bool, string) {
		out := d.run("app", "explain", "big")
		return strings.Contains(out, "cpu"), out
	})
}
