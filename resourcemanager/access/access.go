// Package access says who may do what in a zone, and refuses in a sentence that names whom to ask. The lists of the queue tree
// decide; an operator may do everything. Every refusal is an errdefs.ErrPermissionDenied.
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

// Queues is the queue tree with its lists.
type Queues interface {
	// Queues are all queues, in the order of the tree.
	Queues() []scheduler.QueueUsage
	// MaySubmit and MayAdminister look at the lists of a queue and of those above it.
	MaySubmit(queue id.Queue, user string) bool
	MayAdminister(queue id.Queue, user string) bool
}

// Rules are those of one zone.
type Rules struct {
	Queues Queues
	// AllowInsecure lets whoever cannot be identified register nodes and balancers.
	AllowInsecure bool
}

// App is what counts of an app: its name, who deployed it first and the queue that it is in. An app of before there were
// owners has none.
type App struct{ Name, Owner, Queue string }

// MaySubmit refuses who is not to bring apps into a queue. A queue that does not exist is the scheduler's to refuse.
func (r Rules) MaySubmit(who peer.User, name string) error {
	if who.Operator || r.Queues.MaySubmit(id.Queue(name), who.Name) {
		return nil
	}
	submit, admin := r.lists(name)
	return denied("%s may not submit to queue %s; its submit list has: %s; ask an administrator of the queue (%s)",
		who, name, strings.Join(submit, ", "), administrators(admin))
}

// administers reports whether somebody looks after a queue: who is named for it, or where nobody is named, who may submit.
func (r Rules) administers(who peer.User, name string) bool {
	return who.Operator || r.Queues.MayAdminister(id.Queue(name), who.Name) && r.Queues.MaySubmit(id.Queue(name), who.Name)
}

// MayLend refuses who is not to lend of a queue.
func (r Rules) MayLend(who peer.User, lender string) error {
	if r.administers(who, lender) {
		return nil
	}
	_, admin := r.lists(lender)
	return denied("%s may not lend what queue %s is guaranteed; ask an administrator of the queue (%s)", who, lender, administrators(admin))
}

// MayChange refuses who neither owns an app nor looks after its queue. doing is a verb: scale.
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

// MayOperate refuses who is not to change what all queues share: the tree itself and the nodes. As long as no queue has a
// list it is everybody's; otherwise anybody could do away with the lists.
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

// MayRunPrograms refuses what runs as root, as the kernel sees it, of who is no operator, nor named to look after the whole
// zone: a framework's programs of the nodes are whoever's that runs their NodeManagers, and on a node's own network a
// container's root is the machine's. Either may then do everything in the zone. doing is a verb: deploy.
func (r Rules) MayRunPrograms(who peer.User, spec *apiv1.AppSpec, doing string) error {
	what := ""
	switch {
	case spec.GetKind() == apiv1.AppSpec_FRAMEWORK:
		what = fmt.Sprintf("the framework %s, which runs programs of the nodes themselves", spec.GetName())
	case spec.GetKind() == apiv1.AppSpec_EXTERNAL:
		what = fmt.Sprintf("%s, which may run any program on the nodes", spec.GetName())
	case slices.ContainsFunc(spec.GetRoles(), func(r *apiv1.RoleSpec) bool { return r.GetNetwork() == corev1.ContainerSpec_HOST }):
		what = fmt.Sprintf("%s, which has its nodes' own network, where programs may pass for root", spec.GetName())
	default:
		return nil
	}
	return r.overWholeZone(who, doing, what)
}

// MayExec refuses who may not run commands in the containers of a spec. Where a master chooses what they run, they may be programs of
// the nodes, though whoever deploys the app has no say in that.
func (r Rules) MayExec(who peer.User, spec *apiv1.AppSpec, doing string) error {
	if spec.GetFramework() != "" {
		return r.overWholeZone(who, doing, spec.GetName()+", whose containers may be programs of the nodes themselves")
	}
	return r.MayRunPrograms(who, spec, doing)
}

// MayInstall refuses a framework package of who may not run programs of the nodes: its application masters are such programs, and have
// nodes start others. doing is a verb: install.
func (r Rules) MayInstall(who peer.User, framework, doing string) error {
	return r.overWholeZone(who, doing, fmt.Sprintf("the framework package %s, whose application masters may run any program on the nodes", framework))
}

// overWholeZone refuses who is no operator, nor named to look after the whole zone.
func (r Rules) overWholeZone(who peer.User, doing, what string) error {
	root := r.rootQueue()
	if who.Operator || slices.Contains(root.Admin, who.Name) {
		return nil
	}
	return denied("%s may not %s %s; ask an administrator of queue %s (%s)", who, doing, what, root.Name, administrators(root.Admin))
}

// MayJoin refuses a node of who is no operator, nor named to look after the whole zone, lists or not: a node is told the keys
// that leases are signed with, which every other node obeys. Of a zone that others than this machine's programs can connect
// to, whoever is not known here may be a node.
func (r Rules) MayJoin(who peer.User, node string) error {
	root := r.rootQueue()
	if who.Operator || slices.Contains(root.Admin, who.Name) || who.Name == "" && r.AllowInsecure {
		return nil
	}
	return denied("%s may not register node %q, which would be told the keys of the zone; run NodeManagers as root, as the user that runs the zone, or as an administrator of queue %s (%s)",
		who, node, root.Name, administrators(root.Admin))
}

// MayRoute refuses a balancer of who is not to change what all queues share: it says when instances may be stopped, and how
// those of every app fare.
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

// lists are whom a queue and those above it name.
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

// ByWhom ends a sentence about what somebody did.
func ByWhom(who peer.User) string {
	if who.Name == "" {
		return "a person"
	}
	return "user " + strconv.Quote(who.Name)
}
