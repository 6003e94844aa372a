package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/internal/zk/zktest"
	"github.com/mammoth-os/mammoth/test/zone"
)

// A zone with nginx, ZooKeeper and DNS beside it: an app is reached by its host name, a canary is promoted, a blue/green
// rollout is exclusive, and the registry is read in all three places.
func TestBalancedZone(t *testing.T) {
	testenv.Need(t, "program:nginx", "program:dig", "program:curl")
	server := zktest.Start(t)
	dir := t.TempDir()
	d := start(t, zone.Options{Args: []string{"--zookeeper", server.Address, "--nginx", "--dns", "--port-range", "26000-26099"}, Dir: dir})
	front := d.addressOf(`"nginx": "([^"]+)"`)
	dnsPort := d.addressOf(`"dns": "127.0.0.1:([^"]+)"`)
	work := t.TempDir()
	web := filepath.Join(work, "web.yaml")
	manifest := fmt.Sprintf(`name: web
image: %s
instances: 3
resources: {cpu: 100m, memory: 64MiB, disk: 64MiB}
ports: [{name: http, container: 8080}]
health: {http: {path: /healthz, port: http}, interval: 500ms}
expose: {http: {host: web.example.test, path: /}}
update: {minHealthy: 0s}
stop: {drain: 1s}
`, d.Programs.Hello)
	if err := os.WriteFile(web, []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}

	d.run("deploy", web, "--wait")
	if out := d.shell("curl", "-sS", "-H", "Host: web.example.test", "http://"+front+"/"); !strings.Contains(out, "version: 1") {
		t.Errorf("nginx answers %q", out)
	}

	// Two apps cannot have the same place.
	d.refused(1, []string{`host "web.example.test" with path "/" is already routed to app "web"`}, "deploy", web, "--name", "other")

	// A canary gets its share until it is promoted.
	d.run("deploy", d.Programs.Hello2, "--name", "web", "--canary", "10%")
	if out := d.run("app", "rollout", "web"); !strings.Contains(out, "version 2 is paused, 1 of 3 instances, 10 % of the requests") {
		t.Errorf("the rollout is watched as %q", out)
	}
	if share := d.share(front, "2", 500); share < 7 || share > 13 {
		t.Errorf("the canary got %.1f %% of the requests, want 10 ± 3", share)
	}
	d.run("app", "promote", "web", "--wait")
	if share := d.share(front, "2", 50); share != 100 {
		t.Errorf("after the promotion %.1f %% of the requests are answered by version 2", share)
	}

	// Exclusive: while the old version can answer, the new one does not.
	seen := d.watch(front)
	d.run("deploy", d.Programs.Hello, "--name", "web", "--strategy", "blue-green", "--exclusive", "--wait")
	order := seen()
	if strings.LastIndexByte(order, '2') > strings.IndexByte(order, '1') && strings.Contains(order, "1") {
		t.Error("version 2 has answered after version 1")
	}
	if !strings.Contains(order, "2") {
		t.Error("version 2 has not answered before the change")
	}
	if out := d.shell("curl", "-sS", "-H", "Host: web.example.test", "http://"+front+"/"); !strings.Contains(out, "version: 1") {
		t.Errorf("after --wait nginx answers %q", out)
	}

	// The registry is the same everywhere. Nobody waits for DNS and ZooKeeper, which follow it.
	instances := regexp.MustCompile(`"id": "(web-\d+)"`).FindAllStringSubmatch(d.run("registry", "get", "web", "-o", "json"), -1)
	d.eventually("DNS names the three instances", func() (bool, string) {
		srv := d.shell("dig", "@127.0.0.1", "-p", dnsPort, "web.service.mammoth", "SRV", "+short")
		for _, match := range instances {
			if !strings.Contains(srv, match[1]+".web.instance.mammoth.") {
				return false, srv
			}
		}
		return len(instances) == 3 && strings.Count(srv, "\n") == 3, srv
	})
	d.eventually("ZooKeeper has them", func() (bool, string) {
		listed := server.Command("ls", "/mammoth/services/web")
		for _, match := range instances {
			if !regexp.MustCompile(`\b` + match[1] + `\b`).MatchString(listed) {
				return false, listed
			}
		}
		return true, listed
	})
	for _, match := range instances {
		if entry := server.Command("get", "/mammoth/services/web/"+match[1]); !strings.Contains(entry, `"id":"`+match[1]+`"`) {
			t.Errorf("ZooKeeper has of %s:\n%s", match[1], entry)
		}
	}
}

