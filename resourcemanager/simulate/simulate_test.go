package simulate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/resourcemanager/simulate"
)

func run(t *testing.T, name string) simulate.Report {
	t.Helper()
	s, err := simulate.Load(filepath.Join("..", "..", "examples", "scenarios", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s.Compaction = nil
	r, err := simulate.Run(context.Background(), s, simulate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + table.String())
	return r
}

func TestWhatIsLentAtNightIsBackInTheMorning(t *testing.T) {
	r := run(t, "night-lending")
	for _, c := range r.Contracts {
		if len(c.HandBacks) == 0 || c.UsedCoreSeconds == 0 {
			t.Errorf("contract %s lent nothing or handed nothing back: %+v", c.Name, c)
		}
		for _, h := range c.HandBacks {
			if !h.InTime {
				t.Errorf("promised for %s, back at %s", h.Promised, h.Done)
			}
		}
		if c.LostShare >= 0.05 {
			t.Errorf("%.1f %% of the lent work was thrown away", 100*c.LostShare)
		}
	}
}

func TestASurgeAtNightIsServedAfterTheNotice(t *testing.T) {
	r := run(t, "surge-at-3am")
	if web := r.Workloads[0]; web.WaitMax > 120+5+3 {
		t.Errorf("an instance waited for %.0fs; the notice is two minutes, the stop five seconds", web.WaitMax)
	}
}

func TestServicesComeBackAfterTheLossOfARack(t *testing.T) {
	r := run(t, "rack-failure")
	if r.NodeFailures < 20 || r.LostToNodes == 0 {
		t.Errorf("%d nodes failed with %d containers", r.NodeFailures, r.LostToNodes)
	}
	if web := r.Workloads[0]; web.WaitMax > 10+5+3 {
		t.Errorf("an instance waited for %.0fs; batch gets ten seconds of notice and five to stop", web.WaitMax)
	}
}

func TestGangsAreServedBesideSingles(t *testing.T) {
	r := run(t, "gang-contention")
	if gangs := r.Workloads[0]; gangs.Started == 0 {
		t.Error("no gang ever started")
	}
}

func TestTheSameSeedGivesTheSameReport(t *testing.T) {
	one, err := json.Marshal(run(t, "gang-contention"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := json.Marshal(run(t, "gang-contention"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("two runs of one seed differ")
	}
}

const small = `
name: small
duration: 1h
nodes: [{name: n, count: 4, cpu: 4, memory: 8GiB}]
queues: [{name: root}, {name: a, parent: root, guaranteed: 60%}, {name: b, parent: root, guaranteed: 40%}]
workloads:
  - {name: web, kind: service, queue: a, instances: 4, cpu: 1, memory: 1GiB}
  - {name: jobs, kind: arrivals, queue: b, perHour: 60, cpu: 1, memory: 1GiB}
compaction: {seeds: 2, parts: [[a], [b]]}
`

func TestCompactionAndThePage(t *testing.T) {
	s, err := simulate.Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	r, err := simulate.Run(context.Background(), s, simulate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := r.Compaction
	if c == nil || c.Shared.P90 == 0 || len(c.Parts) != 2 || c.SplitP90 < c.Shared.P90 {
		t.Fatalf("%+v", c)
	}
	var html bytes.Buffer
	if err := r.WriteHTML(&html); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<svg", "Use of the zone, by queue", "Waiting time of jobs", "only b", "M0.0 ", ">12:00<"} {
		if !strings.Contains(html.String(), want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(html.String(), "<script") || strings.Contains(html.String(), "src=") {
		t.Error("the page needs more than itself")
	}
}

func TestACancelledRunEnds(t *testing.T) {
	s, err := simulate.Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := simulate.Run(ctx, s, simulate.Options{}); err == nil {
		t.Error("it went on")
	}
}

// The transcript reads as what a person writes and what is answered: each mistake in one sentence with its line.
func TestBadScenariosAreRefused(t *testing.T) {
	datadriven.RunTest(t, "testdata/refused", func(t *testing.T, d *datadriven.TestData) string {
		_, err := simulate.Parse([]byte(d.Input))
		var mistakes manifest.Errors
		if !errors.As(err, &mistakes) {
			t.Fatalf("%s: %v, want mistakes with lines", d.Pos, err)
		}
		return err.Error() + "\n"
	})
}

func TestATraceIsRead(t *testing.T) {
	text := "second,job,instances,seconds,cpu,memory\n0,one,2,10,0.5,512MiB\n0,one,1,20,1,1GiB\n5.5,two,1,1,1,1GiB\n"
	jobs, err := simulate.ReadTrace(strings.NewReader(text))
	if err != nil || len(jobs) != 2 {
		t.Errorf("%v, %v", jobs, err)
	}
	for bad, hint := range map[string]string{
		"0,one,2,10,0.5,512MiB\n": "line 1",
		"second,job,instances,seconds,cpu,memory\n0,one,x,10,0.5,512MiB\n": "line 2",
		"second,job,instances,seconds,cpu,memory\n0,one,0,10,0.5,512MiB\n": "above zero",
		"second,job\n": "wrong number of fields",
	} {
		if _, err := simulate.ReadTrace(strings.NewReader(bad)); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v, want a hint with %q", bad, err, hint)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	f.Fuzz(func(_ *testing.T, text []byte) {
		_, _ = simulate.Parse(text)
	})
}
