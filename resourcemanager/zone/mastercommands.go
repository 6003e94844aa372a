package zone

import (
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/commands"
)

// commanded is the master of an app as its commands see it.
func commanded(a *app) commands.Master {
	return commands.Master{App: a.id, Name: a.record.GetName(), Attempt: a.record.GetAttempt().GetNumber(), Live: a.attemptState().Live()}
}

// command hands a command over to the master of an app. Its answer is in the Ready of a later turn.
func (ms *masters) command(who peer.User, name string, content *anypb.Any, call commands.CallID) error {
	a, err := ms.apps.changeable(who, name, "give commands to the application master of")
	if err != nil {
		return err
	}
	if err := a.notRemoving(); err != nil {
		return err
	}
	command, err := ms.commands.Give(commanded(a), access.ByWhom(who), content, call)
	if err != nil {
		return err
	}
	response := ms.response(a)
	response.Commands = append(response.Commands, command)
	return nil
}

// answered passes on a master's answer to a command.
func (ms *masters) answered(a *app, answer *masterv1.CommandAnswer) {
	call, waits := ms.commands.Close(a.id, answer.GetId())
	if !waits {
		return
	}
	if event := answer.GetEvent(); event != "" {
		ms.Emit(&apiv1.Event{Kind: "app", App: a.record.GetName(), From: a.state().String(), To: a.state().String(), Message: event})
	}
	if err := wire.Refused(answer.GetCode(), answer.GetRefusal()); err != nil {
		ms.Answer(commands.Answered{Call: call, Err: err})
		return
	}
	ms.Answer(commands.Answered{Call: call, Response: &apiv1.CommandAppResponse{Answer: answer.GetAnswer(), App: ms.views.answer(a)}})
}
