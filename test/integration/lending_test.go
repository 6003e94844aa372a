package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/test/zone"
)

const lendingQueues = `queues:
  - {name: apps, guaranteed: 70%}
  - {name: batch, guaranteed: 30%, notice: 4s}
`

const lendingContract = `lending:
  - name: nightly
    lender: apps
    borrowers: [batch]
    window: {cron: "0 3 29 2 *", duration: 9h, timezone: Asia/Shanghai}
    lend: 60%
    floor: 25%
    notice: 4s
    grace: 12s
`

// event is what matters here of an event's JSON.
type event struct {
	Time                           time.Time
	Kind, Container, From, To, App string
	Message                        string
}

func (d *desk) events(args ...string) []event {
	d.Helper()
	var events []event
	lines := bufio.NewScanner(strings.NewReader(d.run(append([]string{"events", "-o", "json"}, args...)...)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one event
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			d.Fatalf("an event is %q: %v", lines.Text(), err)
		}
		events = append(events, one)
	}
	return events
}

func (d *desk) set(command, text string) {
	d.Helper()
	path := filepath.Join(d.TempDir(), "file.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.Fatal(err)
	}
	d.run(append(strings.Fields(command), "-f", path)...)
}

// count gives how many instances of an app run, without a judgement.
func (d *desk) count(name string) int {
	d.Helper()
	running := 0
	for _, instance := range d.app(name).Instances {
		if instance.State == "RUNNING" {
			running++
		}
	}
	return running
}

// Batch holds far more than the 30 % that it is guaranteed when a service asks for its own.
func TestBorrowedCapacityIsHandedBack(t *testing.T) {
	d := start(t, zone.Options{Nodes: 2})
	d.set("queue set", lendingQueues)
	hello := func(name, queue string, instances int, more ...string) {
		t.Helper()
		args := append([]string{
			"deploy", d.Programs.Hello, "--name", name, "--queue", queue, "--instances", fmt.Sprint(instances), "--cpu", "0.9",
			"--memory", "64MiB", "--disk", "64MiB", "--port", "8080", "--health", "http:/healthz", "--min-healthy", "0s",
		}, more...)
		d.run(args...)
	}
	// Two nodes of four cores, with room for an application master each: eight instances are all there is room for.
	hello("crunch", "batch", 8, "--wait")

	asked := time.Now()
	hello("web", "apps", 5, "--wait") // 4.6 of the 5.6 cores that apps are guaranteed
	t.Logf("a queue that was guaranteed 70 %% and held nothing had five instances healthy after %s: notice 4s and the stop", time.Since(asked).Round(10*time.Millisecond))
	d.running("web", 5)
	d.eventually("batch has what is left, which is no less than its guarantee", func() (bool, string) {
		app := d.app("crunch")
		return d.count("crunch") == 3, fmt.Sprintf("%+v", app)
	})
	told, stopped, preempted := map[string]time.Time{}, map[string]time.Time{}, 0
	for _, e := range d.events("--app", "crunch") {
		switch {
		case strings.Contains(e.Message, "is to be gone by"):
			told[e.Container] = e.Time
		case strings.Contains(e.Message, "is to be stopped"):
			stopped[e.Container] = e.Time
		case e.To == "DONE" && strings.Contains(e.Message, "preempted"):
			preempted++
		}
	}
	if len(told) < 5 || preempted > 5 {
		t.Errorf("%d instances of batch heard that they are to go and %d were preempted; five had to make room", len(told), preempted)
	}
	for name, at := range told {
		if end, ok := stopped[name]; ok && end.Sub(at) > 60*time.Second {
			t.Errorf("%s was told to go %s before it was stopped", name, end.Sub(at))
		}
	}
	if out := d.run("app", "explain", "crunch"); !strings.Contains(out, "cpu") {
		t.Errorf("explain of what waits says %q", out)
	}
	d.run("app", "rm", "web", "--wait")
	d.running("crunch", 8)
	d.run("app", "rm", "crunch", "--wait")
}

func TestAContractLendsAndStops(t *testing.T) {
	d := start(t, zone.Options{Nodes: 2})
	d.set("queue set", lendingQueues)
	d.set("lend add", lendingContract)
	d.run("lend", "now", "nightly", "--for", "30m")
	d.run("deploy", d.Programs.Hello, "--name", "crunch", "--queue", "batch", "--instances", "8", "--cpu", "0.9",
		"--memory", "64MiB", "--disk", "64MiB", "--port", "8080", "--health", "http:/healthz", "--min-healthy", "0s")
	// The lender's floor of 25 % stays free.
	d.eventually("batch has borrowed all but the floor", func() (bool, string) {
		n := d.count("crunch")
		return n == 7, fmt.Sprint(n)
	})
	if out := d.run("lend", "ls"); !strings.Contains(out, "lending") {
		t.Errorf("lend ls says %q", out)
	}

	d.run("lend", "stop", "nightly")
	type report struct {
		Contracts []struct {
			State           string
			HandBacks       int
			HandBacksKept   int
			SlowestHandBack string
			Ledger          struct {
				LentCoreSeconds, UsedCoreSeconds, LostCoreSeconds float64
				StoppedContainers                                 string
			}
		}
	}
	var r report
	d.eventually("all that was lent is back", func() (bool, string) {
		out := d.run("lend", "report", "-o", "json")
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			d.Fatal(err)
		}
		return len(r.Contracts) == 1 && r.Contracts[0].HandBacks == 1, out
	})
	k := r.Contracts[0]
	t.Logf("hand-back against promise: %s; %d of %d in time, %s containers stopped, %.0f core-seconds used, %.0f lost",
		k.SlowestHandBack, k.HandBacksKept, k.HandBacks, k.Ledger.StoppedContainers, k.Ledger.UsedCoreSeconds, k.Ledger.LostCoreSeconds)
	told := 0
	for _, e := range d.events("--app", "crunch") {
		if strings.Contains(e.Message, "is to be gone by") && strings.Contains(e.Message, "nightly") {
			told++
		}
	}
	if told == 0 {
		t.Error("nobody was told that the window closes")
	}
	// An app that gives its containers up when it hears the notice has none stopped.
	if k.SlowestHandBack == "" || k.Ledger.UsedCoreSeconds <= 0 || k.Ledger.LentCoreSeconds < k.Ledger.UsedCoreSeconds {
		t.Errorf("the report says %+v", k)
	}
	var said []string
	for _, e := range d.events("--kind", "lending") {
		said = append(said, e.Message)
	}
	for _, words := range []string{"lends of apps's guarantee", "fetched back"} {
		if !strings.Contains(strings.Join(said, "\n"), words) {
			t.Errorf("no event of lending says %q: %q", words, said)
		}
	}
	d.run("deploy", d.Programs.Hello, "--name", "web", "--queue", "apps", "--instances", "5", "--cpu", "0.9",
		"--memory", "64MiB", "--disk", "64MiB", "--port", "8080", "--health", "http:/healthz", "--min-healthy", "0s", "--wait")
	d.running("web", 5)
	d.run("app", "rm", "crunch", "--wait")
	d.run("app", "rm", "web", "--wait")
	d.run("lend", "rm", "nightly")
}
