// Package commands keeps what people want of application masters until it is answered. The zone does not read a command: it hands it over
// to the attempt that runs when the command is given, and returns the answer. Open commands are not stored: if the ResourceManager ends,
// whoever waits for the answer sees that.
package commands

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

const (
	// timeout is how long a command waits for its answer.
	timeout = 10 * time.Second
	// most is how many commands of an app may wait at a time.
	most = 100
)

// CallID names somebody who waits for the answer to a command, as the shell knows him.
type CallID int64

// Answered is the answer to a command, for whoever gave it.
type Answered struct {
	Call     CallID
	Response *apiv1.CommandAppResponse
	Err      error
}

// Turn is the present turn of the zone. None of its methods fails.
type Turn interface {
	Now() time.Time
	// WakeBy has all deadlines looked at by an instant, though nothing may have happened until then.
	WakeBy(instant time.Time)
	// Answer has somebody answered once the turn is stored.
	Answer(answered Answered)
}

// Master is the application master of an app at present.
type Master struct {
	App     id.App
	Name    string
	Attempt int32
	// Live: the attempt is not over.
	Live bool
}

// Commands are those that were not answered yet.
type Commands struct {
	turn Turn
	// open are the open commands of each app, in their order.
	open map[id.App][]command
	// last is the number of the newest command.
	last int64
}

// command is one that was not answered yet.
type command struct {
	call     CallID
	message  *masterv1.Command
	attempt  int32
	deadline time.Time
}

// New makes the commands of a zone in which nobody waits for an answer.
func New(turn Turn) *Commands { return &Commands{turn: turn, open: map[id.App][]command{}} }

// Give opens a command, and returns it as its master is sent it. It fails with errdefs.ErrAborted if there is no master at present, and with
// errdefs.ErrResourceExhausted if too many commands wait for it.
func (cs *Commands) Give(master Master, by string, content *anypb.Any, call CallID) (*masterv1.Command, error) {
	switch {
	case !master.Live:
		return nil, fmt.Errorf("%s has no application master at present, which would carry out the command; \"mammoth app explain %s\" says why: %w", master.Name, master.Name, errdefs.ErrAborted)
	case len(cs.open[master.App]) >= most:
		return nil, fmt.Errorf("%d commands wait for the application master of %s; try again later: %w", most, master.Name, errdefs.ErrResourceExhausted)
	}
	cs.last++
	now := cs.turn.Now()
	message := &masterv1.Command{
		// The time makes it unique over restarts of the ResourceManager.
		Id: strconv.FormatInt(now.UnixNano(), 36) + "-" + strconv.FormatInt(cs.last, 36),
		By: by, Command: content,
	}
	cs.open[master.App] = append(cs.open[master.App], command{call, message, master.Attempt, now.Add(timeout)})
	cs.turn.WakeBy(now.Add(timeout))
	return message, nil
}

// Unanswered are the commands that the first response of a stream repeats.
func (cs *Commands) Unanswered(app id.App) []*masterv1.Command {
	var list []*masterv1.Command
	for _, command := range cs.open[app] {
		list = append(list, command.message)
	}
	return list
}

// Close closes the command with an id because its master has answered, and returns who waits for the answer. ok is false if nobody does:
// whoever has waited too long does not wait any more.
func (cs *Commands) Close(app id.App, name string) (call CallID, ok bool) {
	open := cs.open[app]
	i := slices.IndexFunc(open, func(c command) bool { return c.message.GetId() == name })
	if i < 0 {
		return 0, false
	}
	call = open[i].call
	cs.keep(app, slices.Delete(open, i, i+1))
	return call, true
}

// Due ends the wait for a master that takes too long, and for one that has ended.
func (cs *Commands) Due(master Master) {
	cs.keep(master.App, slices.DeleteFunc(cs.open[master.App], func(command command) bool {
		var err error
		switch {
		case command.attempt != master.Attempt || !master.Live:
			err = fmt.Errorf("the application master of %s has ended; it may have carried out the command: %w", master.Name, errdefs.ErrAborted)
		case !cs.turn.Now().Before(command.deadline):
			err = fmt.Errorf("the application master of %s has not answered within %s; it may still carry out the command: %w", master.Name, timeout, errdefs.ErrAborted)
		default:
			return false
		}
		cs.turn.Answer(Answered{Call: command.call, Err: err})
		return true
	}))
	for _, command := range cs.open[master.App] {
		cs.turn.WakeBy(command.deadline)
	}
}

// Gone ends the wait for the master of an app that is gone.
func (cs *Commands) Gone(app id.App, name string) {
	for _, command := range cs.open[app] {
		cs.turn.Answer(Answered{Call: command.call, Err: fmt.Errorf("%s was removed: %w", name, errdefs.ErrNotFound)})
	}
	delete(cs.open, app)
}

// keep keeps the commands of an app that are still open.
func (cs *Commands) keep(app id.App, open []command) {
	if len(open) == 0 {
		delete(cs.open, app)
		return
	}
	cs.open[app] = open
}
