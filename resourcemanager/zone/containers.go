package zone

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/token"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

const (
	// passesPerTurn is how often the scheduler decides, at most, before what it decided is stored and the inbox looked at.
	passesPerTurn = 5
	// startWithin is how long a lease may be started.
	startWithin = 10 * time.Minute
	// startMargin allows for a node whose clock is behind when an unstarted lease is taken back.
	startMargin = time.Minute
	// An ended container is kept so long, and so many of an app, for those who look back: a master that was away,
	// a person who reads its logs.
	keepEnded     = time.Hour
	keepEndedMost = 200
	// An app watch token serves a master's whole life; masters are given a new one with every grant.
	watchFor = 365 * 24 * time.Hour
)

// schedule lets the scheduler decide and writes its decisions down. The next turn comes at once if that was not all.
func (z *Core) schedule() {
	if z.damage.standsStill() {
		return
	}
	decisions := z.scheduler.Schedule(z.now)
	z.decided(decisions)
	for range passesPerTurn - 1 {
		if !decisions.More(z.now) {
			break
		}
		decisions = z.scheduler.Schedule(z.now)
		z.decided(decisions)
	}
	if !decisions.Next.IsZero() {
		z.wakeBy(decisions.Next)
	}
	z.shares.moved()
}

// decided writes down what a pass has decided.
func (z *Core) decided(decisions scheduler.Decisions) {
	for _, grant := range decisions.Grants {
		z.grant(grant)
	}
	// What is taken back and given again in one pass is given.
	for _, cid := range decisions.Cancelled {
		c := z.containers[cid]
		if c == nil || !c.held() || c.notice == nil {
			continue
		}
		c.notice = nil
		z.say(c.app).Preemptions = append(z.say(c.app).Preemptions, &masterv1.PreemptionNotice{ContainerId: c.id.String(), Withdrawn: true})
		z.containerEvent(c, c.state(), c.state(), fmt.Sprintf("%s may stay: its room is not needed any more", c.name()))
	}
	for _, notice := range decisions.Notices {
		c := z.containers[notice.Container]
		if c == nil || !c.held() {
			continue
		}
		c.notice = &masterv1.PreemptionNotice{ContainerId: c.id.String(), Deadline: timestamppb.New(notice.Deadline), Reason: notice.Reason}
		z.say(c.app).Preemptions = append(z.say(c.app).Preemptions, c.notice)
		z.containerEvent(c, c.state(), c.state(), because(fmt.Sprintf("%s is to be gone by %s", c.name(), notice.Deadline.UTC().Format(time.RFC3339)), notice.Reason))
	}
	for _, stop := range decisions.Stops {
		if c := z.containers[stop.Container]; c != nil {
			z.stopContainer(c, corev1.Exit_PREEMPTED, stop.Reason)
		}
	}
}

func (z *Core) grant(grant scheduler.Grant) {
	a, n := z.apps.get(grant.Container.App), z.nodes.get(grant.Node)
	if a == nil || n == nil {
		z.fault("the scheduler granted a container to nobody", "container", grant.Container, "node", grant.Node)
		z.scheduler.apply(scheduler.Release{Container: grant.Container})
		return
	}
	c := &container{id: grant.Container, app: a, node: n.id, record: &storev1.Container{
		Lease: &corev1.Lease{
			ContainerId: grant.Container.String(),
			AppId:       a.id.String(),
			AppName:     a.record.GetName(),
			Attempt:     a.record.GetAttempt().GetNumber(),
			NodeId:      string(n.id),
			Resources:   z.units.resources(grant.Resources),
			Queue:       string(grant.Queue),
			AskId:       grant.Ask,
			Master:      grant.Master,
			GrantedAt:   timestamppb.New(z.now),
			Framework:   a.framework(),
		},
		StartBy: timestamppb.New(z.now.Add(startWithin)), Gang: grant.Gang,
	}}
	state, _ := z.tables.containers.Next(lifecycle.ContainerUnspecified, lifecycle.ContainerGranted)
	c.record.Status = &corev1.ContainerStatus{Lease: c.record.GetLease(), State: corev1.ContainerStatus_State(state)}
	z.index(c)
	z.containerEvent(c, lifecycle.ContainerUnspecified, state, fmt.Sprintf("%s was given to %s on %s", c.id, a.record.GetName(), n.id))
	if grant.Master {
		z.masterGranted(c)
	} else {
		z.askGranted(c)
		z.say(a).Allocated = append(z.say(a).Allocated, z.allocation(c))
	}
	z.containerChanged(c)
}

