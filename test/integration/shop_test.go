package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/test/zone"
)

// An app of three roles: each has its service, starts in its order, and one of them is replaced under load while the others stay.
func TestAnAppOfSeveralRoles(t *testing.T) {
	testenv.Need(t, "docker", "root", "program:nginx")
	folder := t.TempDir()
	// Instances reach each other by this address, as they would by that of a machine.
	bridge := addressOfBridge(t)
	d := start(t, zone.Options{Args: []string{"--nginx", "--address", bridge, "--port-range", "26200-26299"}, Dir: t.TempDir()})
	front := d.addressOf(`"nginx": "([^"]+)"`)
	for version, image := range map[string]string{"1": "shop.image", "2": "shop2.image"} {
		binary := filepath.Join(folder, version, "shop")
		build := exec.CommandContext(d.ctx, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", binary, "./examples/shop")
		build.Dir, build.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build: %v: %s", err, out)
		}
		d.run("image", "pack", binary, "-o", filepath.Join(folder, image))
	}
	manifest, err := os.ReadFile(filepath.Join("..", "..", "examples", "shop", "shop.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "shop.yaml")
	if err := os.WriteFile(path, manifest, 0o600); err != nil {
		t.Fatal(err)
	}

	d.run("deploy", path, "--wait")
	before := d.app("shop")
	if before.Running != 5 {
		t.Fatalf("after deploy --wait: %+v", before)
	}
	began := map[string]time.Time{}
	for _, instance := range before.Instances {
		at, err := time.Parse(time.RFC3339Nano, d.docker("inspect", "-f", "{{.State.StartedAt}}", instance.RuntimeID))
		if err != nil {
			t.Fatal(err)
		}
		began[instance.ID] = at
	}
	for name, at := range began {
		// The cache counts a second after its first probe.
		if name != "shop-cache-1" && at.Before(began["shop-cache-1"].Add(time.Second)) {
			t.Errorf("%s was started at %v, and the cache at %v", name, at, began["shop-cache-1"])
		}
	}

	order := func() error {
		answer, err := shopRequest(front, http.MethodPost, "/orders", "a book")
		if err == nil && answer != "" {
			err = fmt.Errorf("the order is answered %q", answer)
		}
		return err
	}
	if err := order(); err != nil {
		t.Fatal(err)
	}
	d.eventually("a worker carries out the order", func() (bool, string) {
		text, err := shopRequest(front, http.MethodGet, "/", "")
		return strings.Contains(text, "done: 1\n"), fmt.Sprint(text, err)
	})
	d.eventually("the workers' logs are those of the workers", func() (bool, string) {
		logs := d.run("app", "logs", "shop", "--role", "worker")
		return strings.Contains(logs, `carrying out "a book"`) && !strings.Contains(logs, "shop-front"), logs
	})
	d.refused(1, []string{`shop has no role named "till"`}, "app", "logs", "shop", "--role", "till")

	// One role is given another image; orders come in all the while.
	end, failed := make(chan struct{}), make(chan string)
	orders := 0
	go func() {
		var errs []string
		defer func() { failed <- strings.Join(errs, "; ") }()
		for {
			select {
			case <-end:
				return
			case <-time.After(10 * time.Millisecond):
				if err := order(); err != nil {
					errs = append(errs, err.Error())
				}
				orders++
			}
		}
	}()
	d.run("deploy", filepath.Join(folder, "shop2.image"), "--name", "shop", "--role", "front", "--wait")
	close(end)
	if errs := <-failed; errs != "" || orders < 20 {
		t.Errorf("%d orders, of which failed: %s", orders, errs)
	}
	after := d.app("shop")
	running := map[string]string{}
	for _, instance := range after.Instances {
		running[instance.ID] = instance.RuntimeID
	}
	for _, instance := range before.Instances {
		if same := running[instance.ID] == instance.RuntimeID; same == strings.HasPrefix(instance.ID, "shop-front-") {
			t.Errorf("%s was in the container %s, and is in %q", instance.ID, instance.RuntimeID, running[instance.ID])
		}
	}
	d.eventually("every order is carried out", func() (bool, string) {
		text, err := shopRequest(front, http.MethodGet, "/", "")
		return strings.Contains(text, "version: 2\n") && strings.Contains(text, fmt.Sprintf("done: %d\n", orders+1)), fmt.Sprint(text, err)
	})
	d.run("app", "scale", "shop", "3", "--role", "worker", "--wait")
	if got := d.app("shop").Running; got != 6 {
		t.Errorf("after a scaling of the workers %d instances run", got)
	}
}

// addressOfBridge is this machine's address on the bridge of the containers.
func addressOfBridge(t *testing.T) string {
	t.Helper()
	bridge, err := net.InterfaceByName("docker0")
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := bridge.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.To4() != nil {
			return network.IP.String()
		}
	}
	t.Fatalf("docker0 has the addresses %v", addresses)
	return ""
}

// shopClient makes a connection for each request: nginx closes idle connections when it reloads, and a request for an order,
// which is not to be carried out twice, is not sent again.
var shopClient = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// shopRequest asks the shop through nginx; an answer that is none of success is an error.
func shopRequest(front, method, path, body string) (string, error) {
	request, err := http.NewRequest(method, "http://"+front+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Host = "shop.example.test"
	answer, err := shopClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return string(text), err
}
