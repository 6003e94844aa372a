package commands_test

import (
	"errors"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/commands"
)

// turn is a turn of a zone. It keeps what callers are answered.
type turn struct {
	now, wake time.Time
	answers   map[commands.CallID]error
}

func (t *turn) Now() time.Time                    { return t.now }
func (t *turn) WakeBy(instant time.Time)          { t.wake = instant }
func (t *turn) Answer(answered commands.Answered) { t.answers[answered.Call] = answered.Err }

func newTurn() *turn {
	return &turn{now: time.Unix(1_700_000_000, 0), answers: map[commands.CallID]error{}}
}

// web is the master of an app, in its first attempt.
var web = commands.Master{App: id.App{Seq: 1}, Name: "web", Attempt: 1, Live: true}

// give gives web a command for a caller, and returns the id of the command.
func give(t *testing.T, cs *commands.Commands, call commands.CallID) string {
	t.Helper()
	command, err := cs.Give(web, "root", &anypb.Any{}, call)
	if err != nil {
		t.Fatal(err)
	}
	return command.GetId()
}

func TestAnAnswerReachesItsCallerOnce(t *testing.T) {
	cs := commands.New(newTurn())
	first, second := give(t, cs, 1), give(t, cs, 2)
	if call, ok := cs.Close(web.App, second); !ok || call != 2 {
		t.Errorf("the second command is closed for %d, %v", call, ok)
	}
	if _, ok := cs.Close(web.App, second); ok {
		t.Error("it is closed twice")
	}
	if _, ok := cs.Close(id.App{Seq: 2}, first); ok {
		t.Error("the master of another app closes a command")
	}
	// A new stream of the master repeats what was not answered.
	if open := cs.Unanswered(web.App); len(open) != 1 || open[0].GetId() != first {
		t.Errorf("%v wait for an answer, want %s", open, first)
	}
}

func TestNobodyWaitsForAnAnswerThatDoesNotCome(t *testing.T) {
	cases := map[string]struct {
		after func(now *turn, cs *commands.Commands)
		want  error
	}{
		"the master takes too long": {func(now *turn, cs *commands.Commands) {
			now.now = now.wake
			cs.Due(web)
		}, errdefs.ErrAborted},
		"another attempt has begun": {func(_ *turn, cs *commands.Commands) {
			next := web
			next.Attempt++
			cs.Due(next)
		}, errdefs.ErrAborted},
		"the attempt is over": {func(_ *turn, cs *commands.Commands) {
			ended := web
			ended.Live = false
			cs.Due(ended)
		}, errdefs.ErrAborted},
		"the app is removed": {func(_ *turn, cs *commands.Commands) { cs.Gone(web.App, "web") }, errdefs.ErrNotFound},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			now := newTurn()
			cs := commands.New(now)
			command := give(t, cs, 1)
			now.now = now.wake.Add(-time.Millisecond)
			if cs.Due(web); len(now.answers) != 0 {
				t.Fatalf("the caller is answered early: %v", now.answers)
			}
			c.after(now, cs)
			if err := now.answers[1]; !errors.Is(err, c.want) {
				t.Errorf("the caller is answered %v, want %v", err, c.want)
			}
			if _, ok := cs.Close(web.App, command); ok {
				t.Error("a late answer has somebody to go to")
			}
		})
	}
}

func TestOnlyALiveMasterWithRoomIsGivenACommand(t *testing.T) {
	cs := commands.New(newTurn())
	gone := web
	gone.Live = false
	if _, err := cs.Give(gone, "root", &anypb.Any{}, 1); !errors.Is(err, errdefs.ErrAborted) {
		t.Errorf("a command for an ended attempt: %v", err)
	}
	ids := map[string]bool{}
	for call := range commands.CallID(100) {
		ids[give(t, cs, call)] = true
	}
	if len(ids) != 100 {
		t.Errorf("100 commands have %d ids", len(ids))
	}
	if _, err := cs.Give(web, "root", &anypb.Any{}, 100); !errors.Is(err, errdefs.ErrResourceExhausted) {
		t.Errorf("one command too many: %v", err)
	}
}
