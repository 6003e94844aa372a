package grid

import (
	"testing"

	"pgregory.net/rapid"
)

func TestLevelsRiseWithTheAmountAndAFitNeverLiesBelowTheAsk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		small := rapid.Int64Range(-10, 1<<42).Draw(t, "small")
		large := rapid.Int64Range(small, 1<<43).Draw(t, "large")
		for _, unit := range []int64{cpuUnit, memoryUnit} {
			if level(small, unit) > level(large, unit) || level(large, unit) >= Levels {
				t.Fatalf("%d is on level %d, %d on level %d", small, level(small, unit), large, level(large, unit))
			}
		}
	})
}
