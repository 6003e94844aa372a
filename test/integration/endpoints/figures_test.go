package endpoints_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/companions/nginx"
	"github.com/mammoth-os/mammoth/companions/zookeeper"
	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/internal/zk"
	"github.com/mammoth-os/mammoth/internal/zk/zktest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/test/machine"
)

// figure prints one line of the table: what was measured, and against which budget. A missed one fails the benchmark.
func figure(b *testing.B, what string, got, budget any, met bool) {
	b.Helper()
	verdict := "met"
	if !met {
		verdict = "MISSED"
		b.Errorf("%s: %v, at most %v", what, got, budget)
	}
	fmt.Printf("%-72s %14v %14v   %s\n", what, got, budget, verdict)
}

// heading prints what everything below it ran on.
func heading() { fmt.Printf("%s\n%-72s %14s %14s\n", machine.Describe(), "", "measured", "budget") }

// p99 is the hundredth worst of a hundred.
func p99(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[(len(times)*99+99)/100-1].Round(10 * time.Microsecond)
}

const changes = 100

// BenchmarkTold measures how long after a change a watcher knows of it: `go test -run '^$' -bench Told -benchtime 1x`.
func BenchmarkTold(b *testing.B) {
	z := newZone(b)
	heading()
	web := z.newApp("web", nil)
	web.start()
	b.Run("HTTP", func(b *testing.B) {
		index := web.publish()
		var times []time.Duration
		for range changes {
			told := make(chan int64, 1)
			go func() { told <- blockingIndex(z, index) }()
			// The question has to be there before the change.
			time.Sleep(5 * time.Millisecond)
			web.instances[0].weight++
			start := time.Now()
			index = web.publish()
			if got := <-told; got != index {
				b.Fatalf("told of %d, want %d", got, index)
			}
			times = append(times, time.Since(start))
		}
		figure(b, "change → HTTP watcher told, p99 of 100", p99(times), 50*time.Millisecond, p99(times) <= 50*time.Millisecond)
	})
	b.Run("ZooKeeper", func(b *testing.B) {
		server := zktest.Start(b)
		z.run(zookeeper.New(zookeeper.Config{ZooKeeper: zk.Config{Servers: []string{server.Address}}}, z.conn))
		watch := server.Watch(zookeeper.DefaultPath + "/web/" + web.instances[0].id)
		for node, err := watch.Next(within(b)); !node.Exists; node, err = watch.Next(within(b)) {
			if err != nil {
				b.Fatal(err)
			}
		}
		var times []time.Duration
		for range changes {
			web.instances[0].weight++
			start := time.Now()
			web.publish()
			if _, err := watch.Next(within(b)); err != nil {
				b.Fatal(err)
			}
			times = append(times, time.Since(start))
			time.Sleep(5 * time.Millisecond)
		}
		figure(b, "change → ZooKeeper watcher told, p99 of 100", p99(times), 100*time.Millisecond, p99(times) <= 100*time.Millisecond)
	})
	b.Run("watchers", func(b *testing.B) {
		const watchers = 1000
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: watchers}}
		defer client.CloseIdleConnections()
		index := web.publish()
		var told sync.WaitGroup
		var asked sync.WaitGroup
		before := memory()
		for range watchers {
			asked.Add(1)
			told.Go(func() {
				asked.Done()
				answer, err := client.Get(fmt.Sprintf("http://%s/v1/registry/services/web?index=%d&wait=60s", z.address, index))
				if err == nil {
					_ = answer.Body.Close()
				}
			})
		}
		asked.Wait()
		time.Sleep(2 * time.Second)
		held := memory() - before
		web.instances[0].weight++
		start, cpu := time.Now(), processor()
		web.publish()
		told.Wait()
		took := time.Since(start).Round(time.Millisecond)
		figure(b, "1,000 HTTP watchers all told (both ends in this process)", took, "-", true)
		figure(b, "  memory of server and clients, a watcher", fmt.Sprintf("%d KiB", held>>10/watchers), "-", true)
		figure(b, "  CPU time to tell all", (processor() - cpu).Round(time.Millisecond), "-", true)
	})
}

