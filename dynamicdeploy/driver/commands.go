package driver

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	sentences "github.com/mammoth-os/mammoth/internal/sentence"
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

// carryOut executes a command about rollouts, and returns what was done, as a clause.
func (d *Master) carryOut(command *masterv1.Command, now time.Time) (event string, err error) {
	request, err := command.GetCommand().UnmarshalNew()
	if err != nil {
		return "", unknownCommand(command, err)
	}
	switch request := request.(type) {
	case *dynamicdeployv1.Pause:
		return d.steer(steering{
			role: request.GetRole(), applies: func(r *roleRollout) bool { return !r.byHand },
			refusal: func(what, named string, _ bool) string {
				return fmt.Sprintf("the rollout of %s is paused already; \"mammoth app resume %s\" lets it go on", what, named)
			},
			others: "can be paused", do: func(c *control) { c.pause() }, event: func(of string) string { return command.GetBy() + " paused " + of },
		}, now)
	case *dynamicdeployv1.Resume:
		return d.steer(steering{
			role: request.GetRole(), applies: func(r *roleRollout) bool { return r.byHand },
			refusal: func(what, named string, waits bool) string {
				if waits {
					return fmt.Sprintf("the rollout of %s waits to be promoted, which \"mammoth app promote %s\" does", what, named)
				}
				return fmt.Sprintf("the rollout of %s is not paused", what)
			},
			others: "can be resumed", do: func(c *control) { c.resume() }, event: func(of string) string { return command.GetBy() + " let " + of + " go on" },
		}, now)
	case *dynamicdeployv1.Promote:
		percent := cmp.Or(request.GetPercent(), 100)
		if err := checkShare(percent); err != nil {
			return "", err
		}
		return d.steer(steering{
			role: request.GetRole(), applies: func(r *roleRollout) bool { return r.GetCanary() },
			refusal: d.noCanary(request.GetRole()),
			others:  "can be promoted", do: func(c *control) { c.promote(percent) },
			event: func(of string) string {
				return fmt.Sprintf("%s gives %s %d %% of the requests", command.GetBy(), of, percent)
			},
		}, now)
	}
	return "", unknownCommand(command, errors.New("it is none of Pause, Resume and Promote"))
}

// steering is what a command does with rollouts that are under way.
type steering struct {
	// role is the role that it is for; empty: all to which it applies.
	role    string
	applies func(*roleRollout) bool
	// refusal is the sentence if it applies to none of them. It is given what the rollout is of, what that is called on the command line,
	// and whether it waits for a person. Others is what the roles can be that it would apply to.
	refusal func(what, named string, waits bool) string
	others  string
	do      func(*control)
	// event is what was done to something, as a clause.
	event func(of string) string
}

// steer carries out a command, and returns what was done.
func (d *Master) steer(s steering, now time.Time) (event string, err error) {
	several := len(d.desired.GetSpec().GetRoles()) > 1
	if s.role != "" && roleOf(d.desired.GetSpec(), s.role) == nil {
		return "", d.noRole(s.role)
	}
	var meant, others []string
	underWay, waits := false, false
	for _, r := range d.presentRollouts(now) {
		switch {
		case d.ending() || !r.underWay():
		case s.role != "" && r.GetRole() != s.role:
			if s.applies(&r) {
				others = append(others, r.GetRole())
			}
		default:
			underWay, waits = true, waits || r.GetState() == dynamicdeployv1.Rollout_PAUSED
			if s.applies(&r) {
				meant = append(meant, r.GetRole())
			}
		}
	}
	if len(meant) == 0 {
		what, named := d.app, d.app
		if s.role != "" && several {
			what, named = fmt.Sprintf("role %s of %s", s.role, d.app), d.argument(s.role, several)
		}
		sentence := s.refusal(what, named, waits)
		if !underWay {
			sentence = fmt.Sprintf("no rollout of %s is under way; \"mammoth deploy\" begins one", what)
		}
		if len(others) > 0 {
			sentence += fmt.Sprintf("; %s %s", sentences.Names(others), s.others)
		}
		return "", fmt.Errorf("%s: %w", sentence, errdefs.ErrFailedPrecondition)
	}
	for _, name := range meant {
		s.do(d.roles.named(name).control)
	}
	if !several {
		return s.event("it"), nil
	}
	return s.event(sentences.Names(meant)), nil
}

// noRole refuses a role that the app does not have.
func (d *Master) noRole(role string) error {
	var names []string
	for _, spec := range d.desired.GetSpec().GetRoles() {
		if spec.GetName() != "" {
			names = append(names, spec.GetName())
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("%s has no roles with names; leave the role out: %w", d.app, errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("%s has no role named %q; it has %s: %w", d.app, role, sentences.Names(names), errdefs.ErrInvalidArgument)
}

// noCanary is the sentence if there is no canary to promote.
func (d *Master) noCanary(role string) func(what, named string, waits bool) string {
	promoted := false
	for _, spec := range d.desired.GetSpec().GetRoles() {
		promoted = promoted || (role == "" || spec.GetName() == role) && d.roles.named(spec.GetName()).control.share() == 100
	}
	return func(what, _ string, _ bool) string {
		if promoted {
			return fmt.Sprintf("version %d of %s is promoted already", d.desired.GetVersion(), what)
		}
		return fmt.Sprintf("version %d of %s is no canary; \"mammoth deploy --canary 10%%\" makes one", d.desired.GetVersion(), what)
	}
}

func (d *Master) ending() bool { return d.desired.GetStopped() || d.desired.GetRemoving() }

func unknownCommand(command *masterv1.Command, why error) error {
	return fmt.Errorf("DynamicDeploy has no command %q: %w: %w", command.GetCommand().GetTypeUrl(), why, errdefs.ErrInvalidArgument)
}
