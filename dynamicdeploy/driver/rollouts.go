package driver

import (
	"fmt"
	"slices"
	"strings"

	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
)

// rollouts owns the rollouts of all roles at one instant, as people are shown them, and sums them up.
type rollouts struct {
	version int32
	// several is true if the app has several roles. Then sentences name the role that they are about.
	several bool
	roles   []roleRollout
}

// roleRollout is the rollout of one role.
type roleRollout struct {
	*dynamicdeployv1.RoleRollout
	// from is the version that it brings back, zero if none; reverts is true if that is since another one failed.
	from    int32
	reverts bool
	// byHand is true if a person has paused it. share is what the canary is to be given.
	byHand bool
	share  int32
	// errors is true if it fails when too many requests fail. removed is true if the app does not have the role any more.
	errors, removed bool
}

// maxNamedRoles is how many roles a sentence about an app names at most, maxRoleReason how many bytes of a role's reason are shown if the app
// has several roles.
const maxNamedRoles, maxRoleReason = 3, 400

// add adds the rollout of a role. Of several, each has a reason of a bounded length.
func (l *rollouts) add(r roleRollout) {
	if l.several {
		r.Reason = cut(r.GetReason(), maxRoleReason)
	}
	l.roles = append(l.roles, r)
}

// underWay reports whether the rollout goes on, or waits for a person.
func (r *roleRollout) underWay() bool {
	return r.GetState() == dynamicdeployv1.Rollout_PROGRESSING || r.GetState() == dynamicdeployv1.Rollout_PAUSED
}

// evaluateErrors reports whether a rollout is in progress that fails when too many requests fail.
func (l *rollouts) evaluateErrors() bool {
	return slices.ContainsFunc(l.roles, func(r roleRollout) bool { return r.errors && r.underWay() })
}

// ranks orders states: the one that ranks highest among those of the roles is the app's.
var ranks = []dynamicdeployv1.Rollout_State{
	dynamicdeployv1.Rollout_NONE, dynamicdeployv1.Rollout_DONE, dynamicdeployv1.Rollout_REVERTED, dynamicdeployv1.Rollout_PAUSED,
	dynamicdeployv1.Rollout_PROGRESSING, dynamicdeployv1.Rollout_FAILED,
}

// decisive is the rollout that decides what is said of the app: one in the worst state, and of several in that state the one with the most
// failures. An app of DynamicDeploy has at least one role.
func (l *rollouts) decisive() *roleRollout {
	var decisive *roleRollout
	rank := -1
	for i := range l.roles {
		r := &l.roles[i]
		switch of := slices.Index(ranks, r.GetState()); {
		case of > rank, of == rank && r.GetFailures() > decisive.GetFailures():
			decisive, rank = r, of
		}
	}
	return decisive
}

func (l *rollouts) state() dynamicdeployv1.Rollout_State {
	if decisive := l.decisive(); decisive != nil {
		return decisive.GetState()
	}
	return dynamicdeployv1.Rollout_NONE
}

// whole is the rollout of the app: the sums over its roles, with the state of the one in the worst state.
func (l *rollouts) whole() *dynamicdeployv1.Rollout {
	whole := &dynamicdeployv1.Rollout{Version: l.version, Reason: l.reason()}
	if decisive := l.decisive(); decisive != nil {
		whole.State, whole.Reverts = decisive.GetState(), decisive.GetReverts()
		whole.Failures, whole.MaxFailures, whole.FailsAt = decisive.GetFailures(), decisive.GetMaxFailures(), decisive.GetFailsAt()
	}
	var percent int32
	for _, r := range l.roles {
		whole.Updated += r.GetUpdated()
		whole.Total += r.GetTotal()
		percent += r.GetPercent() * r.GetTotal()
		whole.Canary = whole.GetCanary() || r.GetCanary()
		if l.several && !r.removed {
			whole.Roles = append(whole.Roles, r.RoleRollout)
		}
	}
	if whole.GetTotal() > 0 && !l.several { // the shares of several roles have no sum
		whole.Percent = percent / whole.GetTotal()
	}
	return whole
}

// reason explains the state of the app. Of several roles it says what is remarkable about each, those in the worst state first.
func (l *rollouts) reason() string {
	if !l.several {
		return l.decisive().GetReason()
	}
	var reasons []string
	for _, state := range slices.Backward(ranks) {
		for i := range l.roles {
			if r := &l.roles[i]; r.GetState() == state && r.sentence() != "" {
				reasons = append(reasons, r.sentence())
			}
		}
	}
	return first3(reasons)
}

// failure is why the version has failed.
func (l *rollouts) failure() string {
	var reasons []string
	for i := range l.roles {
		if r := &l.roles[i]; r.GetState() == dynamicdeployv1.Rollout_FAILED {
			reasons = append(reasons, l.ofRole(r.GetRole(), r.GetReason()))
		}
	}
	return first3(reasons)
}

// ofRole is a sentence about a role; with its name if there are several.
func (l *rollouts) ofRole(name, sentence string) string {
	if l.several {
		return name + ": " + cut(sentence, maxRoleReason)
	}
	return sentence
}

// sentence is what is remarkable about the rollout of one role of several; it may be empty.
func (r *roleRollout) sentence() string {
	because := ""
	if r.GetReason() != "" {
		because = ": " + r.GetReason()
	}
	switch state := r.GetState(); {
	case state == dynamicdeployv1.Rollout_REVERTED:
		return fmt.Sprintf("%s went back to version %d%s", r.GetRole(), r.from, because)
	case state == dynamicdeployv1.Rollout_PROGRESSING && r.reverts && r.from > 0:
		return fmt.Sprintf("%s goes back to version %d%s", r.GetRole(), r.from, because)
	case state == dynamicdeployv1.Rollout_PAUSED && r.GetCanary() && r.byHand:
		return fmt.Sprintf("%s is a canary with %d %% of the requests, and is not reverted automatically, because a person paused it", r.GetRole(), r.share)
	case state == dynamicdeployv1.Rollout_PAUSED && r.GetCanary():
		return fmt.Sprintf("%s is a canary with %d %% of the requests", r.GetRole(), r.share)
	case state == dynamicdeployv1.Rollout_PAUSED && r.byHand:
		return "a person paused " + r.GetRole()
	case r.GetReason() == "", state == dynamicdeployv1.Rollout_DONE, strings.HasPrefix(r.GetReason(), "role "+r.GetRole()+" begins once "):
		return r.GetReason()
	}
	return r.GetRole() + because
}

// first3 joins sentences, and counts those that are too many.
func first3(sentences []string) string {
	text := strings.Join(sentences[:min(len(sentences), maxNamedRoles)], "; ")
	if more := len(sentences) - maxNamedRoles; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// cut cuts a text down to so many bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len("…")], "") + "…"
}