// index lets a container be found, by everybody while it is held and by its app for a while after.
func (z *Core) index(c *container) {
	z.containers[c.id] = c
	c.app.containers[c.id] = c
	switch lease := c.record.GetLease(); {
	case !c.held():
		c.app.ended = append(c.app.ended, c)
	case !lease.GetMaster():
		c.app.held[lease.GetAskId()]++
	}
	if n := z.nodes.get(c.node); n != nil && c.held() {
		n.containers[c.id] = c
	}
}

// allocation is a held container as its master is told of it.
func (z *Core) allocation(c *container) *masterv1.Allocation {
	n := z.nodes.get(c.node)
	allocation := &masterv1.Allocation{
		Lease: c.record.GetLease(),
		Token: z.sign(&corev1.TokenClaims{
			Scope: corev1.TokenClaims_CONTAINER, Lease: c.record.GetLease(), NodeId: string(c.node), ExpiresAt: c.record.GetStartBy(),
		}),
		Labels: c.record.GetStatus().GetLabels(),
		WatchToken: z.sign(&corev1.TokenClaims{
			Scope: corev1.TokenClaims_APP, AppId: c.app.id.String(), NodeId: string(c.node), ExpiresAt: timestamppb.New(z.now.Add(watchFor)),
		}),
	}
	if n != nil {
		allocation.ContainerManager, allocation.Address = n.record.GetContainerManager(), n.record.GetAddress()
	}
	return allocation
}

func (z *Core) sign(claims *corev1.TokenClaims) *corev1.ContainerToken {
	signed, err := token.Sign(z.signingKey(), claims)
	if err != nil {
		z.fault("sign a container token", "error", err)
	}
	return signed
}

// observe takes what a node says of a container that it was given.
func (z *Core) observe(c *container, status *corev1.ContainerStatus) {
	from := c.state()
	to, ok := z.tables.containers.Next(from, lifecycle.Reported(lifecycle.ContainerState(status.GetState())))
	if !ok || from == lifecycle.ContainerDone {
		return
	}
	// The lease is the ResourceManager's to write; the node only repeats it.
	status.Lease = c.record.GetLease()
	status.State = corev1.ContainerStatus_State(to)
	before := c.record.GetStatus()
	c.record.Status = status
	z.frameworks.note(c)
	switch {
	case to == lifecycle.ContainerDone:
		z.containerDone(c, from)
	case to != from:
		z.containerEvent(c, from, to, because(fmt.Sprintf("%s is %s on %s", c.name(), strings.ToLower(to.String()), c.node), status.GetReason()))
	case before.GetHealth() != status.GetHealth() && status.GetHealth() >= corev1.ContainerStatus_HEALTHY:
		z.containerEvent(c, from, to, because(fmt.Sprintf("%s is %s", c.name(), strings.ToLower(status.GetHealth().String())), status.GetHealthDetail()))
	}
	z.containerChanged(c)
}

// missing is about a container whose node registered anew without it.
func (z *Core) missing(c *container) {
	from := c.state()
	to, ok := z.tables.containers.Next(from, lifecycle.ContainerMissing)
	if !ok || to == from {
		return
	}
	z.endUnseen(c, to, &corev1.Exit{
		Reason: corev1.Exit_VANISHED, Code: -1, Message: fmt.Sprintf("%s registered without it", c.node),
	})
}

