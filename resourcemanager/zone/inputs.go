package zone

import (
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/peer"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/commands"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/shares"
)

// Input is something that has happened, or that somebody wants, as data. step folds it into the zone and returns the answer for whoever
// it comes from, which is given once the turn is stored. A turn is given nothing else but the time and a seed, so the same inputs make
// the same turn.
type Input interface {
	step(z *Core) (any, error)
}

// Inputs that come from people. Who is always the one who asks.
type (
	Deploy struct {
		Who     peer.User
		Request *apiv1.DeployRequest
	}
	Scale struct {
		Who     peer.User
		Request *apiv1.ScaleAppRequest
	}
	RestartApp struct{ AppRequest }
	StopApp    struct{ AppRequest }
	RemoveApp  struct{ AppRequest }
	Rollback   struct {
		AppRequest
		Version int32
		// Role is the role that goes back; empty: the whole app.
		Role string
	}
	// StartMaster lets a program outside of the zone be the master of an app of this spec.
	StartMaster struct {
		Who  peer.User
		Spec *apiv1.AppSpec
	}
	// Command is for the master of an app. Its answer comes in the Ready of a later turn, for Call.
	Command struct {
		AppRequest
		Command *anypb.Any
		Call    commands.CallID
	}
	Drain struct {
		Who          peer.User
		Node, Reason string
	}
	Undrain struct {
		Who  peer.User
		Node string
	}
	RemoveNode struct {
		Who  peer.User
		Node string
	}
	SetQueues struct {
		Who     peer.User
		Request *apiv1.SetQueuesRequest
	}
	AddContracts struct {
		Who     peer.User
		Request *apiv1.AddContractsRequest
	}
	RemoveContract struct {
		Who  peer.User
		Name string
	}
	LendNow struct {
		Who     peer.User
		Request *apiv1.LendNowRequest
	}
	StopLending struct {
		Who  peer.User
		Name string
	}
	InstallFramework struct {
		Who     peer.User
		Request *apiv1.InstallFrameworkRequest
	}
	RemoveFramework struct {
		Who  peer.User
		Name string
	}
	AcceptLoss struct{ Who peer.User }
	// MoveImage asks whether an image's name may mean another image from now on. It is answered after the inputs before it.
	MoveImage struct {
		Who  peer.User
		Name string
	}
)

// AppRequest is a request of somebody about an app.
type AppRequest struct {
	Who peer.User
	App string
}

func (in Deploy) step(z *Core) (any, error)     { return z.desired.deploy(in.Who, in.Request) }
func (in Scale) step(z *Core) (any, error)      { return z.desired.scale(in.Who, in.Request) }
func (in RestartApp) step(z *Core) (any, error) { return z.desired.restart(in.Who, in.App) }
func (in StopApp) step(z *Core) (any, error)    { return z.desired.stop(in.Who, in.App) }
func (in RemoveApp) step(z *Core) (any, error)  { return z.desired.remove(in.Who, in.App) }
func (in Rollback) step(z *Core) (any, error) {
	return z.versions.rollback(in.Who, in.App, in.Version, in.Role)
}

func (in StartMaster) step(z *Core) (any, error) { return z.desired.startMaster(in.Who, in.Spec) }

func (in Command) step(z *Core) (any, error) {
	return nil, z.masters.command(in.Who, in.App, in.Command, in.Call)
}

func (in Drain) step(z *Core) (any, error) {
	view, err := z.nodes.drain(in.Who, in.Node, in.Reason)
	if err != nil {
		return nil, err
	}
	view.Waiting = z.waits.ofNode(z.nodes.get(id.Node(in.Node))) // for a node that is drained already
	return view, nil
}
func (in Undrain) step(z *Core) (any, error)    { return z.nodes.undrain(in.Who, in.Node) }
func (in RemoveNode) step(z *Core) (any, error) { return z.nodes.remove(in.Who, in.Node) }
func (in SetQueues) step(z *Core) (any, error) {
	return z.queues.Set(in.Who, in.Request, z.apps.queuedApps())
}