// addressOf is what the zone has noted of its companions.
func (d *desk) addressOf(pattern string) string {
	d.Helper()
	text, err := os.ReadFile(filepath.Join(d.Options.Dir, "companions.json"))
	if err != nil {
		d.Fatal(err)
	}
	match := regexp.MustCompile(pattern).FindSubmatch(text)
	if match == nil {
		d.Fatalf("nothing like %s in %s", pattern, text)
	}
	return string(match[1])
}

func (d *desk) shell(program string, args ...string) string {
	d.Helper()
	out, err := exec.CommandContext(d.ctx, program, args...).CombinedOutput()
	if err != nil {
		d.Fatalf("%s %v: %v: %s", program, args, err, out)
	}
	return string(out)
}

// ask tells the version that answers through nginx: "5" is a status of 5xx, "" is nobody.
func ask(front string) string {
	request, err := http.NewRequest(http.MethodGet, "http://"+front+"/", http.NoBody)
	if err != nil {
		return ""
	}
	request.Host = "web.example.test"
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}}
	answer, err := client.Do(request)
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return ""
	}
	if answer.StatusCode >= 500 {
		return "5"
	}
	_, rest, _ := bytes.Cut(text, []byte("version: "))
	version, _, _ := bytes.Cut(rest, []byte("\n"))
	return string(version)
}

// share is how many percent of so many requests a version answers.
func (d *desk) share(front, version string, asked int) float64 {
	got := 0
	for range asked {
		if ask(front) == version {
			got++
		}
	}
	return 100 * float64(got) / float64(asked)
}

// watch asks again and again, once before it returns, until the answer is called: it gives the versions in the order in which they
// answered.
func (d *desk) watch(front string) func() string {
	end, order := make(chan struct{}), make(chan string)
	first := ask(front)
	go func() {
		seen := strings.Builder{}
		seen.WriteString(first)
		for {
			select {
			case <-end:
				order <- seen.String()
				return
			default:
				seen.WriteString(ask(front))
			}
		}
	}()
	return func() string {
		close(end)
		return <-order
	}
}

// A canary whose probes are fine, but whose answers are errors, is taken back by what nginx counts.
func TestCanaryIsRevertedByErrors(t *testing.T) {
	testenv.Need(t, "program:nginx")
	d := start(t, zone.Options{Args: []string{"--nginx", "--port-range", "26100-26199"}, Dir: t.TempDir()})
	front := d.addressOf(`"nginx": "([^"]+)"`)
	web := filepath.Join(t.TempDir(), "web.yaml")
	manifest := fmt.Sprintf(`name: web
image: %s
instances: 2
resources: {cpu: 100m, memory: 64MiB, disk: 64MiB}
ports: [{name: http, container: 8080}]
health: {tcp: {port: http}, interval: 500ms}
expose: {http: {host: web.example.test, path: /}}
update: {strategy: canary, canaryPercent: 50, maxErrorPercent: 20, minHealthy: 0s}
stop: {drain: 0s}
`, d.Programs.Hello)
	if err := os.WriteFile(web, []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	d.run("deploy", web, "--wait")
	d.run("deploy", d.Programs.Hello2, "--name", "web", "--wait")
	// The canary falls sick in a way that its probe does not see.
	app, err := d.App(d.ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	for _, instance := range app.Instances {
		if instance.Version == 2 {
			d.shell("curl", "-sS", fmt.Sprintf("http://%s:%d/sick", instance.Address, instance.Port))
		}
	}
	for deadline := time.Now().Add(2 * time.Minute); app.Status.Detail.State != "REVERTED"; {
		if time.Now().After(deadline) {
			t.Fatalf("the canary answers with errors, and its rollout is %+v", app.Status)
		}
		_ = exec.Command("curl", "-sS", "-H", "Host: web.example.test", "http://"+front+"/healthz").Run()
		if app, err = d.App(d.ctx, "web"); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(app.Status.Detail.Reason, "answers of version 2 were errors, at most 20 % may be") {
		t.Errorf("the reason is %q", app.Status.Detail.Reason)
	}
	if share := d.share(front, "1", 50); share != 100 {
		t.Errorf("after the revert %.1f %% of the requests are answered by version 1", share)
	}
}