// endUnseen ends a container of whose end no node has told.
func (z *Core) endUnseen(c *container, to lifecycle.ContainerState, exit *corev1.Exit) {
	from := c.state()
	// What was sent must not change: a status is replaced, never altered.
	status := proto.CloneOf(c.record.GetStatus())
	status.State, status.Exit = corev1.ContainerStatus_State(to), exit
	c.record.Status = status
	z.containerDone(c, from)
	z.containerChanged(c)
}

// containerDone frees a container's capacity: its node has seen it gone, or does not have it.
func (z *Core) containerDone(c *container, from lifecycle.ContainerState) {
	exit := c.record.GetStatus().GetExit()
	c.record.DoneAt = timestamppb.New(z.now)
	if n := z.nodes.get(c.node); n != nil {
		delete(n.containers, c.id)
		if n.state() == lifecycle.NodeDraining {
			z.wakeBy(z.now)
		}
	}
	c.app.ended = append(c.app.ended, c)
	if lease := c.record.GetLease(); !lease.GetMaster() {
		if c.app.held[lease.GetAskId()]--; c.app.held[lease.GetAskId()] <= 0 {
			delete(c.app.held, lease.GetAskId())
		}
	}
	z.scheduler.apply(scheduler.Release{Container: c.id})
	z.containerEvent(c, from, lifecycle.ContainerDone, fmt.Sprintf("%s ended on %s: %s", c.name(), c.node, exitSentence(exit)))
	if c.record.GetLease().GetMaster() {
		c.record.Acknowledged = true
		z.masterEnded(c, exit)
	} else {
		z.say(c.app).Completed = append(z.say(c.app).Completed, c.record.GetStatus())
		z.askEnded(c)
	}
	z.pruneEnded(c.app)
}

// exitSentence says how a container ended, in the words that people search for.
func exitSentence(exit *corev1.Exit) string {
	var word string
	switch exit.GetReason() {
	case corev1.Exit_EXITED:
		word = fmt.Sprintf("exited with code %d", exit.GetCode())
	case corev1.Exit_OOM_KILLED:
		word = "OOMKilled"
	case corev1.Exit_DISK_QUOTA_EXCEEDED:
		word = "disk quota exceeded"
	case corev1.Exit_STOPPED:
		word = "stopped"
	case corev1.Exit_PREEMPTED:
		word = "preempted"
	case corev1.Exit_LAUNCH_FAILED:
		word = "it could not be launched"
	case corev1.Exit_UNHEALTHY:
		word = "unhealthy"
	case corev1.Exit_NODE_LOST:
		word = "its node was lost"
	case corev1.Exit_LEASE_ENDED:
		word = "its lease had ended"
	case corev1.Exit_VANISHED:
		word = "vanished"
	case corev1.Exit_NODE_FAILED:
		word = "its node could not run it"
	case corev1.Exit_KILLED_FROM_OUTSIDE:
		word = "it was killed from outside Mammoth"
	default:
		word = fmt.Sprintf("ended with code %d", exit.GetCode())
	}
	if strings.HasPrefix(exit.GetMessage(), word) {
		return exit.GetMessage()
	}
	return because(word, exit.GetMessage())
}

// stopContainer has a container ended. It stays held until its node has reported it done.
func (z *Core) stopContainer(c *container, reason corev1.Exit_Reason, message string) {
	if !c.held() || c.record.GetStopping() {
		return
	}
	c.record.Stopping, c.record.StopReason, c.record.StopMessage = true, reason, message
	z.sessions.send(z.nodes.get(c.node), c.stopCommand())
	z.containerEvent(c, c.state(), c.state(), because(fmt.Sprintf("%s is to be stopped", c.name()), message))
	z.containerChanged(c)
}

// stopCommand gives an instance the grace that people want now, not the one that it was started with.
func (c *container) stopCommand() *trackerv1.NodeCommand {
	command := stopCommand(c.id.String(), c.record.GetStopReason(), c.record.GetStopMessage())
	for _, role := range c.app.record.GetSpec().GetRoles() {
		if !c.record.GetLease().GetMaster() && role.GetName() == c.role() {
			command.GetStop().Grace = role.GetStop().GetGrace()
		}
	}
	return command
}