func (in InstallFramework) step(z *Core) (any, error) {
	return z.packages.install(in.Who, in.Request)
}

func (in RemoveFramework) step(z *Core) (any, error) { return z.packages.remove(in.Who, in.Name) }

func (in AcceptLoss) step(z *Core) (any, error) { return z.acceptLosses(in.Who) }
func (in MoveImage) step(z *Core) (any, error)  { return nil, z.apps.mayMoveImage(in.Who, in.Name) }

func (in AddContracts) step(z *Core) (any, error) {
	preview, err := z.lending.Add(in.Who, in.Request)
	if err != nil || preview != nil {
		return preview, err
	}
	z.schedule() // so that the answer knows which windows are open
	return z.Contracts(), nil
}

func (in LendNow) step(z *Core) (any, error) {
	if err := z.lending.LendNow(in.Who, in.Request); err != nil {
		return nil, err
	}
	z.schedule()
	return z.Contract(in.Request.GetName())
}

func (in RemoveContract) step(z *Core) (any, error) {
	return nil, z.lending.Remove(in.Who, in.Name)
}

func (in StopLending) step(z *Core) (any, error) {
	if err := z.lending.Stop(in.Who, in.Name); err != nil {
		return nil, err
	}
	z.schedule()
	return z.Contract(in.Name)
}

// Inputs that come from nodes.
type (
	RegisterNode struct {
		Who     peer.User
		Request *trackerv1.RegisterRequest
		// Last is when the node was heard of on the stream that it has. It shows whether the process before is still there.
		Last Beat
	}
	OpenSession struct {
		Session string
		Stream  StreamID
	}
	NodeReport struct {
		Session string
		Report  *trackerv1.NodeReport
	}
	// Beats says when nodes were last heard of. A turn in which deadlines are due has it.
	Beats struct{ Beats []Beat }
	// NodeStreamEnded says that the stream of a node has ended.
	NodeStreamEnded struct {
		Stream StreamID
		Last   Beat
	}
)

func (in RegisterNode) step(z *Core) (any, error) {
	if err := z.access.MayJoin(in.Who, in.Request.GetNodeId()); err != nil {
		return nil, err
	}
	z.sessions.noteHeard(in.Last)
	return z.nodes.register(in.Request)
}

func (in OpenSession) step(z *Core) (any, error) {
	return nil, z.nodes.openStream(in.Session, in.Stream)
}

func (in NodeReport) step(z *Core) (any, error) { return nil, z.nodes.report(in.Session, in.Report) }

func (in Beats) step(z *Core) (any, error) {
	for _, last := range in.Beats {
		z.sessions.noteHeard(last)
	}
	return nil, nil
}

func (in NodeStreamEnded) step(z *Core) (any, error) {
	z.sessions.streamEnded(in.Stream, in.Last)
	return nil, nil
}

// Inputs that come from application masters, which show their bearer token.
type (
	RegisterMaster struct {
		Bearer  string
		Request *masterv1.RegisterRequest
	}
	OpenAllocate struct {
		Bearer string
		Stream StreamID
	}
	Allocate struct {
		Bearer  string
		Stream  StreamID
		Request *masterv1.AllocateRequest
	}
	// MasterStreamEnded says that the stream of a master has ended.
	MasterStreamEnded struct{ Stream StreamID }
	Finish            struct {
		Bearer  string
		Request *masterv1.FinishRequest
	}
	// LeaveMaster ends an attempt, and leaves what it holds to the next one.
	LeaveMaster struct {
		Bearer string
		Reason string
	}
	// PlanAsks asks what would become of asks. It changes nothing.
	PlanAsks struct {
		Bearer  string
		Request *masterv1.PlanRequest
	}
)

func (in RegisterMaster) step(z *Core) (any, error) {
	return z.masters.register(in.Bearer, in.Request)
}

