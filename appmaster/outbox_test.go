package appmaster

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
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

// A large change is sent in several requests: everything once, and the status and generation with the last one.
func TestALargeChangeGoesOutInSeveralRequests(t *testing.T) {
	o := newOutbox()
	for number := range 1200 {
		o.SetAsk(&masterv1.Ask{Id: fmt.Sprintf("ask-%d", number), Count: 1})
		o.ReportInstance(&masterv1.InstanceReport{Id: fmt.Sprintf("web-%d", number)})
		o.Release(fmt.Sprintf("container-%d", number), "enough")
		o.ForgetInstance(fmt.Sprintf("old-%d", number))
		o.Checkpoint(fmt.Sprintf("saved-%d", number))
	}
	o.ReportStatus(&apiv1.MasterStatus{Version: 2})
	o.ReportGeneration(3)
	said := map[string]int{}
	for request := o.next(); request != nil; request = o.next() {
		ids := append(slices.Clone(request.GetGoneInstances()), request.GetCheckpoints()...)
		for _, release := range request.GetRelease() {
			ids = append(ids, release.GetContainerId())
		}
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
		if sums := request.GetStatus() != nil; sums != (len(said) == 6000) || sums != (request.GetObservedGeneration() == 3) {
			t.Errorf("after %d items: %v, generation %d", len(said), request.GetStatus(), request.GetObservedGeneration())
		}
	}
	for id, times := range said {
		if times != 1 {
			t.Errorf("%s was said %d times", id, times)
		}
	}
}

// A checkpoint, note, revision or answer is sent on every stream until it is acknowledged, and not after that.
func TestWhatIsSaidOnceIsKeptUntilItIsAcknowledged(t *testing.T) {
	o := newOutbox()
	o.NoteVersion(&masterv1.VersionNote{Version: 1})
	o.NoteVersion(&masterv1.VersionNote{Version: 2, Failure: "it crashed"})
	o.NoteVersion(&masterv1.VersionNote{Version: 1, CameUp: true})
	o.Revise(&masterv1.Revise{Version: 2, ToVersion: 1})
	o.WantTraffic(true)
	o.Answer(&masterv1.CommandAnswer{Id: "b"})
	o.Answer(&masterv1.CommandAnswer{Id: "a"})
	o.Checkpoint("container")
	want := "checkpoints [container]; traffic true; notes 1 true, 2 false; revise 2; answers b a"
	said := func(request *masterv1.AllocateRequest) string {
		notes, answers := request.GetNotes(), request.GetAnswers()
		if len(notes) != 2 || len(answers) != 2 {
			return request.String()
		}
		return fmt.Sprintf("checkpoints %s; traffic %v; notes %d %v, %d %v; revise %d; answers %s %s", request.GetCheckpoints(), request.GetTraffic(), notes[0].GetVersion(), notes[0].GetCameUp(), notes[1].GetVersion(),
			notes[1].GetCameUp(), request.GetRevise().GetVersion(), answers[0].GetId(), answers[1].GetId())
	}
	for _, when := range []string{"at first", "on the next stream"} {
		if got := said(o.next()); got != want {
			t.Errorf("%s %s", when, got)
		}
		if again := o.next(); again != nil {
			t.Errorf("%s it is sent twice: %v", when, again)
		}
		o.reset()
	}
	sent := o.next()
	o.acknowledge(sent.GetSequence())
	o.reset()
	if request := o.next(); len(request.GetNotes())+len(request.GetAnswers())+len(request.GetCheckpoints()) > 0 || request.GetRevise() != nil {
		t.Errorf("what was acknowledged is sent again: %v", request)
	}
}

func TestARequestHasABound(t *testing.T) {
	o := newOutbox()
	for i := range 40 {
		o.Answer(&masterv1.CommandAnswer{Id: fmt.Sprint(i), Refusal: strings.Repeat("x", 20<<10)})
	}
	o.Answer(&masterv1.CommandAnswer{Id: "large", Refusal: strings.Repeat("x", maxBytes+1)})
	sent := 0
	for request := o.next(); request != nil; request = o.next() {
		if size := proto.Size(request); size > maxBytes+2<<10 {
			t.Errorf("a request has %d bytes with %d answers", size, len(request.GetAnswers()))
		}
		sent += len(request.GetAnswers())
	}
	if sent != 41 {
		t.Errorf("%d of 41 answers are sent", sent)
	}
}
