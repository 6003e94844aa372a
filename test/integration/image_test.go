package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/mammoth-os/mammoth/test/zone"
)

// build makes an image of the example app on top of a layer of random bytes, so that two images share that layer.
func (d *desk) build(tag, binary string, shared []byte) {
	d.Helper()
	dir := d.TempDir()
	program, err := os.ReadFile(binary)
	if err != nil {
		d.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"hello": program, "shared": shared, "tag": []byte(tag),
		"Dockerfile": []byte("FROM scratch\nCOPY shared /shared\nCOPY hello /hello\nCOPY tag /tag\nENTRYPOINT [\"/hello\"]\nEXPOSE 8080\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil {
			d.Fatal(err)
		}
	}
	cmd := exec.Command("docker", "build", "-q", "-t", tag, dir)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		d.Fatalf("docker build: %v: %s", err, out)
	}
	d.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", tag).Run() })
}

func TestASecondImageMovesOnlyWhatIsNew(t *testing.T) {
	// An engine of its own: what the machine's engine has would hide what had to move.
	engine, err := zone.NewEngine(false, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := engine.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := start(t, zone.Options{
		Dir: t.TempDir(), Listen: "127.0.0.1:7070", Enter: engine.Enter,
		Args: []string{"--docker-host", "unix://" + engine.Socket},
	})
	shared := bytes.Repeat([]byte("mammoth "), 4<<20/8)
	for i := range shared {
		shared[i] ^= byte(i * 7 >> 3)
	}
	for _, tag := range []string{"mammoth-test/shared:1", "mammoth-test/shared:2"} {
		d.build(tag, d.Programs.HelloBinary, shared)
		save := exec.Command("docker", "save", tag)
		archive, err := save.Output()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := d.CLIWithInput(d.ctx, bytes.NewReader(archive), "image", "push", "-", tag); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	moved := map[string]int64{}
	for i, tag := range []string{"mammoth-test/shared:1", "mammoth-test/shared:2"} {
		name := fmt.Sprintf("web%d", i+1)
		d.run("deploy", tag, "--name", name, "--cpu", "0.1", "--memory", "64MiB", "--disk", "64MiB", "--port", "8080", "--health", "http:/healthz", "--min-healthy", "0s", "--wait")
		for _, phase := range d.app(name).Instances[0].Phases {
			if phase.Name == "download" {
				moved[name], _ = strconv.ParseInt(phase.Bytes, 10, 64)
			}
		}
	}
	t.Logf("bytes moved: first image %d, second %d", moved["web1"], moved["web2"])
	if moved["web1"] < 8<<20 {
		t.Errorf("the first image moved only %d bytes, though it has more", moved["web1"])
	}
	if moved["web2"] > 64<<10 {
		t.Errorf("the second image moved %d bytes, though only a small layer is new", moved["web2"])
	}
}

func TestDockerPushesAndPulls(t *testing.T) {
	d := start(t, zone.Options{})
	reference := d.Address + "/team/web:1.0"
	d.build(reference, d.Programs.HelloBinary, []byte("pushed"))
	d.docker("push", reference)
	d.run("deploy", "team/web:1.0", "--name", "web", "--cpu", "0.1", "--memory", "64MiB", "--disk", "64MiB", "--port", "8080", "--health", "http:/healthz", "--min-healthy", "0s", "--wait")
	d.docker("rmi", "-f", reference)
	d.docker("pull", reference)
	if listed := d.run("image", "ls"); !strings.Contains(listed, "team/web:1.0") {
		t.Errorf("image ls does not list it: %q", listed)
	}
	d.run("app", "rm", "web", "--wait")
	d.run("image", "rm", "team/web:1.0")
	var left struct{ StoredBytes json.Number }
	if err := json.Unmarshal([]byte(d.run("image", "ls", "-o", "json")), &left); err != nil {
		t.Fatal(err)
	}
	if left.StoredBytes.String() != "0" {
		t.Errorf("after the last image was removed the store still holds %s bytes", left.StoredBytes)
	}
}

func TestHostNetworkGivesTheLeasedPort(t *testing.T) {
	d := start(t, zone.Options{Args: []string{"--allow-host-network"}})
	d.run("deploy", d.Programs.Hello, "--name", "web", "--instances", "3", "--network", "host", "--cpu", "0.1", "--memory", "64MiB", "--disk", "64MiB",
		"--port", "http=0", "--health", "http:/healthz", "--min-healthy", "0s", "--wait")
	seen := map[int]bool{}
	for _, instance := range d.app("web").Instances {
		if body, err := get(fmt.Sprintf("http://127.0.0.1:%d/", instance.Port)); err != nil || !strings.Contains(body, instance.ID) {
			t.Errorf("%s at its leased port: %q, %v", instance.ID, body, err)
		}
		seen[instance.Port] = true
	}
	if len(seen) != 3 {
		t.Errorf("3 instances have ports %v", seen)
	}
}
