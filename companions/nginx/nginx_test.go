package nginx

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/companions/balancer/balancertest"
	"github.com/mammoth-os/mammoth/internal/testenv"
)

func TestConformance(t *testing.T) {
	testenv.Need(t, "program:nginx")
	balancertest.Run(t, balancertest.Subject{
		New: func(t *testing.T, front balancertest.Front) balancer.Proxy {
			proxy, err := NewProxy(configOf(front))
			if err != nil {
				t.Fatal(err)
			}
			return proxy
		},
		Close:     func(proxy balancer.Proxy) { proxy.(*Proxy).Close() },
		Processes: processes,
		Serving: func(front balancertest.Front) []int {
			return slices.DeleteFunc(processes(front), func(pid int) bool { return strings.HasSuffix(title(pid), "shutting down") })
		},
	})
}

func configOf(front balancertest.Front) Config {
	return Config{Dir: front.Dir, Listen: front.HTTP, TLS: front.TLS, Certificates: front.Certificates, Workers: 2}
}

// processes finds every nginx of a front, its master first.
func processes(front balancertest.Front) []int {
	var masters, others []int
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || !strings.HasPrefix(title(pid), "nginx: ") || balancer.Zombie(pid) {
			continue
		}
		if where, _ := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd")); where != front.Dir {
			continue
		}
		if strings.HasPrefix(title(pid), "nginx: master") {
			masters = append(masters, pid)
		} else {
			others = append(others, pid)
		}
	}
	return append(masters, others...)
}
