package term

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/snapshot"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// shown is the zone as its last commit left it, for everybody who lists, looks up and watches. None of it waits for the loop.
type shown struct {
	board *snapshot.Board
	// full is why nothing that grows is taken; nil while there is room.
	full func() error
}

// indicesOfATerm is how many changes a term may show: the indices of the next one are above all of them.
const indicesOfATerm = 1 << 40

func newShown(epoch int64, full func() error) *shown {
	return &shown{board: snapshot.NewBoard(epoch * indicesOfATerm), full: full}
}

// publish shows what a turn has changed, once it is stored. The loop calls it.
func (s *shown) publish(out *zone.Ready, streams *streams) {
	changed := out.Shown()
	objects := make([]*snapshot.Object, len(changed))
	for i, one := range changed {
		objects[i] = objectOf(one, streams)
	}
	s.board.Publish(objects)
}

func objectOf(one zone.Shown, streams *streams) *snapshot.Object {
	o := &snapshot.Object{Gone: one.Gone, Message: one.View}
	switch view := one.View.(type) {
	case *apiv1.App:
		o.Kind, o.Name, o.With = snapshot.Apps, view.GetName(), &service.AppView{App: view}
		o.Facts = snapshot.Facts{State: view.GetState().String(), Queue: view.GetQueue(), App: view.GetName(), User: view.GetUser()}
	case *apiv1.Node:
		o.Kind, o.Name, o.With = snapshot.Nodes, view.GetName(), streams.nodes[one.Stream]
		o.Facts = snapshot.Facts{State: view.GetState().String(), Node: view.GetName()}
		if one.Gone {
			o.Message = nil // that of its last state is shown
		}
	case *apiv1.Container:
		o.Kind, o.Name = snapshot.Containers, view.GetId()
		o.Facts = snapshot.Facts{State: view.GetState().String(), Queue: view.GetQueue(), App: view.GetApp(), Node: view.GetNode()}
	case *apiv1.Queue:
		o.Kind, o.Name = snapshot.Queues, view.GetSpec().GetName()
		o.Facts = snapshot.Facts{State: view.GetSpec().GetState().String(), Queue: o.Name}
	case *apiv1.Contract:
		o.Kind, o.Name = snapshot.Contracts, view.GetSpec().GetName()
		o.Facts = snapshot.Facts{State: view.GetState().String()}
	case *apiv1.Zone:
		o.Kind, o.Name = snapshot.Zone, zoneObject
	}
	o.Rank = one.Rank
	return o
}

// zoneObject is the name of the only object that is a zone.
const zoneObject = "zone"

// ListApps implements service.Apps.
func (s *shown) ListApps(request *apiv1.ListAppsRequest) (service.AppPage, error) {
	now := s.board.Newest()
	if queue := request.GetQueue(); queue != "" && now.Find(snapshot.Queues, queue) == nil {
		return service.AppPage{}, noQueue(queue)
	}
	query := snapshot.Query{
		Kind: snapshot.Apps, Order: orderOr(request, "created"),
		Filter: snapshot.Filter{
			Prefix: request.GetNamePrefix(), Queue: request.GetQueue(), State: stateFilter(request.GetState()), User: request.GetUser(),
		},
	}
	if node := request.GetNode(); node != "" {
		query.Filter.More = func(o *snapshot.Object) bool { return isOn(o.Message.(*apiv1.App), node) }
	}
	page, err := list(now, query, request)
	if err != nil {
		return service.AppPage{}, err
	}
	views := make([]*service.AppView, len(page.Objects))
	for i, o := range page.Objects {
		views[i] = o.With.(*service.AppView)
	}
	return service.AppPage{Apps: views, Next: page.Next, Summary: page.summary}, nil
}

// isOn reports whether an instance of an app, or its master, is on a node. A stopped app still says where its last master was.
func isOn(app *apiv1.App, node string) bool {
	return app.GetMaster().GetNode() == node && app.GetState() != apiv1.App_STOPPED || slices.ContainsFunc(app.GetInstances(), func(i *apiv1.Instance) bool { return i.GetNode() == node })
}

// AllApps are all apps, in the order of their names.
func (s *shown) AllApps() []*apiv1.App { return allOf[*apiv1.App](s.board.Newest(), snapshot.Apps) }

// AllNodes are all nodes, in the order of their names.
func (s *shown) AllNodes() []*apiv1.Node { return allOf[*apiv1.Node](s.board.Newest(), snapshot.Nodes) }

func allOf[M proto.Message](now *snapshot.Snapshot, kind snapshot.Kind) []M {
	all := make([]M, 0, now.Count(kind))
	now.All(kind, func(o *snapshot.Object) bool {
		all = append(all, o.Message.(M))
		return true
	})
	return all
}

// App implements service.Apps.
func (s *shown) App(name string) (*service.AppView, error) {
	if o := s.board.Newest().Find(snapshot.Apps, name); o != nil {
		return o.With.(*service.AppView), nil
	}
	return nil, fmt.Errorf("no app is named %q; \"mammoth app ls\" lists those that there are: %w", name, errdefs.ErrNotFound)
}

