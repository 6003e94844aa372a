package docker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	dockernetwork "github.com/docker/docker/api/types/network"

	"github.com/mammoth-os/mammoth/nodemanager/logs"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

func frame(stream byte, text string) []byte {
	header := []byte{stream, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(header[4:], uint32(len(text)))
	return append(header, text...)
}

// The engine splits what is longer than 16KiB, and the parts of the two streams may lie between each other.
func TestFramesBecomeLines(t *testing.T) {
	const at = "2026-01-02T03:04:05.123456789Z "
	stream := slices.Concat(
		frame(1, at+"one\n"), frame(1, at+"a long "), frame(2, at+"err\n"), frame(1, at+"line\n"), frame(1, at+"\n"), frame(2, at+"no end"))
	var got []string
	err := readFrames(bytes.NewReader(stream), func(line runtime.LogLine) error {
		if line.Time.Nanosecond() != 123456789 {
			t.Errorf("%q at %v", line.Text, line.Time)
		}
		prefix := "o:"
		if line.Stderr {
			prefix = "e:"
		}
		got = append(got, prefix+line.Text)
		return nil
	})
	if want := "o:one|e:err|o:a long line|o:|e:no end"; err != nil || strings.Join(got, "|") != want {
		t.Errorf("%q, %v", got, err)
	}
}

func TestALongLineIsCutBetweenLetters(t *testing.T) {
	text := "x" + strings.Repeat("日", 100_000)
	var stream []byte
	for rest := text; rest != ""; {
		piece := rest[:min(len(rest), 16<<10)]
		rest = rest[len(piece):]
		if rest == "" {
			piece += "\n"
		}
		stream = append(stream, frame(1, "2026-01-02T03:04:05.123456789Z "+piece)...)
	}
	whole := ""
	err := readFrames(bytes.NewReader(stream), func(line runtime.LogLine) error {
		if len(line.Text) > logs.MaxText || !utf8.ValidString(line.Text) {
			t.Errorf("a piece of %d bytes is cut within a letter", len(line.Text))
		}
		whole += line.Text
		return nil
	})
	if err != nil || whole != text {
		t.Errorf("%d bytes came back of %d, %v", len(whole), len(text), err)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(frame(1, "2026-01-02T03:04:05.123456789Z text\n"))
	f.Add([]byte{1, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, stream []byte) {
		_ = readFrames(bytes.NewReader(stream), func(line runtime.LogLine) error {
			if len(line.Text) > len(stream) {
				t.Fatalf("%d bytes out of %d", len(line.Text), len(stream))
			}
			return nil
		})
	})
}

func FuzzPorts(f *testing.F) {
	f.Add("http/8080/0 admin/9090/21000")
	f.Fuzz(func(t *testing.T, text string) {
		ports := parsePorts(text)
		if again := parsePorts(formatPorts(ports)); !slices.Equal(again, ports) {
			t.Fatalf("%q became %+v, then %+v", text, ports, again)
		}
	})
}

func TestProgressTellsWhatCameIn(t *testing.T) {
	stream := `{"status":"Pulling from web","id":"latest"}
{"status":"Downloading","progressDetail":{"current":100,"total":300},"id":"a"}
{"status":"Downloading","progressDetail":{"current":300,"total":300},"id":"a"}
{"status":"Downloading","progressDetail":{"current":50,"total":50},"id":"b"}
{"status":"Extracting","progressDetail":{"current":200,"total":300},"id":"a"}`
	moved := map[string]int64{}
	count := func(phase string, bytes int64) { moved[phase] += bytes }
	if err := readProgress(strings.NewReader(stream), count); err != nil || moved["download"] != 350 || moved["load"] != 200 {
		t.Errorf("%v, %v", moved, err)
	}
	err := readProgress(strings.NewReader(stream+`{"errorDetail":{"message":"bad"},"error":"bad"}`), count)
	if err == nil || err.Error() != "bad" {
		t.Errorf("an error in the stream: %v", err)
	}
}

func TestFailuresOfAPull(t *testing.T) {
	i := &images{engine: &engine{found: &facts{dataRoot: "/"}}}
	for text, class := range map[string]error{
		"write /x/layer.tar: no space left on device":                         errdefs.ErrResourceExhausted,
		"filesystem layer verification failed for digest sha256:1":            errdefs.ErrDataLoss,
		"manifest for 127.0.0.1:1/web@sha256:1 not found: manifest unknown":   errdefs.ErrNotFound,
		"no matching manifest for linux/amd64 in the manifest list entries":   errdefs.ErrInvalidArgument,
		`Get "http://127.0.0.1:1/v2/": dial tcp: connect: connection refused`: errdefs.ErrUnavailable,
		"something else": errdefs.ErrInternal,
	} {
		err := i.pullFailure(context.Background(), "web@sha256:1", errors.New(text))
		if !errors.Is(err, class) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q became %v, want %v", text, err, class)
		}
	}
}

func TestQuotasOutsideOfWhatTheEngineTakes(t *testing.T) {
	e := &facts{cpus: 2}
	if got := resources(e, runtime.Spec{CPUMillis: 500}); got.NanoCPUs != 5e8 || got.CPUQuota != 0 {
		t.Errorf("500m: %+v", got)
	}
	if got := resources(e, runtime.Spec{CPUMillis: 4000}); got.NanoCPUs != 0 || got.CPUQuota != 400_000 || got.CPUPeriod != 100_000 {
		t.Errorf("more cores than there are: %+v", got)
	}
	if got := resources(e, runtime.Spec{CPUMillis: 1}); got.CPUQuota != 1000 || got.CPUShares != 2 {
		t.Errorf("1m: %+v", got)
	}
	if got := resources(e, runtime.Spec{MemoryBytes: 64 << 20}); got.Memory != 64<<20 || got.MemorySwap != 64<<20 {
		t.Errorf("memory: %+v", got)
	}
}

// What the engine says in place of a command is held back until its exit code is known; what a command says is not.
func TestOnlyRefusalsAreHeldBack(t *testing.T) {
	const refused = `OCI runtime exec failed: exec failed: unable to start container process: exec: "/etc": permission denied: unknown`
	for _, c := range []struct {
		writes       []string
		atOnce, held string
	}{
		{[]string{"O", "CI runtime exec failed: "}, "OCI runtime exec failed: ", ""},
		{[]string{"hello ", refused}, "hello " + refused, ""},
		{[]string{refused, "\r\n"}, "", refused + "\r\n"},
		{[]string{refused, strings.Repeat("x", maxRefusal), "y"}, refused + strings.Repeat("x", maxRefusal) + "y", ""},
	} {
		var out strings.Builder
		r := &refusalFilter{out: &out}
		for _, text := range c.writes {
			if n, err := r.Write([]byte(text)); n != len(text) || err != nil {
				t.Fatalf("%q: %d, %v", text, n, err)
			}
		}
		if out.String() != c.atOnce || string(r.held) != c.held {
			t.Errorf("%.40q: at once %.40q, held back %.40q", c.writes, out.String(), r.held)
		}
		if err := r.flush(); err != nil || out.String() != c.atOnce+c.held {
			t.Errorf("%.40q: in the end %.40q, %v", c.writes, out.String(), err)
		}
	}
	if why, ok := notRunnable(refused); !ok || why.Missing || why.Reason != "it may not be executed" {
		t.Errorf("%+v, %v", why, ok)
	}
	// As the engine had said it before 2021.
	if why, ok := notRunnable(`OCI runtime exec failed: exec failed: container_linux.go:380: starting container process caused: exec: "nope": executable file not found in $PATH: unknown`); !ok || !why.Missing {
		t.Errorf("%+v, %v", why, ok)
	}
}

func TestLocalName(t *testing.T) {
	i := &images{zone: "blue"}
	if got := i.localName("team/web@sha256:" + strings.Repeat("0123456789abcdef", 4)); got != "mammoth.local/blue/team/web:0123456789abcdef0123456789abcdef" {
		t.Error(got)
	}
}

func TestTheGatewayOfANewEnginesNetworkIsItsBridges(t *testing.T) {
	bridge := func(has ...net.Addr) func(string) ([]net.Addr, error) {
		return func(name string) ([]net.Addr, error) {
			if name != "docker0" {
				return nil, fmt.Errorf("no interface is named %q", name)
			}
			return has, nil
		}
	}
	network := dockernetwork.Inspect{Name: "bridge", Options: map[string]string{"com.docker.network.bridge.name": "docker0"}}
	network.IPAM.Config = []dockernetwork.IPAMConfig{{Subnet: "172.17.0.0/16"}}
	v4, v6 := &net.IPNet{IP: net.IPv4(172, 17, 0, 1), Mask: net.CIDRMask(16, 32)}, &net.IPNet{IP: net.ParseIP("fe80::1"), Mask: net.CIDRMask(64, 128)}
	if got, err := gatewayOf(network, bridge(v6, v4)); err != nil || got != "172.17.0.1" {
		t.Errorf("not told: %q, %v", got, err)
	}
	if got, err := gatewayOf(network, bridge(v6)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("without an address: %q, %v", got, err)
	}
	network.IPAM.Config[0].Gateway = "172.17.0.254"
	if got, err := gatewayOf(network, bridge(v4)); err != nil || got != "172.17.0.254" {
		t.Errorf("told: %q, %v", got, err)
	}
}

func TestAFailureOfTheWorkingDirNamesItsKey(t *testing.T) {
	var e engine
	for _, c := range []struct{ dir, engine, want string }{
		{"/hello", "Cannot mkdir: /hello is not a directory", `workingDir is "/hello", but it is a file in the image, or below one; name a folder, or a path where nothing is`},
		{"/hello/x", "mkdir /var/lib/docker/overlay2/1/merged/hello: not a directory", `workingDir is "/hello/x", but it is a file in the image, or below one; name a folder, or a path where nothing is`},
		{"", "Cannot mkdir: /hello is not a directory", "the image's WORKDIR is a file in the image, or below one; name a folder, or a path where nothing is"},
		{"/root", `OCI runtime create failed: runc create failed: unable to start container process: chdir to cwd ("/root") set in config.json failed: permission denied: unknown`, `workingDir is "/root", but it may not be entered by the container's user; name a folder that the user may enter`},
	} {
		err := e.startFailure(t.Context(), runtime.Spec{WorkingDir: c.dir, Command: []string{"/program"}}, errors.New("Error response from daemon: "+c.engine))
		if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.HasPrefix(err.Error(), c.want+": ") {
			t.Errorf("%s: %v", c.engine, err)
		}
	}
}
