// Package access decides who may do what in a zone, by the submit and admin lists of the queue tree. An operator may do everything.
// A refusal is an errdefs.ErrPermissionDenied, a sentence that names who can help.
//
// Vocabulary: a user administers a queue if the admin list of the queue, or of one above it, has the user. An administrator of the
// zone is on the admin list of the root queue.
//
// It owns no list: the lists are in the queue tree, which it sees through Queues.
package access

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// Queues is the queue tree with its submit and admin lists.
type Queues interface {
	// Queues lists all queues, parents before children.
	Queues() []scheduler.QueueUsage
	// MaySubmit and MayAdminister go by the lists of a queue and of those above it.
	MaySubmit(queue id.Queue, user string) bool
	MayAdminister(queue id.Queue, user string) bool
}

// Rules are the access rules of one zone.
type Rules struct {
	Queues Queues
	// AllowInsecure lets callers that cannot be identified register nodes and balancers.
	AllowInsecure bool
}

// App has what access to an app depends on: its name, the user who deployed it first, and its queue. Owner may be empty.
type App struct{ Name, Owner, Queue string }

// MaySubmit refuses users who may not submit apps to a queue. It does not refuse a queue that does not exist; the scheduler does.
func (r Rules) MaySubmit(who peer.User, name string) error {
	if who.Operator || r.Queues.MaySubmit(id.Queue(name), who.Name) {
		return nil
	}
	submit, admin := r.lists(name)
	return denied("%s may not submit to queue %s; its submit list has: %s; ask an administrator of the queue (%s)",
		who, name, strings.Join(submit, ", "), administrators(admin))
}

// administers reports whether a user administers a queue. If no administrator is listed, those who may submit do.
func (r Rules) administers(who peer.User, name string) bool {
	return who.Operator || r.Queues.MayAdminister(id.Queue(name), who.Name) && r.Queues.MaySubmit(id.Queue(name), who.Name)
}

// MayLend refuses users who may not lend a queue's guarantee.
func (r Rules) MayLend(who peer.User, lender string) error {
	if r.administers(who, lender) {
		return nil
	}
	_, admin := r.lists(lender)
	return denied("%s may not lend what queue %s is guaranteed; ask an administrator of the queue (%s)", who, lender, administrators(admin))
}

// MayChange refuses users who neither own an app nor administer its queue. doing is a verb: scale.
func (r Rules) MayChange(who peer.User, app App, doing string) error {
	owner, queue := app.Owner, app.Queue
	if owner != "" && owner == who.Name || r.administers(who, queue) {
		return nil
	}
	_, admin := r.lists(queue)
	if owner == "" {
		return denied("%s may not %s %s; ask an administrator of queue %s (%s)", who, doing, app.Name, queue, administrators(admin))
	}
	return denied("%s may not %s %s, which is user %q's; ask that user, or an administrator of queue %s (%s)",
		who, doing, app.Name, owner, queue, administrators(admin))
}

// MayOperate refuses users who may not change what all queues share: the tree itself and the nodes. Administrators of the zone may.
// If no queue has a list, everybody may; with lists, others must not be able to remove them.
func (r Rules) MayOperate(who peer.User, doing string) error {
	if who.Operator {
		return nil
	}
	listed, root := false, r.rootQueue()
	for _, usage := range r.Queues.Queues() {
		listed = listed || len(usage.Spec.Submit)+len(usage.Spec.Admin) > 0
	}
	if !listed || slices.Contains(root.Admin, who.Name) {
		return nil
	}
	return denied("%s may not %s; ask an administrator of queue %s (%s)", who, doing, root.Name, administrators(root.Admin))
}

