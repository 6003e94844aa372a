package world

import (
	"runtime"
	"slices"
	"strings"
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
	config := Config{Trouble: 20 * time.Minute}
	report := RunMany(Many{First: 1, Seeds: 1 << 20, Config: config, Workers: runtime.NumCPU(), Until: time.Now().Add(within), Shrink: 2 * time.Minute})
	if len(report.Broken) > 0 {
		var text strings.Builder
		report.Write(&text, config)
		t.Error(text.String())
	}
	t.Logf("%d seeds, %s simulated", report.Runs, report.Simulated)
}

// TestAFailingSeedSaysHowItIsRepeated plants a fault, and follows what is printed of it.
func TestAFailingSeedSaysHowItIsRepeated(t *testing.T) {
	config := short(0, GoneTooEarly)
	report := RunMany(Many{First: 2, Seeds: 1, Config: config, Workers: 1, Shrink: time.Minute})
	if len(report.Broken) != 1 || len(report.Failures) != 1 {
		t.Fatalf("%d seeds broke a law, and %d were run again", len(report.Broken), len(report.Failures))
	}
	var text strings.Builder
	report.Write(&text, config)
	f := report.Failures[0]
	for _, want := range []string{
		"seed 2 broke \"gone\"",
		"run it again: go run ./test/world/cmd/world -seed 2 -hours 1 -trouble 8m0s -plant 'a node reports a container gone too early'\n",
		"it broke the law again",
		"-actions '" + FormatActions(f.Config.Actions) + "'",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("what is printed has no %q: %s", want, text.String())
		}
	}
	if !f.Repeats || f.Shrunk.Broken != "gone" || len(f.Config.Actions) >= len(f.First.Actions) {
		t.Errorf("%+v", f)
	}
	actions, err := ParseActions(FormatActions(f.Config.Actions))
	if err != nil {
		t.Fatal(err)
	}
	with := short(2, GoneTooEarly)
	with.Cycles, with.Actions = f.Config.Cycles, actions
	if again := Run(with); again.Sentence != f.Shrunk.Sentence {
		t.Errorf("what is printed broke %q, want %q", again.Sentence, f.Shrunk.Sentence)
	}
	// What is not made from its seed is said to be none of its kind.
	broken := f.First
	broken.Sent++
	if f := Look(broken, short(2, GoneTooEarly), time.Now()); f.Repeats {
		t.Error("what sent something else is taken for the same run")
	}
	for _, bad := range []string{"10s deploy", "soon deploy 1", "10s explode 1", "10s deploy -1", ""} {
		if actions, err := ParseActions(bad); err == nil {
			t.Errorf("%q is read as %v", bad, actions)
		}
	}
}

func TestASeedIsTheSameRunAgain(t *testing.T) {
	for seed := uint64(1); seed <= 2; seed++ {
		first, second := Run(short(seed, "")), Run(short(seed, ""))
		if first.Broken != "" || first.Sent != second.Sent || first.Steps != second.Steps || first.Messages == 0 {
			t.Errorf("seed %d: %d steps that sent %x, and then %d that sent %x", seed, first.Steps, first.Sent, second.Steps, second.Sent)
		}
	}
}

// planted are faults of the program itself, the laws that have to find them, and what is to happen for that.
var planted = []struct {
	plant Plant
	law   string
	kinds []string
}{
	{StoreDamages, "start", []string{"deploy", "kill-resourcemanager"}},
	{StoreForgets, "fault", []string{"deploy", "kill-resourcemanager"}},
	{TellsBeforeItStores, "stored", []string{"deploy"}},
	{EpochStands, "lease", []string{"deploy", "crash-instance", "kill-resourcemanager"}},
	{StartsTwice, "once", []string{"deploy"}},
	{StartsAgain, "once", []string{"deploy", "crash-instance"}},
	{NodeOverstates, "capacity", []string{"deploy", "scale"}},
	{GoneTooEarly, "gone", []string{"deploy", "scale"}},
	{ReapsAll, "kept", []string{"deploy", "kill-nodemanager"}},
	{RegistryKeeps, "endpoint", []string{"deploy", "scale", "crash-instance"}},
	{BalancerLies, "drain", []string{"deploy", "scale"}},
	{RegistryBlinks, "serves", slices.Concat([]string{"deploy", "deploy", "deploy"}, slices.Repeat([]string{"scale"}, 40))},
	{OldMasterActs, "attempt", []string{"deploy", "kill-master"}},
	{MasterChats, "calm", []string{"deploy"}},
	{DeploysTwice, "twice", []string{"deploy"}},
	{LateStops, "notice", []string{"deploy", "scale", "lend-now", "lend"}},
	{LateStops, "hand-back", []string{"deploy", "scale", "lend"}},
	{StoreLies, "acknowledged", []string{"deploy", "kill-resourcemanager"}},
	{NodeIsDeaf, "rest", []string{"deploy", "remove"}},
}

// often has the kinds take turns every few seconds.
func often(seed uint64, kinds []string) []Action {
	var all []Action
	for i := range 75 {
		all = append(all, Action{time.Duration(10+6*i) * time.Second, kinds[i%len(kinds)], seed<<8 + uint64(i)})
	}
	return all
}

// TestEveryLawFindsWhatBreaksIt plants faults of the program itself. Each is found by the law that it breaks, and each law finds one.
func TestEveryLawFindsWhatBreaksIt(t *testing.T) {
	const seeds = 20
	finds := map[string]bool{}
	for _, p := range planted {
		finds[p.law] = true
		t.Run(p.law+": "+string(p.plant), func(t *testing.T) {
			for seed := uint64(1); seed <= seeds; seed++ {
				r := Run(Config{Seed: seed, Trouble: 8 * time.Minute, Actions: often(seed, p.kinds), Plant: p.plant, Only: p.law})
				if r.Broken == p.law {
					t.Logf("seed %d, after %s: %s", seed, r.At.Round(time.Millisecond), r.Sentence)
					return
				}
			}
			t.Errorf("%d seeds did not break the law", seeds)
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