// Nodes implements service.Zone.
func (s *shown) Nodes(request *apiv1.ListNodesRequest) (*apiv1.ListNodesResponse, error) {
	query := snapshot.Query{
		Kind: snapshot.Nodes, Order: orderOr(request, "name"),
		Filter: snapshot.Filter{Prefix: request.GetNamePrefix(), State: stateFilter(request.GetState())},
	}
	if app := request.GetApp(); app != "" {
		query.Filter.More = func(o *snapshot.Object) bool {
			return slices.ContainsFunc(o.Message.(*apiv1.Node).GetContainers(), func(c *apiv1.NodeContainer) bool { return c.GetApp() == app })
		}
	}
	page, err := list(s.board.Newest(), query, request)
	if err != nil {
		return nil, err
	}
	response := &apiv1.ListNodesResponse{NextPageToken: page.Next, Summary: page.summary}
	for _, o := range page.Objects {
		response.Nodes = append(response.Nodes, nodeOf(o))
	}
	return response, nil
}

// Node implements service.Zone.
func (s *shown) Node(name string) (*apiv1.Node, error) {
	if o := s.board.Newest().Find(snapshot.Nodes, name); o != nil {
		return nodeOf(o), nil
	}
	return nil, fmt.Errorf("no node is named %q; \"mammoth node ls\" lists those that there are: %w", name, errdefs.ErrNotFound)
}

// nodeOf is a node with the time of its last beat, of which the loop hears once a tick only.
func nodeOf(o *snapshot.Object) *apiv1.Node {
	node := o.Message.(*apiv1.Node)
	session, _ := o.With.(*session)
	if session == nil {
		return node
	}
	last := session.lastBeat().At
	if !last.After(node.GetLastReportAt().AsTime()) {
		return node
	}
	fresh := &apiv1.Node{}
	node.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		fresh.ProtoReflect().Set(field, value)
		return true
	})
	fresh.LastReportAt = timestamppb.New(last)
	return fresh
}

// Containers implements service.Zone.
func (s *shown) Containers(request *apiv1.ListContainersRequest) (*apiv1.ListContainersResponse, error) {
	page, err := list(s.board.Newest(), snapshot.Query{
		Kind: snapshot.Containers, Order: orderOr(request, "name"),
		Filter: snapshot.Filter{
			App: request.GetApp(), Node: request.GetNode(), Queue: request.GetQueue(), State: stateFilter(request.GetState()),
		},
	}, request)
	if err != nil {
		return nil, err
	}
	response := &apiv1.ListContainersResponse{NextPageToken: page.Next, Summary: page.summary}
	for _, o := range page.Objects {
		response.Containers = append(response.Containers, o.Message.(*apiv1.Container))
	}
	return response, nil
}

// Container implements service.Zone.
func (s *shown) Container(id string) (*apiv1.Container, error) {
	if o := s.board.Newest().Find(snapshot.Containers, id); o != nil {
		return o.Message.(*apiv1.Container), nil
	}
	return nil, fmt.Errorf("no container %q is held; \"mammoth container ls\" lists those that are: %w", id, errdefs.ErrNotFound)
}

// Queues implements service.Zone.
func (s *shown) Queues() []*apiv1.Queue {
	return inRank[*apiv1.Queue](s.board.Newest(), snapshot.Queues)
}

// Queue implements service.Zone.
func (s *shown) Queue(name string) (*apiv1.Queue, error) {
	if o := s.board.Newest().Find(snapshot.Queues, name); o != nil {
		return o.Message.(*apiv1.Queue), nil
	}
	return nil, noQueue(name)
}

func noQueue(name string) error {
	return fmt.Errorf("no queue is named %q; \"mammoth queue ls\" lists those that there are: %w", name, errdefs.ErrNotFound)
}

// Contracts implements service.Lending.
func (s *shown) Contracts() *apiv1.ListContractsResponse {
	return &apiv1.ListContractsResponse{Contracts: inRank[*apiv1.Contract](s.board.Newest(), snapshot.Contracts)}
}

// Contract implements service.Lending.
func (s *shown) Contract(name string) (*apiv1.Contract, error) {
	if o := s.board.Newest().Find(snapshot.Contracts, name); o != nil {
		return o.Message.(*apiv1.Contract), nil
	}
	return nil, fmt.Errorf("no lending contract is named %q; \"mammoth lend ls\" lists those that there are: %w", name, errdefs.ErrNotFound)
}

// inRank are all objects of a kind of which there are few, in the order of their ranks.
func inRank[M proto.Message](now *snapshot.Snapshot, kind snapshot.Kind) []M {
	var objects []*snapshot.Object
	now.All(kind, func(o *snapshot.Object) bool { objects = append(objects, o); return true })
	slices.SortStableFunc(objects, func(a, b *snapshot.Object) int { return int(a.Rank - b.Rank) })
	all := make([]M, len(objects))
	for i, o := range objects {
		all[i] = o.Message.(M)
	}
	return all
}