func stopCommand(container string, reason corev1.Exit_Reason, message string) *trackerv1.NodeCommand {
	return &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Stop_{
		Stop: &trackerv1.NodeCommand_Stop{ContainerId: container, Reason: reason, Message: message},
	}}
}

// dueContainers takes back leases that were never started and can no longer be, and drops old ends.
func (z *Core) dueContainers(a *app) {
	var expired []*container
	for _, c := range a.containers {
		// A node that is away may run it and have had no chance to say so.
		n := z.nodes.get(c.node)
		late := z.now.After(c.record.GetStartBy().AsTime().Add(startMargin))
		if c.state() == lifecycle.ContainerNew && late && n != nil && n.registered() {
			expired = append(expired, c)
		}
	}
	slices.SortFunc(expired, byAge)
	for _, c := range expired {
		to, _ := z.tables.containers.Next(c.state(), lifecycle.ContainerExpired)
		z.endUnseen(c, to, &corev1.Exit{
			Reason: corev1.Exit_LAUNCH_FAILED, Code: -1, Message: fmt.Sprintf("it was not started within %s", startWithin),
		})
	}
	z.pruneEnded(a)
}

// pruneEnded drops ended containers that are too old or too many, the oldest first.
func (z *Core) pruneEnded(a *app) {
	for len(a.ended) > 0 {
		oldest := a.ended[0]
		if len(a.ended) <= keepEndedMost && z.now.Sub(oldest.record.GetDoneAt().AsTime()) <= keepEnded {
			return
		}
		a.ended = a.ended[1:]
		z.dropContainer(oldest)
	}
}

func byAge(a, b *container) int { return a.id.Compare(b.id) }

func (z *Core) dropContainer(c *container) {
	delete(z.containers, c.id)
	delete(c.app.containers, c.id)
	z.forget(kindContainer, c.id.String())
}

func (z *Core) containerChanged(c *container) {
	z.save(kindContainer, c.id.String(), c.record)
	z.apps.touch(c.app)
}

func (z *Core) containerEvent(c *container, from, to lifecycle.ContainerState, message string) {
	event := &apiv1.Event{
		Kind: "container", App: c.app.record.GetName(), Instance: c.instance(), Container: c.id.String(),
		Node: string(c.node), Queue: c.record.GetLease().GetQueue(), From: stateName(from), To: to.String(), Message: message,
	}
	if c.record.GetLease().GetMaster() {
		event.Attempt = id.Attempt{App: c.app.id, N: c.record.GetLease().GetAttempt()}.String()
	}
	z.emit(event)
}

func (c *container) state() lifecycle.ContainerState {
	return lifecycle.ContainerState(c.record.GetStatus().GetState())
}

func (c *container) held() bool { return c.state().Held() }

// instance is what its master calls it; empty before it was started.
func (c *container) instance() string { return c.record.GetStatus().GetLabels()["instance"] }

// name is what a person calls it.
func (c *container) name() string {
	switch {
	case c.record.GetLease().GetMaster():
		return fmt.Sprintf("the application master of %s", c.app.record.GetName())
	case c.instance() != "":
		return c.instance()
	}
	return c.id.String()
}

// holdInput is the container as the scheduler is told of it after a restart.
func (z *Core) holdInput(c *container) scheduler.Hold {
	lease := c.record.GetLease()
	v, err := z.units.vector(lease.GetResources())
	if err != nil {
		z.fault("a lease is unreadable", "container", c.id, "error", err)
	}
	return scheduler.Hold{
		Container: c.id, Node: c.node, Resources: v, Ask: lease.GetAskId(), Group: c.record.GetGroup(),
		Master: lease.GetMaster(), StartedAt: lease.GetGrantedAt().AsTime(),
		Duration: c.record.GetDuration().AsDuration(), Gang: c.record.GetGang(), Service: c.record.GetService(),
	}
}
