package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/test/zone"
)

// machines are two network namespaces with a wire between them: 10.99.0.1 and 10.99.0.2.
func machines(t *testing.T) (here, there []string) {
	t.Helper()
	names := []string{fmt.Sprintf("machine-%d-1", os.Getpid()), fmt.Sprintf("machine-%d-2", os.Getpid())}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	for _, name := range names {
		ip("netns", "add", name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	}
	ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
	for i, name := range names {
		ip("-n", name, "addr", "add", fmt.Sprintf("10.99.0.%d/24", i+1), "dev", "eth0")
		ip("-n", name, "link", "set", "eth0", "up")
		ip("-n", name, "link", "set", "lo", "up")
	}
	enter := func(name string) []string { return []string{"nsenter", "--net=/var/run/netns/" + name} }
	return enter(names[0]), enter(names[1])
}

// A zone on two machines, of which nobody was told an address but the ResourceManager's: everybody is told one that leads somewhere.
func TestTwoMachinesFindEachOther(t *testing.T) {
	testenv.Need(t, "root", "program:ip", "program:nsenter")
	p, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	here, there := machines(t)
	dir := t.TempDir()
	log := &lockedBuffer{}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	z := &zone.Zone{Programs: p, Options: zone.Options{Enter: here}, Address: "127.0.0.1:7070"}
	daemon := func(enter []string, args ...string) {
		t.Helper()
		command := zone.Command(enter, p.Mammoth, args...)
		command.Stdout, command.Stderr = log, log
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = command.Process.Signal(os.Interrupt)
			_ = command.Wait()
			if out, err := exec.Command(p.Mammoth, "down", "--dir", args[2]).CombinedOutput(); err != nil {
				t.Errorf("mammoth down: %v: %s", err, out)
			}
		})
	}
	daemon(here, "resourcemanager", "--dir", filepath.Join(dir, "manager"), "--listen", "0.0.0.0:7070", "--insecure")
	daemon(here, "nodemanager", "--dir", filepath.Join(dir, "here"), "--node-id", "here", "--runtime", "fake", "--resourcemanager", "10.99.0.1:7070")
	daemon(there, "nodemanager", "--dir", filepath.Join(dir, "there"), "--node-id", "there", "--runtime", "fake", "--resourcemanager", "10.99.0.1:7070")
	d := &desk{T: t, Zone: z, ctx: ctx}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the zone said:\n%s", log.tail(100))
		}
	})
	d.eventually("two nodes are ready", func() (bool, string) {
		out, err := d.CLI(ctx, "node", "ls")
		return err == nil && strings.Count(out, " ready ") == 2, out
	})
	for _, refused := range [][]string{{"--address", "127.0.0.1"}, {"--listen", "127.0.0.1:7421"}, {"--address", "0.0.0.0"}} {
		args := append([]string{"nodemanager", "--dir", filepath.Join(dir, "refused"), "--node-id", "refused", "--runtime", "fake", "--resourcemanager", "10.99.0.1:7070"}, refused...)
		if out, err := zone.CommandContext(ctx, there, p.Mammoth, args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "or leave it out") {
			t.Errorf("%s: %v, %s", strings.Join(refused, " "), err, out)
		}
	}
	// Each app's master is on one machine, and an instance on the other.
	for _, name := range []string{"web", "api"} {
		d.run("deploy", p.Hello, "--name", name, "--instances", "2", "--cpu", "0.1", "--memory", "32MiB", "--port", "8080", "--wait")
		endpoints, err := d.Endpoints(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		var addresses []string
		for _, endpoint := range endpoints {
			addresses = append(addresses, endpoint.Address)
		}
		if slices.Sort(addresses); !slices.Equal(addresses, []string{"10.99.0.1", "10.99.0.2"}) {
			t.Errorf("instances of %s are reached at %v", name, addresses)
		}
		d.run("app", "rm", name, "--wait")
	}
}
