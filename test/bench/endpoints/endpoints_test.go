package endpoints

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/internal/zk/zktest"
	"github.com/mammoth-os/mammoth/test/machine"
	"github.com/mammoth-os/mammoth/test/zone"
)

var (
	rollouts = flag.Int("rollouts", 50, "how many rollouts follow each other")
	away     = flag.Duration("away", 30*time.Second, "how long ZooKeeper is down")
)

// stage is a zone with an app of ten instances behind nginx, whose companions are processes of their own.
type stage struct {
	*testing.B
	*zone.Zone
	ctx       context.Context
	dir       string
	front     string
	zookeeper *zktest.Server
	nginx     *exec.Cmd
	copier    *exec.Cmd
	version   int
	manifest  string
}

// BenchmarkClients is the table: go test -run '^$' -bench Clients -benchtime 1x ./test/bench/endpoints -rollouts 5
func BenchmarkClients(b *testing.B) {
	testenv.Need(b, "docker", "root", "program:nginx")
	dir, err := os.MkdirTemp("", "mammoth-bench-endpoints-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	programs, err := zone.Build(b.Context(), "../../..", dir)
	if err != nil {
		b.Fatal(err)
	}
	fmt.Printf("%d requests/s through nginx on %s\n", rate, machine.Describe())
	fmt.Printf("%-66s %10s %8s %10s\n", "", "requests", "failed", "budget")
	for _, retry := range []string{"idempotent", "off"} {
		b.Run("retry-"+retry, func(b *testing.B) { measure(b, programs, filepath.Join(dir, retry), retry) })
	}
}

func measure(b *testing.B, programs zone.Programs, dir, retry string) {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Minute)
	defer cancel()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	s := &stage{B: b, ctx: ctx, dir: dir, zookeeper: zktest.Start(b), front: freeAddress(b)}
	output := &bytes.Buffer{}
	z, err := zone.Start(ctx, programs, zone.Options{
		Dir: filepath.Join(dir, "zone"), Nodes: 2, Output: output,
		Args: []string{"--port-range", "27000-27999", "--node-cpu", "4", "--node-memory", "4GiB", "--node-disk", "8GiB"},
	})
	if err != nil {
		b.Fatalf("%v\n%s", err, output)
	}
	s.Zone = z
	defer func() {
		end(s.nginx)
		end(s.copier)
		if err := z.Purge(); err != nil {
			b.Error(err)
		}
	}()
	s.startNginx()
	s.startCopier()
	s.manifest = fmt.Sprintf(`name: web
image: %s
instances: 10
resources: {cpu: 50m, memory: 64MiB, disk: 64MiB}
ports: [{name: http, container: 8080}]
health: {http: {path: /healthz, port: http}, interval: 500ms}
expose: {http: {host: %s, path: /}, retry: %s}
update: {maxSurge: 5, minHealthy: 0s}
stop: {drain: 1s}
env: {VERSION: "VERSION-NUMBER"}
`, programs.Hello, host, retry)
	s.next()
	l := newLoad(s.front)
	defer l.stop()
	report := func(what string, budget int) {
		time.Sleep(200 * time.Millisecond)
		total, failed := l.count()
		verdict := ""
		if len(failed) > budget {
			verdict = "  MISSED, the first: " + failed[0]
			b.Errorf("%s: %d failed", what, len(failed))
		}
		fmt.Printf("%-66s %10d %8d %10d%s\n", what+", retry "+retry, total, len(failed), budget, verdict)
	}
	time.Sleep(2 * time.Second)
	report("nothing happens", 0)
	s.next()
	report("rolling update of 10 instances", 0)
	s.cli("app", "scale", "web", "3", "--wait")
	s.cli("app", "scale", "web", "10", "--wait")
	report("scale 10, 3, 10", 0)
	s.cli("node", "drain", "node-1")
	s.until("node-1 is empty", func() bool { return !onNode(s, "node-1") })
	s.cli("node", "undrain", "node-1")
	report("node drain", 0)
	s.killMaster()
	s.next()
	report("application master killed, then a rolling update", 0)
	end(s.copier)
	s.next()
	s.startCopier()
	report("registry companion killed, rolling update, started again", 0)
	end(s.nginx)
	time.Sleep(2 * time.Second)
	s.startNginx()
	s.next()
	report("nginx companion killed, started again, rolling update", 0)
	s.zookeeper.Stop()
	begin := time.Now()
	s.next()
	time.Sleep(time.Until(begin.Add(*away)))
	s.zookeeper.Restart()
	report(fmt.Sprintf("ZooKeeper down for %s with a rolling update", max(*away, time.Since(begin)).Round(time.Second)), 0)
	s.cli("app", "scale", "web", "5", "--wait")
	for range *rollouts {
		s.next()
	}
	report(fmt.Sprintf("%d rolling updates of 5 instances in a row", *rollouts), 0)
	if retry == "idempotent" {
		s.killInstance()
		time.Sleep(3 * time.Second)
		report("docker kill of one of 5 (1 % of a second's requests)", rate/100)
	}
	l.stop()
	report("what was still on its way", 0)
	if retry == "idempotent" {
		s.canary(l)
	}
}

