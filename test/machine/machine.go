// Package machine says what measurements ran on.
package machine

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Describe says in one line what a measurement ran on.
func Describe() string {
	model := field("/proc/cpuinfo", "model name")
	if model == "" {
		model = runtime.GOARCH
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%d cores (%s), %s memory, Linux %s, %s", runtime.NumCPU(), model, field("/proc/meminfo", "MemTotal"), strings.TrimSpace(string(release)), runtime.Version())
}

// field is the first value of a name in a file of "name: value" lines, empty if there is none.
func field(path, name string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
