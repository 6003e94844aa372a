// Package service has the ResourceManager's gRPC and REST servers. They translate and check requests and hand them to the
// loop; they decide nothing. Calls that block (image look-ups, logs, exec) stay here.
//
// The interfaces (Apps, Zone, Frameworks, Lending, Tracker, Masters) are what the loop does for each kind of client; a Stream is what
// the loop sends to one reader.
//
// It owns the streams of callers while they are open, and nothing of the zone.
package service

import (
	"context"
	"net/http"

	"google.golang.org/grpc"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/images"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// Apps is the part of the loop for apps. A method that changes something returns after that is stored. Errors are sentences of the
// errdefs classes. AppViews are shared and must not be changed; the caller owns all else that is returned.
type Apps interface {
	// Deploy needs a complete spec; see Complete. It fails with errdefs.ErrNotFound if the queue does not exist.
	Deploy(ctx context.Context, request *apiv1.DeployRequest) (*apiv1.DeployResponse, error)
	// ListApps, App and WatchApp show apps as the last commit left them, and do not wait.
	ListApps(request *apiv1.ListAppsRequest) (AppPage, error)
	App(name string) (*AppView, error)
	// WatchApp streams the app now and after changes. A slow reader gets the newest state only.
	WatchApp(name string) (Stream[*AppView], error)
	Scale(ctx context.Context, request *apiv1.ScaleAppRequest) (*apiv1.App, error)
	Restart(ctx context.Context, name string) (*apiv1.App, error)
	Stop(ctx context.Context, name string) (*apiv1.App, error)
	Remove(ctx context.Context, name string) (*apiv1.App, error)
	Rollback(ctx context.Context, name string, version int32, role string) (*apiv1.App, error)
	// StartMaster begins an attempt of an app whose master is outside of the zone; it needs a complete spec.
	StartMaster(ctx context.Context, spec *apiv1.AppSpec) (*apiv1.StartMasterResponse, error)
	// Command hands a command to an app's master and waits for its answer.
	Command(ctx context.Context, request *apiv1.CommandAppRequest) (*apiv1.CommandAppResponse, error)
	History(ctx context.Context, name string) (*apiv1.AppHistory, error)
	Explain(ctx context.Context, name string) (*apiv1.Explanation, error)
	// MayExec returns an error if the caller may not run commands in an app.
	MayExec(ctx context.Context, name string) error
	// Targets returns the started containers that match. Those of one instance are adjacent, the oldest first.
	Targets(ctx context.Context, which zone.Containers) ([]zone.Target, error)
}

// Zone is the part of the loop for nodes, queues and the zone.
type Zone interface {
	Shown
	Drain(ctx context.Context, name, reason string) (*apiv1.Node, error)
	Undrain(ctx context.Context, name string) (*apiv1.Node, error)
	// RemoveNode removes a node that does not answer, and returns its last state.
	RemoveNode(ctx context.Context, name string) (*apiv1.Node, error)
	SetQueues(ctx context.Context, request *apiv1.SetQueuesRequest) (*apiv1.ListQueuesResponse, error)
	// AcceptLoss lets a zone with lost records continue. It does nothing in another zone.
	AcceptLoss(ctx context.Context) (*apiv1.AcceptLossResponse, error)
	// ImageUnused returns an error if the present version of an app uses an image by this name and digest.
	ImageUnused(ctx context.Context, name, digest string) error
	// MayRoute returns an error if the caller may not be a balancer.
	MayRoute(ctx context.Context) error
	// Events returns the stored events that match and, with follow, later ones; without follow the stream ends with io.EOF. A reader costs
	// no more than its position.
	Events(request *apiv1.WatchEventsRequest) Stream[*apiv1.Event]
}

// Shown is the zone as the last commit left it. No method waits for the loop. What is returned must not be changed.
type Shown interface {
	Zone() *apiv1.Zone
	// Lists are refused with errdefs.ErrInvalidArgument for a page, a token or an order that cannot be.
	Nodes(request *apiv1.ListNodesRequest) (*apiv1.ListNodesResponse, error)
	Node(name string) (*apiv1.Node, error)
	Containers(request *apiv1.ListContainersRequest) (*apiv1.ListContainersResponse, error)
	Container(id string) (*apiv1.Container, error)
	// Queues returns all: behind each queue the ones below it.
	Queues() []*apiv1.Queue
	Queue(name string) (*apiv1.Queue, error)
	// Watch streams what there is and what changes. A slow reader skips states, and costs no more than its position.
	Watch(request *apiv1.WatchRequest) (Stream[*apiv1.WatchResponse], error)
}

// Tracker is the part of the loop for NodeManagers. errdefs.ErrAborted means that the node has to register again.
type Tracker interface {
	RegisterNode(ctx context.Context, request *trackerv1.RegisterRequest) (*trackerv1.RegisterResponse, error)
	// OpenSession opens the stream of commands to a node.
	OpenSession(ctx context.Context, session string, stream NodeStream) (NodeSession, error)
}

// NodeStream is a node's end of its Session stream.
type NodeStream interface {
	// Send may wait for the node; it is called by one goroutine at a time.
	Send(command *trackerv1.NodeCommand) error
	// End ends the stream, and every Send and Recv that waits on it, with a reason for the node. It does not wait. It may be
	// repeated.
	End(why error)
}

// NodeSession is the loop's end of a Session stream.
type NodeSession interface {
	// Beat records that the node is alive. It does not wait.
	Beat() error
	// Report hands over what has changed on the node, and returns after it is stored.
	Report(ctx context.Context, report *trackerv1.NodeReport) error
	// Close ends the stream. Nothing is sent after it returns. It may be repeated.
	Close()
}

// Masters is the part of the loop for application masters. bearer is the attempt's token.
type Masters interface {
	RegisterMaster(ctx context.Context, bearer string, request *masterv1.RegisterRequest) (*masterv1.RegisterResponse, error)
	OpenAllocate(ctx context.Context, bearer string) (MasterStream, error)
	LeaveMaster(ctx context.Context, bearer, reason string) error
	PlanAsks(ctx context.Context, bearer string, request *masterv1.PlanRequest) (*masterv1.PlanResponse, error)
	Finish(ctx context.Context, bearer string, request *masterv1.FinishRequest) error
}

// MasterStream is one Allocate stream.
type MasterStream interface {
	Stream[*masterv1.AllocateResponse]
	// Allocate hands over a request. It waits while too many are not stored. Requests are applied in order; a refused one
	// ends the stream with the reason.
	Allocate(ctx context.Context, request *masterv1.AllocateRequest) error
}

// Stream is what the loop sends to one reader.
type Stream[T any] interface {
	// Next waits for values and returns all that are queued. It fails with the reason when the stream is over.
	Next(ctx context.Context) ([]T, error)
	// Close ends the reading. It may be repeated.
	Close()
}

// Images is the zone's image store. Its methods may block on the disk.
type Images interface {
	// Resolve finds NAME:TAG or NAME@DIGEST: the digest of the manifest that nodes pull, and the image's config.
	Resolve(ctx context.Context, name string) (manifestDigest string, config images.Config, err error)
	List(ctx context.Context) ([]*apiv1.Image, error)
	StoredBytes() (int64, error)
	Remove(ctx context.Context, name string) (freed int64, err error)
	// Handler serves uploads under /v1/uploads and the OCI distribution API under /v2/.
	Handler() http.Handler
}

// Config has what the servers depend on.
type Config struct {
	Apps       Apps
	Zone       Zone
	Frameworks Frameworks
	Lending    Lending
	Tracker    Tracker
	Masters    Masters
	Images     Images
	Registry   apiv1.RegistryServer
	// Companions serves balancers and copies of the registry.
	Companions companionv1.CompanionsServer
	// AllowHostNetwork lets apps use their node's network.
	AllowHostNetwork bool
	// Dial connects to a node's ContainerManager; nil is credentials.Dial.
	Dial func(address string) (*grpc.ClientConn, error)
}

// Register adds every service to a server.
func Register(server *grpc.Server, config Config) {
	apiv1.RegisterAppsServer(server, &apps{
		loop: config.Apps, frameworks: config.Frameworks, images: config.Images, hostNetwork: config.AllowHostNetwork, dial: config.Dial,
		reading: make(chan struct{}, readAtOnce),
	})
	apiv1.RegisterFrameworksServer(server, &frameworks{
		loop: config.Frameworks, apps: config.Apps, images: config.Images, hostNetwork: config.AllowHostNetwork,
	})
	apiv1.RegisterNodesServer(server, &nodes{loop: config.Zone})
	apiv1.RegisterContainersServer(server, &containers{loop: config.Zone})
	apiv1.RegisterQueuesServer(server, &queues{loop: config.Zone})
	apiv1.RegisterLendingServer(server, &lending{loop: config.Lending})
	apiv1.RegisterEventsServer(server, &events{loop: config.Zone})
	apiv1.RegisterZonesServer(server, &zones{loop: config.Zone})
	apiv1.RegisterImagesServer(server, &imageList{loop: config.Zone, store: config.Images})
	apiv1.RegisterRegistryServer(server, config.Registry)
	companionv1.RegisterCompanionsServer(server, &companions{CompanionsServer: config.Companions, loop: config.Zone})
	trackerv1.RegisterResourceTrackerServer(server, &tracker{loop: config.Tracker})
	masterv1.RegisterApplicationMasterServer(server, &masters{loop: config.Masters})
}
