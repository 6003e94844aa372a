package world

import (
	"runtime"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/testenv"
)

// short is a run of a few minutes of trouble.
func short(seed uint64, plant Plant) Config {
	return Config{Seed: seed, Trouble: 8 * time.Minute, Plant: plant}
}

// TestWhateverHappensTheLawsHold runs seeds for a minute in CI, and for a few seconds at a desk.
func TestWhateverHappensTheLawsHold(t *testing.T) {
	within := 4 * time.Second
	if testenv.InCI() {
		within = time.Minute
	}
	report := RunMany(Many{First: 1, Seeds: 1 << 20, Config: Config{Trouble: 20 * time.Minute}, Workers: runtime.NumCPU(), Until: time.Now().Add(within)})
	for _, broken := range report.Broken {
		t.Errorf("seed %d broke %q at %s: %s; go run ./test/world/cmd/world -trouble 20m -seed %d", broken.Seed, broken.Broken, broken.At, broken.Sentence, broken.Seed)
	}
	t.Logf("%d seeds, %s simulated", report.Runs, report.Simulated)
}

func TestASeedIsTheSameRunAgain(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		first, second := Run(short(seed, "")), Run(short(seed, ""))
		if first.Sent != second.Sent || first.Steps != second.Steps || first.Messages == 0 {
			t.Errorf("seed %d: %d steps that sent %x, and then %d that sent %x", seed, first.Steps, first.Sent, second.Steps, second.Sent)
		}
	}
}

// TestEveryLawFindsWhatBreaksIt plants faults of the program itself. Each is found by the law that it breaks, and each law finds one.
func TestEveryLawFindsWhatBreaksIt(t *testing.T) {
	const seeds = 60
	finds := map[string]bool{}
	for _, planted := range Planted {
		finds[planted.Law] = true
		t.Run(planted.Law+": "+string(planted.Plant), func(t *testing.T) {
			start := time.Now()
			for seed := uint64(1); seed <= seeds; seed++ {
				config := short(seed, planted.Plant)
				config.Only = planted.Law
				if r := Run(config); r.Broken == planted.Law {
					t.Logf("seed %d, after %s: %s", seed, r.At.Round(time.Millisecond), r.Sentence)
					return
				}
			}
			t.Errorf("%d seeds did not break the law (%s)", seeds, time.Since(start).Round(time.Second))
		})
	}
	for _, law := range Laws {
		if !finds[law.Name] {
			t.Errorf("nothing is planted that breaks the law %q", law.Name)
		}
	}
}

func TestAFailureIsShrunkToWhatItNeeds(t *testing.T) {
	config := short(2, GoneTooEarly)
	failed := Run(config)
	if failed.Broken == "" {
		t.Fatal("the seed breaks no law")
	}
	shrunk, with := Shrink(failed, config, time.Now().Add(time.Minute))
	if shrunk.Broken != failed.Broken || len(with.Actions) >= len(failed.Actions) || len(with.Actions) > 20 {
		t.Errorf("%d actions that broke %q became %d that broke %q", len(failed.Actions), failed.Broken, len(with.Actions), shrunk.Broken)
	}
	if again := Run(with); again.Sentence != shrunk.Sentence || again.Sent != shrunk.Sent {
		t.Errorf("what was shrunk to %q is %q when it is run again", shrunk.Sentence, again.Sentence)
	}
}
