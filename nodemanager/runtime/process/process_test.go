package process_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/process"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/runtimetest"
)

func harness(t *testing.T) runtimetest.Harness {
	testenv.Need(t, "cgroup")
	program := runtimetest.Build(t)
	var nodes atomic.Int64
	return runtimetest.Harness{
		New: func(t *testing.T) func() runtime.Runtime {
			config := process.Config{
				Dir: t.TempDir(), LogDir: t.TempDir(), Zone: "conformance",
				Node:  fmt.Sprintf("node-%d-%d", os.Getpid(), nodes.Add(1)),
				Ports: network.Range{First: 28700, Last: 28899},
			}
			return func() runtime.Runtime {
				r, err := process.New(config)
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
		},
		Command:      func(args ...string) []string { return append([]string{program}, args...) },
		MissingImage: "missing@sha256:0",
		Network:      runtime.Host,
		Dial:         true,
		Kernel:       true,
		HostNetwork:  true,
	}
}

func TestConformance(t *testing.T) { runtimetest.Run(t, harness(t)) }
