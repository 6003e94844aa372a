package appmaster

import (
	"fmt"
	"slices"
	"testing"

	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func TestAsksMadeTogetherGoOutInTheOrderInWhichTheyWereMade(t *testing.T) {
	o := newOutbox()
	var made []string
	for number := 1; number <= 12; number++ {
		made = append(made, fmt.Sprintf("web-%d/1", number))
		o.SetAsk(&masterv1.Ask{Id: made[number-1], Count: 1})
	}
	for _, when := range []string{"at first", "on the next stream"} {
		var sent []string
		for _, ask := range o.next().GetAsks() {
			sent = append(sent, ask.GetId())
		}
		if !slices.Equal(sent, made) {
			t.Errorf("%s they went out as %v", when, sent)
		}
		o.reset()
	}
}

// What is too much for one request goes out in several: everything once, and what sums it up with the last of them.
func TestALargeChangeGoesOutInSeveralRequests(t *testing.T) {
	o := newOutbox()
	for number := range 1200 {
		o.SetAsk(&masterv1.Ask{Id: fmt.Sprintf("ask-%d", number), Count: 1})
		o.ReportInstance(&masterv1.InstanceReport{Id: fmt.Sprintf("web-%d", number)})
		o.Release(fmt.Sprintf("container-%d", number))
		o.ForgetInstance(fmt.Sprintf("old-%d", number))
	}
	o.ReportRollout(&masterv1.RolloutReport{Version: 2})
	o.ReportGeneration(3)
	said := map[string]int{}
	for request := o.next(); request != nil; request = o.next() {
		ids := slices.Concat(request.GetRelease(), request.GetGoneInstances())
		for _, ask := range request.GetAsks() {
			ids = append(ids, ask.GetId())
		}
		for _, report := range request.GetInstances() {
			ids = append(ids, report.GetId())
		}
		if len(ids) > maxItems {
			t.Errorf("a request has %d items", len(ids))
		}
		for _, id := range ids {
			said[id]++
		}
		if sums := request.GetRollout() != nil; sums != (len(said) == 4800) || sums != (request.GetObservedGeneration() == 3) {
			t.Errorf("after %d items: %v, generation %d", len(said), request.GetRollout(), request.GetObservedGeneration())
		}
	}
	for id, times := range said {
		if times != 1 {
			t.Errorf("%s was said %d times", id, times)
		}
	}
}
