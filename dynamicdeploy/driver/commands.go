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

// control is what people have set for the rollout of one version, by commands.
type control struct {
	version int32
	paused  bool
	// percent is the share of the requests that the canary was given by hand; zero is none.
	percent int32
	// specPercent is the share in the spec at that time. If the share in the spec changes, percent is reset.
	specPercent int32
}

// presentControl is the control of the desired version.
func (d *Master) presentControl() *control {
	if d.control.version != d.desired.GetVersion() {
		d.control = control{version: d.desired.GetVersion()}
	}
	if percent := d.canaryPercent(); percent != d.control.specPercent {
		d.control.percent, d.control.specPercent = 0, percent
	}
	return &d.control
}

// strategyOf is the strategy of a role's rollout to the desired version. A version that was brought back does not repeat the
// strategy that applied to its first rollout only.
func (d *Master) strategyOf(role *apiv1.RoleSpec) *apiv1.UpdatePolicy_OneRollout {
	if d.desired.GetFromVersion() > 0 {
		return policyStrategy(role.GetUpdate())
	}
	return strategyOfNext(role.GetUpdate())
}

// strategyOfNext is the strategy of the rollout of a new version with this policy.
func strategyOfNext(update *apiv1.UpdatePolicy) *apiv1.UpdatePolicy_OneRollout {
	if once := update.GetOnce(); once != nil {
		return once
	}
	return policyStrategy(update)
}

// policyStrategy is the strategy of a policy for every version.
func policyStrategy(update *apiv1.UpdatePolicy) *apiv1.UpdatePolicy_OneRollout {
	return &apiv1.UpdatePolicy_OneRollout{Strategy: update.GetStrategy(), CanaryPercent: update.GetCanaryPercent(), Exclusive: update.GetExclusive()}
}

// canaryPercent is the share of the requests that the spec gives the canary; zero if there is none.
func (d *Master) canaryPercent() int32 {
	for _, role := range d.desired.GetSpec().GetRoles() {
		if strategy := d.strategyOf(role); strategy.GetStrategy() == apiv1.UpdatePolicy_CANARY {
			return strategy.GetCanaryPercent()
		}
	}
	return 0
}

// carryOutCommands carries out the commands that have come, and returns the answers, which are to be completed with what becomes of the
// rollout.
func (d *Master) carryOutCommands(now time.Time) []*masterv1.CommandAnswer {
	var answers []*masterv1.CommandAnswer
	for _, command := range d.commands {
		previewed := &apiv1.Preview{}
		if command.GetCommand().MessageIs(previewed) && command.GetCommand().UnmarshalTo(previewed) == nil {
			d.preview(command, previewed.GetSpec(), now)
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
	control := d.presentControl()
	switch request := request.(type) {
	case *dynamicdeployv1.Pause:
		if control.paused {
			return "", fmt.Errorf("the rollout of %s is paused already; \"mammoth app resume %s\" lets it go on: %w", d.app, d.app, errdefs.ErrFailedPrecondition)
		}
		control.paused = true
		return command.GetBy() + " paused it", nil
	case *dynamicdeployv1.Resume:
		switch {
		case !control.paused && waits:
			return "", fmt.Errorf("the rollout of %s waits to be promoted, which \"mammoth app promote %s\" does: %w", d.app, d.app, errdefs.ErrFailedPrecondition)
		case !control.paused:
			return "", fmt.Errorf("the rollout of %s is not paused: %w", d.app, errdefs.ErrFailedPrecondition)
		}
		control.paused = false
		return command.GetBy() + " let it go on", nil
	case *dynamicdeployv1.Promote:
		return d.promote(command.GetBy(), request.GetPercent())
	}
	return "", unknownCommand(command, errors.New("it is none of Pause, Resume and Promote"))
}

// promote gives the canary another share of the requests. With 100 % it replaces the version before.
func (d *Master) promote(by string, percent int32) (event string, err error) {
	if percent == 0 {
		percent = 100
	}
	control := d.presentControl()
	switch {
	case percent < 1 || percent > 100:
		return "", fmt.Errorf("a canary cannot receive %d %% of the requests; use 1 to 100: %w", percent, errdefs.ErrInvalidArgument)
	case control.specPercent == 0:
		return "", fmt.Errorf("version %d of %s is no canary; \"mammoth deploy --canary 10%%\" makes one: %w", d.desired.GetVersion(), d.app, errdefs.ErrFailedPrecondition)
	case d.percent() == 100:
		return "", fmt.Errorf("version %d of %s is promoted already: %w", d.desired.GetVersion(), d.app, errdefs.ErrFailedPrecondition)
	}
	control.percent, control.paused = percent, false
	return fmt.Sprintf("%s gives it %d %% of the requests", by, percent), nil
}

// percent is the share of the requests that the canary is to be given: what a person has set, or else what the spec has; zero
// without a canary. A version that was brought back is promoted at once, since it has come up before.
func (d *Master) percent() int32 {
	control := d.presentControl()
	switch {
	case control.specPercent == 0:
		return 0
	case control.percent > 0:
		return control.percent
	case d.desired.GetFromVersion() > 0:
		return 100
	}
	return control.specPercent
}

func (d *Master) ending() bool { return d.desired.GetStopped() || d.desired.GetRemoving() }

func unknownCommand(command *masterv1.Command, why error) error {
	return fmt.Errorf("DynamicDeploy has no command %q: %w: %w", command.GetCommand().GetTypeUrl(), why, errdefs.ErrInvalidArgument)
}