func (in OpenAllocate) step(z *Core) (any, error) {
	return nil, z.masters.open(in.Bearer, in.Stream)
}

func (in PlanAsks) step(z *Core) (any, error) {
	a, err := z.masters.authenticate(in.Bearer)
	if err != nil {
		return nil, err
	}
	asks, err := z.asks.parseAll(a, in.Request.GetAsks())
	if err != nil {
		return nil, err
	}
	return z.explainer.planAsks(a, in.Request.GetQueue(), asks)
}

func (in LeaveMaster) step(z *Core) (any, error) { return nil, z.masters.leave(in.Bearer, in.Reason) }

func (in Finish) step(z *Core) (any, error) { return nil, z.masters.finish(in.Bearer, in.Request) }

func (in Allocate) step(z *Core) (any, error) {
	if err := z.masters.allocate(in.Bearer, in.Stream, in.Request); err != nil {
		z.masters.refuse(in.Stream, err)
	}
	return nil, nil
}

func (in MasterStreamEnded) step(z *Core) (any, error) {
	z.masters.streamEnded(in.Stream)
	return nil, nil
}

// Of balancers.
type (
	BalancerConnected struct{ Balancer string }
	BalancerLost      struct{ Balancer, Why string }
	Refused           struct {
		Balancer string
		Refusals []*companionv1.Refusal
	}
	Counted struct{ Traffic []*companionv1.Traffic }
	// Confirmed is the confirmation that a turn asked for under a number.
	Confirmed struct{ Number int64 }
)

func (in BalancerConnected) step(z *Core) (any, error) {
	z.balancers.Connected(in.Balancer)
	return nil, nil
}

func (in BalancerLost) step(z *Core) (any, error) {
	z.balancers.Disconnected(in.Balancer, in.Why)
	return nil, nil
}

func (in Refused) step(z *Core) (any, error) {
	z.balancers.NoteRefusals(in.Balancer, in.Refusals)
	for _, refusal := range in.Refusals {
		if a := z.apps.withName(specs.AppOf(refusal.GetService())); a != nil {
			z.waits.enqueue(a)
		}
	}
	return nil, nil
}

func (in Counted) step(z *Core) (any, error) {
	for _, count := range in.Traffic {
		z.masters.countTraffic(count)
	}
	return nil, nil
}

func (in Confirmed) step(z *Core) (any, error) {
	z.confirmed(in.Number)
	return nil, nil
}

// Inputs has one of each kind, all empty.
func Inputs() []Input {
	return []Input{
		Deploy{},
		Scale{},
		RestartApp{},
		StopApp{},
		RemoveApp{},
		Rollback{},
		StartMaster{},
		Command{},
		Drain{},
		Undrain{},
		RemoveNode{},
		SetQueues{},
		AddContracts{},
		RemoveContract{},
		LendNow{},
		StopLending{},
		InstallFramework{},
		RemoveFramework{},
		AcceptLoss{},
		MoveImage{},
		RegisterNode{},
		OpenSession{},
		NodeReport{},
		Beats{},
		NodeStreamEnded{},
		RegisterMaster{},
		OpenAllocate{},
		Allocate{},
		MasterStreamEnded{},
		Finish{},
		PlanAsks{},
		LeaveMaster{},
		BalancerConnected{},
		BalancerLost{},
		Refused{},
		Counted{},
		Confirmed{},
		QueueFile{},
		RoomChanged{},
	}
}

// Of the ResourceManager's own process.
type (
	QueueFile struct{ Found shares.FileText }
	// RoomChanged says why the store's disk takes nothing that grows, in a sentence. It is empty when there is room again.
	RoomChanged struct{ Full string }
)

func (in QueueFile) step(z *Core) (any, error) {
	z.queues.Redeclare(in.Found, z.apps.queuedApps())
	return nil, nil
}

func (in RoomChanged) step(z *Core) (any, error) {
	z.damage.roomChanged(in.Full)
	return nil, nil
}
