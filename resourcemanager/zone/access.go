package zone

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

// maySubmit refuses who is not to bring apps into a queue. A queue that does not exist is the scheduler's to refuse.
func (z *Core) maySubmit(who peer.User, name string) error {
	if who.Operator || z.core.MaySubmit(id.Queue(name), who.Name) {
		return nil
	}
	submit, admin := z.lists(name)
	return denied("%s may not submit to queue %s; its submit list has: %s; ask an administrator of the queue (%s)",
		who, name, strings.Join(submit, ", "), administrators(admin))
}

// administers reports whether somebody looks after a queue: who is named for it, or where nobody is named, who may submit.
func (z *Core) administers(who peer.User, name string) bool {
	return who.Operator || z.core.MayAdminister(id.Queue(name), who.Name) && z.core.MaySubmit(id.Queue(name), who.Name)
}

// mayLend refuses who is not to lend of a queue.
func (z *Core) mayLend(who peer.User, lender string) error {
	if z.administers(who, lender) {
		return nil
	}
	_, admin := z.lists(lender)
	return denied("%s may not lend what queue %s is guaranteed; ask an administrator of the queue (%s)", who, lender, administrators(admin))
}

// mayChange refuses who neither owns an app nor looks after its queue. doing is a verb: scale.
func (z *Core) mayChange(who peer.User, a *app, doing string) error {
	owner, queue := a.record.GetUser(), a.record.GetSpec().GetQueue()
	if owner != "" && owner == who.Name || z.administers(who, queue) {
		return nil
	}
	_, admin := z.lists(queue)
	if owner == "" {
		return denied("%s may not %s %s; ask an administrator of queue %s (%s)", who, doing, a.record.GetName(), queue, administrators(admin))
	}
	return denied("%s may not %s %s, which is user %q's; ask that user, or an administrator of queue %s (%s)",
		who, doing, a.record.GetName(), owner, queue, administrators(admin))
}

// changeable finds an app that somebody wants to change.
func (z *Core) changeable(who peer.User, name, doing string) (*app, error) {
	a, err := z.app(name)
	if err != nil {
		return nil, err
	}
	return a, z.mayChange(who, a, doing)
}

// mayOperate refuses who is not to change what all queues share: the tree itself and the nodes. As long as no queue has a
// list it is everybody's; otherwise anybody could do away with the lists.
func (z *Core) mayOperate(who peer.User, doing string) error {
	if who.Operator {
		return nil
	}
	listed, root := false, z.rootQueue()
	for _, usage := range z.core.Queues() {
		listed = listed || len(usage.Spec.Submit)+len(usage.Spec.Admin) > 0
	}
	if !listed || slices.Contains(root.Admin, who.Name) {
		return nil
	}
	return denied("%s may not %s; ask an administrator of queue %s (%s)", who, doing, root.Name, administrators(root.Admin))
}

// mayRunPrograms refuses what runs as root, as the kernel sees it, of who is no operator, nor named to look after the whole
// zone: a framework's programs of the nodes are whoever's that runs their NodeManagers, and on a node's own network a
// container's root is the machine's. Either may then do everything in the zone. doing is a verb: deploy.
func (z *Core) mayRunPrograms(who peer.User, spec *apiv1.AppSpec, doing string) error {
	root, what := z.rootQueue(), ""
	switch {
	case who.Operator || slices.Contains(root.Admin, who.Name):
		return nil
	case spec.GetKind() == apiv1.AppSpec_FRAMEWORK:
		what = fmt.Sprintf("the framework %s, which runs programs of the nodes themselves", spec.GetName())
	case slices.ContainsFunc(spec.GetRoles(), func(r *apiv1.RoleSpec) bool { return r.GetNetwork() == corev1.ContainerSpec_HOST }):
		what = fmt.Sprintf("%s, which has its nodes' own network, where programs may pass for root", spec.GetName())
	default:
		return nil
	}
	return denied("%s may not %s %s; ask an administrator of queue %s (%s)", who, doing, what, root.Name, administrators(root.Admin))
}

// mayExec refuses who may not run commands in an app. Instances may be of any version that is kept.
func (z *Core) mayExec(who peer.User, name string) error {
	const doing = "run commands in"
	a, err := z.changeable(who, name, doing)
	if err != nil {
		return err
	}
	for _, version := range a.record.GetVersions() {
		if err := z.mayRunPrograms(who, version.GetSpec(), doing); err != nil {
			return err
		}
	}
	return nil
}

// mayJoin refuses a node of who is no operator, nor named to look after the whole zone, lists or not: a node is told the keys
// that leases are signed with, which every other node obeys. Of a zone that others than this machine's programs can connect
// to, whoever is not known here may be a node.
func (z *Core) mayJoin(who peer.User, node string) error {
	root := z.rootQueue()
	if who.Operator || slices.Contains(root.Admin, who.Name) || who.Name == "" && z.settings.AllowInsecure {
		return nil
	}
	return denied("%s may not register node %q, which would be told the keys of the zone; run NodeManagers as root, as the user that runs the zone, or as an administrator of queue %s (%s)",
		who, node, root.Name, administrators(root.Admin))
}

// mayRoute refuses a balancer of who is not to change what all queues share: it says when instances may be stopped, and how
// those of every app fare.
func (z *Core) mayRoute(who peer.User) error {
	if who.Name == "" && z.settings.AllowInsecure {
		return nil
	}
	return z.mayOperate(who, "run a balancer of the zone")
}

func (z *Core) rootQueue() scheduler.QueueSpec {
	for _, usage := range z.core.Queues() {
		if usage.Spec.Parent == "" {
			return usage.Spec
		}
	}
	return scheduler.QueueSpec{}
}

// lists are whom a queue and those above it name.
func (z *Core) lists(name string) (submit, admin []string) {
	specs := map[string]scheduler.QueueSpec{}
	for _, usage := range z.core.Queues() {
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

// byWhom ends a sentence about what somebody did.
func byWhom(who peer.User) string {
	if who.Name == "" {
		return "a person"
	}
	return "user " + strconv.Quote(who.Name)
}
