package resourcemanager

import (
	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// input is something that has happened, or that somebody wants, as data. step folds it into the zone and gives the answer to
// whoever it comes from, who is told once the turn is stored. A turn is given nothing else but the time and a seed, so the same
// inputs make the same turn.
type input interface {
	step(z *zone) (any, error)
}

// Of people. who is always whoever wants it.
type (
	deployInput struct {
		who     peer.User
		request *apiv1.DeployRequest
	}
	scaleInput struct {
		who     peer.User
		request *apiv1.ScaleAppRequest
	}
	restartInput  struct{ appWish }
	stopInput     struct{ appWish }
	removeInput   struct{ appWish }
	pauseInput    struct{ appWish }
	resumeInput   struct{ appWish }
	rollbackInput struct {
		appWish
		version int32
	}
	promoteInput struct {
		appWish
		percent int32
	}
	drainInput struct {
		who          peer.User
		node, reason string
	}
	undrainInput struct {
		who  peer.User
		node string
	}
	removeNodeInput struct {
		who  peer.User
		node string
	}
	setQueuesInput struct {
		who     peer.User
		request *apiv1.SetQueuesRequest
	}
	addContractsInput struct {
		who     peer.User
		request *apiv1.AddContractsRequest
	}
	removeContractInput struct {
		who  peer.User
		name string
	}
	lendNowInput struct {
		who     peer.User
		request *apiv1.LendNowRequest
	}
	stopLendingInput struct {
		who  peer.User
		name string
	}
	acceptLossInput struct{ who peer.User }
	// moveImageInput asks whether an image's name may mean another image from now on. It waits for what is asked before it.
	moveImageInput struct {
		who  peer.User
		name string
	}
)

// appWish is what somebody wants of an app.
type appWish struct {
	who peer.User
	app string
}

func (in deployInput) step(z *zone) (any, error)   { return z.deploy(in.who, in.request) }
func (in scaleInput) step(z *zone) (any, error)    { return z.scale(in.who, in.request) }
func (in restartInput) step(z *zone) (any, error)  { return z.restart(in.who, in.app) }
func (in stopInput) step(z *zone) (any, error)     { return z.stop(in.who, in.app) }
func (in removeInput) step(z *zone) (any, error)   { return z.remove(in.who, in.app) }
func (in pauseInput) step(z *zone) (any, error)    { return z.pause(in.who, in.app) }
func (in resumeInput) step(z *zone) (any, error)   { return z.resume(in.who, in.app) }
func (in rollbackInput) step(z *zone) (any, error) { return z.rollback(in.who, in.app, in.version) }

func (in promoteInput) step(z *zone) (any, error)    { return z.promote(in.who, in.app, in.percent) }
func (in drainInput) step(z *zone) (any, error)      { return z.drain(in.who, in.node, in.reason) }
func (in undrainInput) step(z *zone) (any, error)    { return z.undrain(in.who, in.node) }
func (in removeNodeInput) step(z *zone) (any, error) { return z.removeNode(in.who, in.node) }
func (in setQueuesInput) step(z *zone) (any, error)  { return z.setQueues(in.who, in.request) }
func (in lendNowInput) step(z *zone) (any, error)    { return z.lendNow(in.who, in.request) }
func (in acceptLossInput) step(z *zone) (any, error) { return z.acceptLosses(in.who) }
func (in moveImageInput) step(z *zone) (any, error)  { return nil, z.mayMoveImage(in.who, in.name) }

func (in addContractsInput) step(z *zone) (any, error) { return z.addContracts(in.who, in.request) }
func (in removeContractInput) step(z *zone) (any, error) {
	return nil, z.removeContract(in.who, in.name)
}
func (in stopLendingInput) step(z *zone) (any, error) { return z.stopLending(in.who, in.name) }

// Of nodes.
type (
	registerNodeInput struct {
		who     peer.User
		request *trackerv1.RegisterRequest
		// last is when the node was heard of on the stream that it has, which tells whether the process before is still there.
		last beat
	}
	openSessionInput struct {
		session string
		stream  streamID
	}
	reportInput struct {
		session string
		report  *trackerv1.NodeReport
	}
	// beatsInput says when nodes were last heard of. A turn in which deadlines are due has it.
	beatsInput struct{ beats []beat }
	// nodeLeftInput is about a stream of a node that is over.
	nodeLeftInput struct {
		stream streamID
		last   beat
	}
)

func (in *registerNodeInput) step(z *zone) (any, error) {
	if err := z.mayJoin(in.who, in.request.GetNodeId()); err != nil {
		return nil, err
	}
	z.hear(in.last)
	return z.registerNode(in.request)
}

func (in openSessionInput) step(z *zone) (any, error) {
	return nil, z.openSession(in.session, in.stream)
}

func (in reportInput) step(z *zone) (any, error) { return nil, z.report(in.session, in.report) }

func (in beatsInput) step(z *zone) (any, error) {
	for _, last := range in.beats {
		z.hear(last)
	}
	return nil, nil
}

func (in nodeLeftInput) step(z *zone) (any, error) {
	z.nodeLeft(in.stream, in.last)
	return nil, nil
}

// Of application masters, who show their bearer token.
type (
	registerMasterInput struct {
		bearer  string
		request *masterv1.RegisterRequest
	}
	openAllocateInput struct {
		bearer string
		stream streamID
	}
	allocateInput struct {
		bearer  string
		stream  streamID
		request *masterv1.AllocateRequest
	}
	// masterLeftInput is about a stream of a master that is over.
	masterLeftInput struct{ stream streamID }
	finishInput     struct {
		bearer  string
		request *masterv1.FinishRequest
	}
)

func (in registerMasterInput) step(z *zone) (any, error) {
	return z.registerMaster(in.bearer, in.request)
}

func (in openAllocateInput) step(z *zone) (any, error) {
	return nil, z.openAllocate(in.bearer, in.stream)
}

func (in finishInput) step(z *zone) (any, error) { return nil, z.finish(in.bearer, in.request) }

func (in allocateInput) step(z *zone) (any, error) {
	if err := z.allocate(in.bearer, in.stream, in.request); err != nil {
		z.refuseStream(in.stream, err)
	}
	return nil, nil
}

func (in masterLeftInput) step(z *zone) (any, error) {
	z.masterLeft(in.stream)
	return nil, nil
}

// Of balancers.
type (
	balancerConnectedInput struct{ balancer string }
	balancerLostInput      struct{ balancer, why string }
	refusedInput           struct {
		balancer string
		refusals []*companionv1.Refusal
	}
	countedInput struct{ traffic []*companionv1.Traffic }
	// confirmedInput is the confirmation that a turn asked for under a number.
	confirmedInput struct{ number int64 }
)

func (in balancerConnectedInput) step(z *zone) (any, error) {
	z.balancerConnected(in.balancer)
	return nil, nil
}

func (in balancerLostInput) step(z *zone) (any, error) {
	z.balancerLost(in.balancer, in.why)
	return nil, nil
}

func (in refusedInput) step(z *zone) (any, error) {
	z.balancerRefuses(in.balancer, in.refusals)
	return nil, nil
}

func (in countedInput) step(z *zone) (any, error) {
	for _, count := range in.traffic {
		z.count(count)
	}
	return nil, nil
}

func (in confirmedInput) step(z *zone) (any, error) {
	z.confirmed(in.number)
	return nil, nil
}

// Of the ResourceManager's own process.
type (
	rotateKeysInput struct{}
	queueFileInput  struct{ found reading }
	// roomInput says why the store's disk takes nothing that grows; nil that it has room again.
	roomInput struct{ full error }
)

func (rotateKeysInput) step(z *zone) (any, error) { return nil, z.rotateKeys() }

func (in queueFileInput) step(z *zone) (any, error) {
	z.redeclare(in.found)
	return nil, nil
}

func (in roomInput) step(z *zone) (any, error) {
	z.roomChanged(in.full)
	return nil, nil
}
