package haproxy

import (
	"os"
	"strconv"
	"testing"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/companions/balancer/balancertest"
	"github.com/mammoth-os/mammoth/internal/testenv"
)

func TestConformance(t *testing.T) {
	testenv.Need(t, "program:haproxy")
	balancertest.Run(t, balancertest.Subject{
		New: func(t *testing.T, front balancertest.Front) balancer.Proxy {
			proxy, err := NewProxy(Config{Dir: front.Dir, Listen: front.HTTP, TLS: front.TLS, Certificates: front.Certificates})
			if err != nil {
				t.Fatal(err)
			}
			return proxy
		},
		Close:     func(proxy balancer.Proxy) { proxy.(*Proxy).Close() },
		Processes: processes,
	})
}

// processes finds every HAProxy of a front.
func processes(front balancertest.Front) []int {
	owner := &Proxy{config: Config{Dir: front.Dir}}
	var list []int
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && owner.isOurs(pid) {
			list = append(list, pid)
		}
	}
	return list
}

func FuzzStatistics(f *testing.F) {
	f.Add("# pxname,svname,hrsp_2xx,hrsp_5xx,econ\napp_web,web-1,3,1,2\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		result, err := parseStatistics(text)
		if err != nil {
			return
		}
		for name, count := range result {
			if count.errors < 0 || count.requests < 0 {
				t.Fatalf("%s has %v", name, count)
			}
		}
	})
}
