package zone

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
)

const (
	// commandTimeout is how long a command waits for its answer.
	commandTimeout = 10 * time.Second
	// mostCommands is how many commands of an app may wait at a time.
	mostCommands = 100
)

// CallID names somebody who waits for the answer to a command, as the shell knows him.
type CallID int64

// CommandAnswered is the answer to a command, for whoever gave it.
type CommandAnswered struct {
	Call     CallID
	Response *apiv1.CommandAppResponse
	Err      error
}

// openCommand is a command that was not answered yet. It is not stored: if the ResourceManager ends, whoever waits for the answer sees
// that.
type openCommand struct {
	call     CallID
	message  *masterv1.Command
	attempt  int32
	deadline time.Time
}

// commands are what people want of the masters of apps. The zone does not read them: it hands them over and returns the answers. A
// command is for the attempt that runs when it is given.
type commands struct {
	*turn
	apps    *apps
	masters *masters
	views   *views
	// open are the open commands of each app, in their order.
	open map[id.App][]openCommand
	// last is the number of the newest command.
	last int64
}

// give hands a command to the master of an app. Its answer is in the Ready of a later turn.
func (cs *commands) give(who peer.User, name string, command *anypb.Any, call CallID) error {
	a, err := cs.apps.changeable(who, name, "give commands to the application master of")
	if err != nil {
		return err
	}
	if err := a.notRemoving(); err != nil {
		return err
	}
	switch {
	case !a.attemptState().Live():
		return fmt.Errorf("%s has no application master at present, which would carry out the command; \"mammoth app explain %s\" says why: %w", name, name, errdefs.ErrAborted)
	case len(cs.open[a.id]) >= mostCommands:
		return fmt.Errorf("%d commands wait for the application master of %s; try again later: %w", mostCommands, name, errdefs.ErrResourceExhausted)
	}
	cs.last++
	message := &masterv1.Command{
		// The time makes it unique over restarts of the ResourceManager.
		Id: strconv.FormatInt(cs.now.UnixNano(), 36) + "-" + strconv.FormatInt(cs.last, 36),
		By: access.ByWhom(who), Command: command,
	}
	cs.open[a.id] = append(cs.open[a.id], openCommand{call, message, a.record.GetAttempt().GetNumber(), cs.now.Add(commandTimeout)})
	cs.WakeBy(cs.now.Add(commandTimeout))
	response := cs.masters.response(a)
	response.Commands = append(response.Commands, message)
	return nil
}

// unanswered are the commands that the first answer of a stream repeats.
func (cs *commands) unanswered(a *app) []*masterv1.Command {
	var list []*masterv1.Command
	for _, command := range cs.open[a.id] {
		list = append(list, command.message)
	}
	return list
}

// answered passes on a master's answer. Whoever has waited too long does not wait any more.
func (cs *commands) answered(a *app, answer *masterv1.CommandAnswer) {
	open := cs.open[a.id]
	i := slices.IndexFunc(open, func(c openCommand) bool { return c.message.GetId() == answer.GetId() })
	if i < 0 {
		return
	}
	call := open[i].call
	cs.keep(a, slices.Delete(open, i, i+1))
	if event := answer.GetEvent(); event != "" {
		cs.Emit(&apiv1.Event{Kind: "app", App: a.record.GetName(), From: a.state().String(), To: a.state().String(), Message: event})
	}
	if err := wire.Refused(answer.GetCode(), answer.GetRefusal()); err != nil {
		cs.answer(CommandAnswered{Call: call, Err: err})
		return
	}
	cs.answer(CommandAnswered{Call: call, Response: &apiv1.CommandAppResponse{Answer: answer.GetAnswer(), App: cs.views.of(a)}})
}

func (cs *commands) answer(answered CommandAnswered) {
	cs.out.Answered = append(cs.out.Answered, answered)
}

// due ends the wait for a master that takes too long, and for one that has ended.
func (cs *commands) due(a *app) {
	cs.keep(a, slices.DeleteFunc(cs.open[a.id], func(command openCommand) bool {
		var err error
		switch {
		case command.attempt != a.record.GetAttempt().GetNumber() || !a.attemptState().Live():
			err = fmt.Errorf("the application master of %s has ended; it may have carried out the command: %w", a.record.GetName(), errdefs.ErrAborted)
		case !cs.now.Before(command.deadline):
			err = fmt.Errorf("the application master of %s has not answered within %s; it may still carry out the command: %w", a.record.GetName(), commandTimeout, errdefs.ErrAborted)
		default:
			return false
		}
		cs.answer(CommandAnswered{Call: command.call, Err: err})
		return true
	}))
	for _, command := range cs.open[a.id] {
		cs.WakeBy(command.deadline)
	}
}

// appGone ends the wait for the master of an app that is gone.
func (cs *commands) appGone(a *app) {
	for _, command := range cs.open[a.id] {
		err := fmt.Errorf("%s was removed: %w", a.record.GetName(), errdefs.ErrNotFound)
		cs.answer(CommandAnswered{Call: command.call, Err: err})
	}
	delete(cs.open, a.id)
}

// keep keeps the commands of an app that are still open.
func (cs *commands) keep(a *app, open []openCommand) {
	if len(open) == 0 {
		delete(cs.open, a.id)
		return
	}
	cs.open[a.id] = open
}