// Zone implements service.Zone. What nodes have and use is summed up here, for the loop need not.
func (s *shown) Zone() *apiv1.Zone {
	now := s.board.Newest()
	view := &apiv1.Zone{}
	if o := now.Find(snapshot.Zone, zoneObject); o != nil {
		view = proto.CloneOf(o.Message.(*apiv1.Zone))
	}
	view.Nodes, view.Apps = int32(now.Count(snapshot.Nodes)), int32(now.Count(snapshot.Apps))
	view.Capacity, view.Used = &corev1.Resources{}, &corev1.Resources{}
	now.All(snapshot.Nodes, func(o *snapshot.Object) bool {
		node := o.Message.(*apiv1.Node)
		view.Containers += int32(len(node.GetContainers()))
		addTo(view.Used, node.GetUsed())
		if lifecycle.NodeState(node.GetState()).Answers() {
			addTo(view.Capacity, node.GetCapacity())
		}
		return true
	})
	if err := s.full(); err != nil {
		view.Full = wire.Sentence(err)
	}
	return view
}

func addTo(sum, more *corev1.Resources) {
	sum.CpuMillis += more.GetCpuMillis()
	sum.MemoryBytes += more.GetMemoryBytes()
	sum.DiskBytes += more.GetDiskBytes()
	sum.Ports += more.GetPorts()
	for name, n := range more.GetExtended() {
		if sum.Extended == nil {
			sum.Extended = map[string]int64{}
		}
		sum.Extended[name] += n
	}
}

// paged is what all lists are asked for.
type paged interface {
	GetPageSize() int32
	GetPageToken() string
	GetOrderBy() string
	GetDescending() bool
	GetSummarize() bool
}

// listed is a page with its summary as it is sent; nil if nobody has asked for it.
type listed struct {
	snapshot.Page
	summary *apiv1.ListSummary
}

func list(now *snapshot.Snapshot, query snapshot.Query, request paged) (listed, error) {
	query.Descending, query.Size, query.Token, query.Sum = request.GetDescending(), int(request.GetPageSize()), request.GetPageToken(), request.GetSummarize()
	page, err := now.List(query)
	if err != nil || !query.Sum {
		return listed{Page: page}, err
	}
	summary := &apiv1.ListSummary{Total: int32(page.Total), States: map[string]int32{}}
	for state, n := range page.States {
		summary.States[state] = int32(n)
	}
	return listed{page, summary}, nil
}

func orderOr(request paged, order string) string {
	if request.GetOrderBy() != "" {
		return request.GetOrderBy()
	}
	return order
}

// stateFilter is a state as Facts have it; empty if any will do.
func stateFilter[S interface {
	~int32
	String() string
}](state S) string {
	if state == 0 {
		return ""
	}
	return state.String()
}

// WatchApp implements service.Apps.
func (s *shown) WatchApp(name string) (service.Stream[*service.AppView], error) {
	now := s.board.Newest()
	o := now.Find(snapshot.Apps, name)
	if o == nil {
		_, err := s.App(name)
		return nil, err
	}
	selection := snapshot.Selection{Kinds: []snapshot.Kind{snapshot.Apps}, Names: []string{name}}
	return &appWatcher{changes: s.board.Watch(selection, now.Index), app: o.With.(*service.AppView), unsent: true}, nil
}

// appWatcher is the stream of somebody who watches an app.
type appWatcher struct {
	changes *snapshot.Watcher
	app     *service.AppView
	// unsent says that the reader has not been given the app, gone that it was given its last state. missing says that the app has not
	// been seen since the watch began again.
	unsent, gone, missing bool
}

// errGone ends the watch of an app that was removed.
var errGone = fmt.Errorf("the app is removed: %w", errdefs.ErrNotFound)

// Next implements service.Stream.
func (w *appWatcher) Next(ctx context.Context) ([]*service.AppView, error) {
	for !w.unsent {
		if w.gone {
			return nil, errGone
		}
		batch, err := w.changes.Next(ctx)
		if err != nil {
			return nil, err
		}
		w.take(batch)
	}
	w.unsent = false
	return []*service.AppView{w.app}, nil
}

// take takes in what has changed, up to the end of the app: one that has its name since is another.
func (w *appWatcher) take(batch snapshot.Batch) {
	w.missing = w.missing || batch.Restarted
	for _, change := range batch.Changes {
		w.missing = false
		view := change.With.(*service.AppView)
		if view.App.GetId() != w.app.App.GetId() {
			w.gone = true
			return
		}
		w.app, w.unsent = view, true
		if w.gone = change.Left; w.gone {
			return
		}
	}
	w.gone = w.missing && batch.Current
}

// Close implements service.Stream: a watcher holds nothing.
func (w *appWatcher) Close() {}
