// Package testenv reports to tests what the machine has. A test that needs a real server calls Need: without it the test is
// skipped at a desk, and fails in CI (MAMMOTH_CI=1 or CI=true), so that no test is skipped unnoticed.
package testenv

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Need ends the test unless the machine has every named thing: "docker", "root", "cgroup", or the name of a
// program on the path as "program:NAME".
func Need(t testing.TB, things ...string) {
	t.Helper()
	for _, thing := range things {
		if why := missing(thing); why != "" {
			if InCI() {
				t.Fatalf("CI must have %s: %s", thing, why)
			}
			t.Skipf("needs %s: %s", thing, why)
		}
	}
}

// Optional skips the test, in CI too: the project does not depend on what it needs, and another test covers the same.
func Optional(t testing.TB, why string) {
	t.Helper()
	t.Skipf("passed over: %s", why)
}

// InCI reports whether a missing thing is a failure.
func InCI() bool {
	return os.Getenv("MAMMOTH_CI") == "1" || os.Getenv("CI") == "true"
}

func missing(thing string) string {
	if name, ok := strings.CutPrefix(thing, "program:"); ok {
		if _, err := exec.LookPath(name); err != nil {
			return err.Error()
		}
		return ""
	}
	switch thing {
	case "docker":
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", DockerSocket())
		if err != nil {
			return err.Error()
		}
		_ = conn.Close()
		return ""
	case "root":
		if os.Geteuid() != 0 {
			return "not run as root"
		}
		return ""
	case "cgroup":
		if _, err := os.Stat("/sys/fs/cgroup"); err != nil {
			return err.Error()
		}
		return missing("root")
	}
	return "testenv does not know it"
}

// DockerSocket is the engine's socket: DOCKER_HOST if it is a unix socket, else the usual path.
func DockerSocket() string {
	if path, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); ok {
		return path
	}
	return "/var/run/docker.sock"
}
