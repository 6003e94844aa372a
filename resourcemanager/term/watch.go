package term

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/snapshot"
)

// mostNames is how many names a watcher may give.
const mostNames = 100

// watchKinds are the kinds that can be watched.
var watchKinds = map[apiv1.WatchRequest_Kind]snapshot.Kind{
	apiv1.WatchRequest_APP: snapshot.Apps, apiv1.WatchRequest_NODE: snapshot.Nodes, apiv1.WatchRequest_CONTAINER: snapshot.Containers,
	apiv1.WatchRequest_QUEUE: snapshot.Queues, apiv1.WatchRequest_CONTRACT: snapshot.Contracts,
}

// Watch implements service.Zone.
func (s *shown) Watch(request *apiv1.WatchRequest) (service.Stream[*apiv1.WatchResponse], error) {
	if n := len(request.GetNames()); n > mostNames {
		return nil, fmt.Errorf("%d names are more than the %d that one watch may have; watch all with a common prefix, or open several: %w", n, mostNames, errdefs.ErrInvalidArgument)
	}
	if request.GetIndex() < 0 {
		return nil, fmt.Errorf("%d is no index; leave it out to begin with what there is: %w", request.GetIndex(), errdefs.ErrInvalidArgument)
	}
	selection := snapshot.Selection{Names: request.GetNames(), Filter: snapshot.Filter{
		Prefix: request.GetNamePrefix(), Queue: request.GetQueue(), App: request.GetApp(), Node: request.GetNode(), User: request.GetUser(),
	}}
	kinds := request.GetKinds()
	if len(kinds) == 0 {
		kinds = []apiv1.WatchRequest_Kind{
			apiv1.WatchRequest_APP, apiv1.WatchRequest_NODE, apiv1.WatchRequest_CONTAINER, apiv1.WatchRequest_QUEUE, apiv1.WatchRequest_CONTRACT,
		}
	}
	for _, kind := range kinds {
		known, ok := watchKinds[kind]
		if !ok {
			return nil, fmt.Errorf("%s cannot be watched; take APP, NODE, CONTAINER, QUEUE or CONTRACT: %w", kind, errdefs.ErrInvalidArgument)
		}
		selection.Kinds = append(selection.Kinds, known)
	}
	return &zoneWatcher{s.board.Watch(selection, request.GetIndex())}, nil
}

// zoneWatcher is the stream of somebody who watches objects of the zone.
type zoneWatcher struct{ changes *snapshot.Watcher }

// Next implements service.Stream.
func (w *zoneWatcher) Next(ctx context.Context) ([]*apiv1.WatchResponse, error) {
	batch, err := w.changes.Next(ctx)
	if err != nil {
		return nil, err
	}
	response := &apiv1.WatchResponse{Index: batch.Index, Current: batch.Current, Restarted: batch.Restarted}
	for _, change := range batch.Changes {
		response.Changes = append(response.Changes, changeOf(change))
	}
	return []*apiv1.WatchResponse{response}, nil
}

func changeOf(change snapshot.Change) *apiv1.WatchResponse_Change {
	said := &apiv1.WatchResponse_Change{Name: change.Name, Removed: change.Left}
	switch object := change.Message.(type) {
	case *apiv1.App:
		said.Kind, said.Object = apiv1.WatchRequest_APP, &apiv1.WatchResponse_Change_App{App: object}
	case *apiv1.Node:
		said.Kind, said.Object = apiv1.WatchRequest_NODE, &apiv1.WatchResponse_Change_Node{Node: nodeOf(change.Object)}
	case *apiv1.Container:
		said.Kind, said.Object = apiv1.WatchRequest_CONTAINER, &apiv1.WatchResponse_Change_Container{Container: object}
	case *apiv1.Queue:
		said.Kind, said.Object = apiv1.WatchRequest_QUEUE, &apiv1.WatchResponse_Change_Queue{Queue: object}
	case *apiv1.Contract:
		said.Kind, said.Object = apiv1.WatchRequest_CONTRACT, &apiv1.WatchResponse_Change_Contract{Contract: object}
	}
	return said
}

// Close implements service.Stream: a watcher holds nothing.
func (w *zoneWatcher) Close() {}