// MayRunPrograms refuses apps that can act as an operator, unless the user is an operator or an administrator of the zone. A
// companion app's programs run as the user of the NodeManager. On the host's network, a container's root passes for the machine's root
// when the kernel is asked for the user of a connection. doing is a verb: deploy.
func (r Rules) MayRunPrograms(who peer.User, spec *apiv1.AppSpec, doing string) error {
	what := ""
	switch {
	case spec.GetKind() == apiv1.AppSpec_COMPANION:
		what = fmt.Sprintf("the companion app %s, which runs programs of the nodes themselves", spec.GetName())
	case spec.GetKind() == apiv1.AppSpec_EXTERNAL:
		what = fmt.Sprintf("%s, which may run any program on the nodes", spec.GetName())
	case slices.ContainsFunc(spec.GetRoles(), func(r *apiv1.RoleSpec) bool { return r.GetNetwork() == corev1.ContainerSpec_HOST }):
		what = fmt.Sprintf("%s, which has its nodes' own network, where programs may pass for root", spec.GetName())
	default:
		return nil
	}
	return r.overWholeZone(who, doing, what)
}

// MayExec refuses users who may not run commands in the containers of a spec. Without roles, the application master chooses what its
// containers run, and that may be programs of the nodes.
func (r Rules) MayExec(who peer.User, spec *apiv1.AppSpec, doing string) error {
	if spec.GetKind() != apiv1.AppSpec_EXTERNAL && len(spec.GetRoles()) == 0 {
		return r.overWholeZone(who, doing, spec.GetName()+", whose containers may be programs of the nodes themselves")
	}
	return r.MayRunPrograms(who, spec, doing)
}

// MayInstall refuses a framework package, unless the user may run programs of the nodes: its master and its companion are such programs
// and can start others. doing is a verb: install.
func (r Rules) MayInstall(who peer.User, framework, doing string) error {
	return r.overWholeZone(who, doing, fmt.Sprintf("the framework package %s, whose programs may run any other on the nodes", framework))
}

// overWholeZone refuses users who are neither operators nor administrators of the zone.
func (r Rules) overWholeZone(who peer.User, doing, what string) error {
	root := r.rootQueue()
	if who.Operator || slices.Contains(root.Admin, who.Name) {
		return nil
	}
	return denied("%s may not %s %s; ask an administrator of queue %s (%s)", who, doing, what, root.Name, administrators(root.Admin))
}

// MayJoin refuses nodes of users who are neither operators nor administrators of the zone, even if no queue has a list: a node
// receives the keys that sign leases, which every other node trusts. With AllowInsecure it admits callers from other machines,
// whose user is unknown.
func (r Rules) MayJoin(who peer.User, node string) error {
	root := r.rootQueue()
	if who.Operator || slices.Contains(root.Admin, who.Name) || who.Name == "" && r.AllowInsecure {
		return nil
	}
	return denied("%s may not register node %q, which would receive the keys of the zone; run NodeManagers as root, as the user that runs the zone, or as an administrator of queue %s (%s)",
		who, node, root.Name, administrators(root.Admin))
}

// MayRoute refuses balancers of users who may not change what all queues share. A balancer's confirmations decide when instances
// are stopped, and its traffic counts affect rollouts of all apps.
func (r Rules) MayRoute(who peer.User) error {
	if who.Name == "" && r.AllowInsecure {
		return nil
	}
	return r.MayOperate(who, "run a balancer of the zone")
}

func (r Rules) rootQueue() scheduler.QueueSpec {
	for _, usage := range r.Queues.Queues() {
		if usage.Spec.Parent == "" {
			return usage.Spec
		}
	}
	return scheduler.QueueSpec{}
}

// lists merges the submit and admin lists of a queue and of those above it.
func (r Rules) lists(name string) (submit, admin []string) {
	specs := map[string]scheduler.QueueSpec{}
	for _, usage := range r.Queues.Queues() {
		specs[string(usage.Spec.Name)] = usage.Spec
	}
	for spec, ok := specs[name]; ok; spec, ok = specs[string(spec.Parent)] {
		submit, admin = append(submit, spec.Submit...), append(admin, spec.Admin...)
	}
	slices.Sort(submit)
	slices.Sort(admin)
	return slices.Compact(submit), slices.Compact(admin)
}

func administrators(names []string) string {
	if len(names) == 0 {
		return "root, or the user that runs the zone"
	}
	return strings.Join(names, ", ")
}

func denied(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrPermissionDenied)...)
}

// ByWhom names a user at the end of a sentence about what the user did.
func ByWhom(who peer.User) string {
	if who.Name == "" {
		return "a person"
	}
	return "user " + strconv.Quote(who.Name)
}
