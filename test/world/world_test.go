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

func TestEveryPlantedFaultIsFound(t *testing.T) {
	const seeds = 40
	for _, plant := range Plants() {
		t.Run(string(plant), func(t *testing.T) {
			start := time.Now()
			for seed := uint64(1); seed <= seeds; seed++ {
				if r := Run(short(seed, plant)); r.Broken != "" {
					t.Logf("seed %d, %s: %q is broken at %s: %s", seed, time.Since(start).Round(time.Millisecond), r.Broken, r.At.Round(time.Millisecond), r.Sentence)
					return
				}
			}
			t.Errorf("no law was broken by %d seeds (%s)", seeds, time.Since(start))
		})
	}
}
