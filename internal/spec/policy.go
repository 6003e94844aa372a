package spec

import (
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/signal"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Strategy is the strategy of a rollout: that of an update policy, or that of a single rollout.
type Strategy interface {
	GetStrategy() apiv1.UpdatePolicy_Strategy
	GetCanaryPercent() int32
	GetExclusive() bool
}

func (c *checker) checkStrategy(strategy Strategy) {
	switch {
	case apiv1.UpdatePolicy_Strategy_name[int32(strategy.GetStrategy())] == "":
		c.fail("update.strategy", "strategy must be rolling, canary or blue-green")
	case strategy.GetCanaryPercent() < 0 || strategy.GetCanaryPercent() > 100:
		c.fail("update.canaryPercent", "canaryPercent must be between 1 and 100, but is %d", strategy.GetCanaryPercent())
	case strategy.GetStrategy() != apiv1.UpdatePolicy_CANARY && strategy.GetCanaryPercent() != 0:
		c.fail("update.canaryPercent", "canaryPercent belongs to the strategy canary")
	case strategy.GetStrategy() != apiv1.UpdatePolicy_BLUE_GREEN && strategy.GetExclusive():
		c.fail("update.exclusive", "exclusive belongs to the strategy blue-green")
	}
}

func (c *checker) checkUpdate(update *apiv1.UpdatePolicy) {
	c.checkStrategy(update)
	if once := update.GetOnce(); once != nil {
		c.checkStrategy(once)
	}
	// Written so that NaN is refused too.
	if percent := update.GetMaxErrorPercent(); !(percent >= 0 && percent <= 100) {
		c.fail("update.maxErrorPercent", "maxErrorPercent must be between 0 and 100, but is %g", percent)
	}
	for _, count := range []struct {
		key string
		n   int32
	}{{"maxSurge", update.GetMaxSurge()}, {"maxUnavailable", update.GetMaxUnavailable()}} {
		if count.n < 0 || count.n > MaxInstances {
			c.fail("update."+count.key, "%s must be between 0 and %d, but is %d", count.key, MaxInstances, count.n)
		}
	}
	c.duration("update.deadline", update.GetDeadline(), time.Second, MaxDeadline)
	c.duration("update.minHealthy", update.GetMinHealthy(), 0, MaxDeadline)
	if minHealthy, deadline := update.GetMinHealthy().AsDuration(), update.GetDeadline().AsDuration(); minHealthy > 0 && minHealthy >= deadline {
		c.fail("update.minHealthy", "minHealthy (%s) must be less than deadline (%s), or every rollout would fail", short(minHealthy), short(deadline))
	}
}

func (c *checker) checkRestart(restart *apiv1.RestartPolicy) {
	if failures := restart.GetMaxFailures(); failures < 1 || failures > 1_000_000 {
		c.fail("restart.maxFailures", "maxFailures must be between 1 and 1000000, but is %d", failures)
	}
	c.duration("restart.window", restart.GetWindow(), time.Millisecond, MaxWindow)
	c.duration("restart.backoff", restart.GetBackoff(), time.Millisecond, MaxBackoff)
	c.duration("restart.maxBackoff", restart.GetMaxBackoff(), time.Millisecond, MaxBackoff)
	if first, longest := restart.GetBackoff().AsDuration(), restart.GetMaxBackoff().AsDuration(); longest < first {
		c.fail("restart.maxBackoff", "maxBackoff (%s) is shorter than backoff (%s), the first wait", short(longest), short(first))
	}
}

func (c *checker) checkStop(stop *apiv1.StopPolicy) {
	if text := stop.GetSignal(); text != "" && c.plain("stop.signal", "signal", text, maxSignal) {
		if _, err := signal.Number(text); err != nil {
			c.fail("stop.signal", "%v", err)
		}
	}
	c.duration("stop.grace", stop.GetGrace(), 0, MaxGrace)
	c.duration("stop.drain", stop.GetDrain(), 0, MaxDrain)
}

func (c *checker) duration(key string, value *durationpb.Duration, least, most time.Duration) {
	switch length := value.AsDuration(); {
	case value == nil || value.CheckValid() != nil:
		c.fail(key, "%s must be a duration as in 500ms, 10s or 5m", key)
	case length < least || length > most:
		c.fail(key, "%s must be between %s and %s, but is %s", key, short(least), short(most), written(value))
	}
}

// written is a duration as people write it, also one that is longer than a time.Duration can be.
func written(value *durationpb.Duration) string {
	length := value.AsDuration()
	if length.Truncate(time.Second) == time.Duration(value.GetSeconds())*time.Second && length != math.MaxInt64 && length != math.MinInt64 {
		return short(length)
	}
	return fmt.Sprintf("%dh", value.GetSeconds()/3600)
}

// short writes a duration as people do: 24h, not 24h0m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