func blockingIndex(z *zone, index int64) int64 {
	answer, err := http.Get(fmt.Sprintf("http://%s/v1/registry/services/web?index=%d&wait=30s", z.address, index))
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	var service struct {
		Index int64 `json:"index,string"`
	}
	_ = json.NewDecoder(answer.Body).Decode(&service)
	return service.Index
}

// memory is what this process holds in use.
func memory() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapInuse + stats.StackInuse)
}

// processor is the CPU time that this process has used.
func processor() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkRouted measures how long after a change nginx routes by it.
func BenchmarkRouted(b *testing.B) {
	testenv.Need(b, "program:nginx")
	heading()
	b.Run("one app", func(b *testing.B) {
		z, ctx := newZone(b), within(b)
		front := freeAddress(b)
		z.runBalancer(nginx.New(nginx.Config{Dir: filepath.Join(folder(b), "nginx"), Listen: front, StopOnExit: true}, z.conn))
		web := z.newApp("web", onHost(host))
		one, two := web.start(), web.start()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", front)
		}}}
		web.instances = []*instance{one}
		web.confirmed(ctx)
		var times []time.Duration
		for i := range changes {
			// Changes that follow each other faster are applied together.
			time.Sleep(1050 * time.Millisecond)
			now := []*instance{two, one}[i%2]
			web.instances = []*instance{now}
			start := time.Now()
			web.publish()
			for word := ""; !strings.HasPrefix(word, now.id); word, _ = get(client, "http://"+host+"/") {
				time.Sleep(time.Millisecond)
			}
			times = append(times, time.Since(start))
		}
		web.instances = []*instance{one, two}
		figure(b, "change → nginx routes by it, p99 of 100", p99(times), 300*time.Millisecond, p99(times) <= 300*time.Millisecond)
	})
	b.Run("a thousand apps", func(b *testing.B) {
		z, ctx := newZone(b), within(b)
		before, cpu := memory(), processor()
		for i := range 1000 {
			name := fmt.Sprintf("app-%d", i)
			list := []*apiv1.Endpoint{}
			for n := range 10 {
				list = append(list, &apiv1.Endpoint{
					Id: fmt.Sprintf("%s-%d", name, n), Address: "127.0.0.1", Port: int32(20000 + 10*i + n), Weight: 100, State: apiv1.Endpoint_HEALTHY,
				})
			}
			z.registry.Expose(name, onHost(name+".example.test"))
			z.registry.Publish(name, list)
		}
		figure(b, "1,000 services of 10 endpoints: CPU time to publish them all", (processor() - cpu).Round(100*time.Microsecond), "-", true)
		figure(b, "  memory of the registry", fmt.Sprintf("%.1f MiB", float64(memory()-before)/(1<<20)), "-", true)
		z.runBalancer(nginx.New(nginx.Config{Dir: filepath.Join(folder(b), "nginx"), Listen: freeAddress(b), StopOnExit: true}, z.conn))
		web := z.newApp("web", onHost(host))
		web.start()
		web.confirmed(ctx)
		figure(b, "  memory of the registry and of nginx's companion", fmt.Sprintf("%.1f MiB", float64(memory()-before)/(1<<20)), "-", true)
		cpu = processor()
		var times []time.Duration
		for range 10 {
			time.Sleep(1500 * time.Millisecond)
			web.instances[0].weight++
			start := time.Now()
			web.confirmed(ctx)
			times = append(times, time.Since(start))
		}
		figure(b, "  CPU time of registry and companion for one change", ((processor() - cpu) / time.Duration(len(times))).Round(100*time.Microsecond), "-", true)
		worst := slices.Max(times).Round(time.Millisecond)
		figure(b, "  one change rendered, checked, applied and confirmed, worst of 10", worst, 500*time.Millisecond, worst <= 500*time.Millisecond)
	})
}
