package plan

import "testing"

func TestTheTableIsComplete(t *testing.T) {
	for g := range goals {
		for p := range phases {
			if nextSteps[g][p] == undecided {
				t.Errorf("no step for goal %d in phase %d", g, p)
			}
		}
	}
}

func TestOnlyADrainedOrUnstartedContainerIsReleased(t *testing.T) {
	for g := range goals {
		for p := range phases {
			if nextSteps[g][p] == release && p != drained && p != granted {
				t.Errorf("goal %d releases in phase %d", g, p)
			}
			if nextSteps[g][p] == forget && p != empty {
				t.Errorf("goal %d closes a slot in phase %d", g, p)
			}
			if (nextSteps[g][p] == ask) != (g == serve && (p == empty || p == lost)) {
				t.Errorf("goal %d asks in phase %d", g, p)
			}
		}
	}
}

func TestBackoffIsZeroFirstAndThenGrows(t *testing.T) {
	policy := Restart{MaxFailures: 5, Backoff: 1e9, MaxBackoff: 60e9}
	want := []int{0, 0, 1, 2, 4, 8, 60, 60}
	for failures, seconds := range want {
		if got := policy.backoffAfter(failures); int(got.Seconds()) != seconds {
			t.Errorf("after %d failures the wait is %v, want %ds", failures, got, seconds)
		}
	}
}