// canary measures the share of requests that a canary is given.
func (s *stage) canary(l *load) {
	s.version++
	s.write()
	s.cli("deploy", s.file(), "--canary", "10%", "--wait")
	for _, percent := range []int{10, 50, 100} {
		if percent > 10 {
			s.cli("app", "promote", "web", "--to", fmt.Sprintf("%d%%", percent), "--wait")
		}
		const asked = 2000
		got := 0
		for range asked {
			version, err := l.get()
			if err != nil {
				s.Fatal(err)
			}
			if version == strconv.Itoa(s.version) {
				got++
			}
		}
		share := 100 * float64(got) / asked
		verdict := ""
		if share < float64(percent)-3 || share > float64(percent)+3 {
			verdict = "  MISSED"
			s.Errorf("the canary got %.1f %% of the requests, not %d", share, percent)
		}
		fmt.Printf("%-66s %9.1f%% %8s %10s%s\n", fmt.Sprintf("canary of %d %%: measured share of %d requests", percent, asked), share, "", "± 3", verdict)
	}
}

func (s *stage) file() string { return filepath.Join(s.dir, "web.yaml") }

func (s *stage) write() {
	text := strings.ReplaceAll(s.manifest, "VERSION-NUMBER", strconv.Itoa(s.version))
	if err := os.WriteFile(s.file(), []byte(text), 0o644); err != nil {
		s.Fatal(err)
	}
}

// next rolls out one more version, and returns when it is done.
func (s *stage) next() {
	s.Helper()
	s.version++
	s.write()
	args := []string{"deploy", s.file(), "--wait"}
	if wanted := s.wanted(); wanted > 0 {
		args = append(args, "--instances", strconv.Itoa(wanted))
	}
	s.cli(args...)
}

func (s *stage) wanted() int {
	app, err := s.App(s.ctx, "web")
	if err != nil {
		return 0
	}
	return app.Wanted
}

func (s *stage) cli(args ...string) string {
	s.Helper()
	out, err := s.CLI(s.ctx, args...)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

func (s *stage) until(what string, done func() bool) {
	s.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !done(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("it never happens: %s", what)
		}
	}
}

func onNode(s *stage, node string) bool {
	app, err := s.App(s.ctx, "web")
	if err != nil {
		return true
	}
	for _, instance := range app.Instances {
		if instance.Node == node {
			return true
		}
	}
	return app.Running != app.Wanted
}

// companion starts one in a process of its own and returns when it says where it is.
func (s *stage) companion(args ...string) *exec.Cmd {
	s.Helper()
	command := exec.Command(s.Programs.Mammoth, append([]string{"companion"}, append(args, "--resourcemanager", s.Address)...)...)
	log, err := os.OpenFile(filepath.Join(s.dir, args[0]+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		s.Fatal(err)
	}
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		s.Fatal(err)
	}
	return command
}

// startNginx also ends nginx with the companion when that is told to end, and not when it is killed.
func (s *stage) startNginx() {
	s.nginx = s.companion("nginx", "--dir", filepath.Join(s.dir, "nginx"), "--listen", s.front, "--stop-nginx")
	s.Cleanup(func() { s.endProxy() })
	s.until("nginx accepts connections", func() bool {
		conn, err := net.DialTimeout("tcp", s.front, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// endProxy ends the nginx that a killed companion has left.
func (s *stage) endProxy() {
	text, err := os.ReadFile(filepath.Join(s.dir, "nginx", "nginx.pid"))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
}

func (s *stage) startCopier() {
	s.copier = s.companion("zookeeper", "--zookeeper", s.zookeeper.Address)
}

// end kills a companion as a crash would.
func end(command *exec.Cmd) {
	if command == nil || command.ProcessState != nil {
		return
	}
	_ = command.Process.Kill()
	_ = command.Wait()
}

// killMaster kills the process of the app's application master.
func (s *stage) killMaster() {
	s.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		s.Fatal(err)
	}
	for _, path := range processes {
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte("MAMMOTH_RESOURCEMANAGER="+s.Address)) || !bytes.Contains(text, []byte("MAMMOTH_TOKEN=")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			s.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			s.Fatal(err)
		}
		return
	}
	s.Fatal("the application master was not found")
}

// killInstance kills the container of one instance.
func (s *stage) killInstance() {
	s.Helper()
	out, err := exec.Command("docker", "ps", "-q", "--filter", "label=mammoth.app=web", "--filter", "publish="+s.somePort()).Output()
	if err != nil || len(bytes.Fields(out)) != 1 {
		s.Fatalf("the container of an instance was not found: %q, %v", out, err)
	}
	if out, err := exec.Command("docker", "kill", strings.TrimSpace(string(out))).CombinedOutput(); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
}

func (s *stage) somePort() string {
	endpoints, err := s.Endpoints(s.ctx, "web")
	if err != nil || len(endpoints) == 0 {
		s.Fatalf("web has no endpoints: %v", err)
	}
	return strconv.Itoa(endpoints[0].Port)
}

func freeAddress(b *testing.B) string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
