package docker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"

	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/docker"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/runtimetest"
)

// BenchmarkTwentyStarts starts 20 containers, 8 at a time, in turns through the runtime and through the bare API
// (one create and one start each), and reports the ratio. The budget is 1.05.
func BenchmarkTwentyStarts(b *testing.B) {
	testenv.Need(b, "docker", "root")
	for _, host := range []bool{false, true} {
		b.Run(fmt.Sprintf("host=%v", host), func(b *testing.B) {
			bench := newBench(b, testenv.DockerSocket())
			r := open(b, docker.Config{
				Zone: bench.zone, Node: "bench", Registry: bench.registry, Ports: network.Range{First: 29100, Last: 29399},
				AllowHostNetwork: true, LogDir: b.TempDir(),
			})
			w := runtimetest.NewSpecs(runtimetest.Harness{
				Image: bench.image, Command: func(args ...string) []string { return append([]string{"/program"}, args...) },
			})
			if err := r.Prepare(b.Context(), w.Spec("serve"), func(runtime.Progress) {}); err != nil {
				b.Fatal(err)
			}
			var ours, bare time.Duration
			for b.Loop() {
				ours += timed(func(i int) error {
					spec := w.Spec("serve")
					spec.Ports = []runtime.Port{{Name: "http", Container: 8080}}
					if host {
						spec.Network = runtime.Host
					}
					_, err := r.Start(b.Context(), spec)
					return err
				}, b)
				cleanUp(b, bench)
				bare += timed(func(i int) error { return bench.bareStart(b.Context(), i, host) }, b)
				cleanUp(b, bench)
			}
			b.ReportMetric(float64(ours)/float64(bare), "ratio")
			b.ReportMetric(ours.Seconds()/float64(b.N), "runtime-s/op")
			b.ReportMetric(bare.Seconds()/float64(b.N), "bare-s/op")
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func timed(start func(i int) error, b *testing.B) time.Duration {
	began := time.Now()
	slots := make(chan struct{}, 8)
	var group sync.WaitGroup
	for i := range 20 {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := start(i); err != nil {
				b.Error(err)
			}
		})
	}
	group.Wait()
	return time.Since(began)
}

func (b *bench) bareStart(ctx context.Context, i int, host bool) error {
	config := &container.Config{
		Image: b.localName(), Cmd: []string{"/program", "serve"}, Env: []string{"PORT=8080"},
		Labels: map[string]string{"mammoth.zone": b.zone},
	}
	hostConfig := &container.HostConfig{Resources: container.Resources{NanoCPUs: 1e9, Memory: 64 << 20, MemorySwap: 64 << 20}}
	if host {
		config.Env = []string{fmt.Sprintf("PORT=%d", 29400+i)}
		hostConfig.NetworkMode = "host"
	} else {
		config.ExposedPorts = nat.PortSet{"8080/tcp": {}}
		hostConfig.PortBindings = nat.PortMap{"8080/tcp": {{HostIP: "127.0.0.1"}}}
	}
	created, err := b.client.ContainerCreate(ctx, config, hostConfig, nil, nil, "")
	if err != nil {
		return err
	}
	return b.client.ContainerStart(ctx, created.ID, container.StartOptions{})
}

func cleanUp(b *testing.B, bench *bench) {
	b.Helper()
	bench.removeAll(b)
}
