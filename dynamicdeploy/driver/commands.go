package driver

import (
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// carryOutCommands carries out the commands that have come, and returns the answers, which are to be completed with what becomes of the
// rollout.
func (d *Master) carryOutCommands(now time.Time) []*masterv1.CommandAnswer {
	var answers []*masterv1.CommandAnswer
	for _, command := range d.commands {
		previewed := &apiv1.Preview{}
		if command.GetCommand().MessageIs(previewed) && command.GetCommand().UnmarshalTo(previewed) == nil {
			if answer := d.previews.consider(command.GetId(), previewed.GetSpec(), d.compare(previewed.GetSpec(), now)); answer != nil {
				d.sent.answer(answer)
			}
			continue
		}
		answer := &masterv1.CommandAnswer{Id: command.GetId()}
		event, err := d.carryOut(command, now)
		if err != nil {
			answer.Code, answer.Refusal = wire.Refusal(err)
		} else {
			answer.Event = fmt.Sprintf("version %d of %s: %s", d.desired.GetVersion(), d.app, event)
			d.setDesired(d.desired, now)
		}
		answers = append(answers, answer)
	}
	d.commands = nil
	return answers
}

// carryOut executes a command about the rollout, and returns what was done, as a clause.
func (d *Master) carryOut(command *masterv1.Command, now time.Time) (event string, err error) {
	request, err := command.GetCommand().UnmarshalNew()
	if err != nil {
		return "", unknownCommand(command, err)
	}
	rollout := d.presentRollout(now)
	waits := rollout.GetState() == dynamicdeployv1.Rollout_PAUSED
	if d.ending() || !waits && rollout.GetState() != dynamicdeployv1.Rollout_PROGRESSING {
		return "", fmt.Errorf("no rollout of %s is under way; \"mammoth deploy\" begins one: %w", d.app, errdefs.ErrFailedPrecondition)
	}
	switch request := request.(type) {
	case *dynamicdeployv1.Pause:
		if !d.control.pause(d.desired) {
			return "", fmt.Errorf("the rollout of %s is paused already; \"mammoth app resume %s\" lets it go on: %w", d.app, d.app, errdefs.ErrFailedPrecondition)
		}
		return command.GetBy() + " paused it", nil
	case *dynamicdeployv1.Resume:
		switch paused := d.control.pauses(d.desired); {
		case !paused && waits:
			return "", fmt.Errorf("the rollout of %s waits to be promoted, which \"mammoth app promote %s\" does: %w", d.app, d.app, errdefs.ErrFailedPrecondition)
		case !paused:
			return "", fmt.Errorf("the rollout of %s is not paused: %w", d.app, errdefs.ErrFailedPrecondition)
		}
		d.control.resume()
		return command.GetBy() + " let it go on", nil
	case *dynamicdeployv1.Promote:
		percent := request.GetPercent()
		if percent == 0 {
			percent = 100
		}
		if err := d.control.promote(d.app, d.desired, percent); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s gives it %d %% of the requests", command.GetBy(), percent), nil
	}
	return "", unknownCommand(command, errors.New("it is none of Pause, Resume and Promote"))
}

func (d *Master) ending() bool { return d.desired.GetStopped() || d.desired.GetRemoving() }

func unknownCommand(command *masterv1.Command, why error) error {
	return fmt.Errorf("DynamicDeploy has no command %q: %w: %w", command.GetCommand().GetTypeUrl(), why, errdefs.ErrInvalidArgument)
}
