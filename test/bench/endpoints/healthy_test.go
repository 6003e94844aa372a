package endpoints

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/companions/zookeeper"
	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/internal/zk/zktest"
	"github.com/mammoth-os/mammoth/test/machine"
	"github.com/mammoth-os/mammoth/test/zone"
)

var changes = flag.Int("changes", 100, "how many instances become healthy")

// BenchmarkHealthy measures how long after its node finds an instance healthy the watchers know of it and nginx routes
// to it: the app goes from one instance to two and back. The node's word is the end of the instance's "run" phase, in
// milliseconds, on the same clock.
func BenchmarkHealthy(b *testing.B) {
	testenv.Need(b, "docker", "root", "program:nginx")
	dir, err := os.MkdirTemp("", "mammoth-bench-healthy-")
	if err != nil {
		b.Fatal(err)
	}
	// nginx is ended by what is in there.
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	programs, err := zone.Build(b.Context(), "../../..", dir)
	if err != nil {
		b.Fatal(err)
	}
	s := &stage{B: b, ctx: b.Context(), dir: dir, zookeeper: zktest.Start(b), front: freeAddress(b)}
	s.Zone, err = zone.Start(s.ctx, programs, zone.Options{
		Dir: filepath.Join(dir, "zone"), Output: io.Discard, Args: []string{"--port-range", "28000-28999"},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		end(s.nginx)
		end(s.copier)
		if err := s.Purge(); err != nil {
			b.Error(err)
		}
	}()
	s.startNginx()
	s.startCopier()
	s.manifest = fmt.Sprintf(`name: web
image: %s
instances: 1
resources: {cpu: 100m, memory: 64MiB, disk: 64MiB}
ports: [{name: http, container: 8080}]
health: {http: {path: /healthz, port: http}}
expose: {http: {host: %s, path: /}}
update: {minHealthy: 0s}
stop: {drain: 0s}
`, programs.Hello, host)
	s.next()
	var told, copied, routed []time.Duration
	for range *changes {
		// The first change after a quiet second is applied at once; those that follow faster are applied together.
		time.Sleep(1200 * time.Millisecond)
		healthy, at := s.grow()
		told = append(told, at[0].Sub(healthy))
		copied = append(copied, at[1].Sub(healthy))
		routed = append(routed, at[2].Sub(healthy))
		s.cli("app", "scale", "web", "1", "--wait")
	}
	fmt.Println(machine.Describe())
	fmt.Printf("%-56s %10s %10s %10s\n", fmt.Sprintf("of %d changes", *changes), "median", "p99", "budget")
	for _, row := range []struct {
		what   string
		times  []time.Duration
		budget time.Duration
	}{
		{"healthy → HTTP watcher told", told, 50 * time.Millisecond},
		{"healthy → ZooKeeper watcher told", copied, 100 * time.Millisecond},
		{"healthy → nginx routes", routed, 300 * time.Millisecond},
	} {
		slices.Sort(row.times)
		worst := row.times[(len(row.times)*99+99)/100-1]
		verdict := ""
		if worst > row.budget {
			verdict = "  MISSED"
			b.Errorf("%s: %s", row.what, worst)
		}
		fmt.Printf("%-56s %10s %10s %10s%s\n", row.what, row.times[len(row.times)/2].Round(time.Millisecond), worst.Round(time.Millisecond), row.budget, verdict)
	}
}

// grow starts a second instance, and tells when its node found it healthy, and when each of the three knew it.
func (s *stage) grow() (healthy time.Time, at [3]time.Time) {
	s.Helper()
	service := s.look(0)
	first := service.Endpoints[0].ID
	id := "web-1"
	if first == id {
		id = "web-2"
	}
	watch := s.zookeeper.Watch(zookeeper.DefaultPath + "/web/" + id)
	if node, err := watch.Next(s.ctx); err != nil || node.Exists {
		s.Fatalf("ZooKeeper has %s already: %v", id, err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for now := service; len(now.Endpoints) < 2; {
			now = s.look(now.Index)
		}
		at[0] = time.Now()
	})
	group.Go(func() {
		if _, err := watch.Next(s.ctx); err == nil {
			at[1] = time.Now()
		}
	})
	group.Go(func() {
		front := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", s.front)
		}}}
		for s.ctx.Err() == nil {
			if answer, err := front.Get("http://" + host + "/"); err == nil {
				text, _ := io.ReadAll(answer.Body)
				_ = answer.Body.Close()
				if strings.Contains(string(text), "instance: "+id+"\n") {
					break
				}
			}
			time.Sleep(2 * time.Millisecond)
		}
		at[2] = time.Now()
	})
	s.cli("app", "scale", "web", "2", "--wait")
	group.Wait()
	app, err := s.App(s.ctx, "web")
	if err != nil {
		s.Fatal(err)
	}
	for _, instance := range app.Instances {
		for _, phase := range instance.Phases {
			if instance.ID == id && phase.Name == "run" {
				return phase.StartedAt.Add(time.Duration(phase.DurationMs) * time.Millisecond), at
			}
		}
	}
	s.Fatalf("%s has no phase \"run\"", id)
	return healthy, at
}

// seen is a service as the HTTP interface shows it.
type seen struct {
	Index     int64 `json:"index,string"`
	Endpoints []struct{ ID string }
}

// look asks for the service once it is newer than index.
func (s *stage) look(index int64) seen {
	var service seen
	answer, err := http.Get(fmt.Sprintf("http://%s/v1/registry/services/web?index=%d&wait=60s", s.Address, index))
	if err != nil {
		s.Error(err)
		return service
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&service); err != nil {
		s.Error(err)
	}
	return service
}
