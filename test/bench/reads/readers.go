package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// startReaders has watchers watch and lists read until ctx ends. The function that it returns waits for them.
func startReaders(ctx context.Context, o options, connections []*grpc.ClientConn, l *load) func(*seen) error {
	group, ctx := errgroup.WithContext(ctx)
	lists, tells := &durations{}, &durations{}
	began := time.Now()
	var watching sync.WaitGroup
	for i := range o.watchers {
		watching.Add(1)
		app := l.masters[i%min(busyApps, len(l.masters))].app
		group.Go(func() error {
			return over(ctx, watchContainers(ctx, connections[i%len(connections)], app, began, tells, watching.Done))
		})
	}
	group.Go(func() error { return over(ctx, readLists(ctx, connections[0], lists)) })
	watching.Wait()
	return func(into *seen) error {
		err := group.Wait()
		into.lists.all, into.lists.sorted = append(into.lists.all, lists.all...), false
		into.tells.all, into.tells.sorted = append(into.tells.all, tells.all...), false
		return err
	}
}

// over takes what fails once it is over for its end.
func over(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// watchContainers notes how long after its grant each new container of an app is seen. It calls begun once it knows what there was.
func watchContainers(ctx context.Context, connection *grpc.ClientConn, app string, began time.Time, tells *durations, begun func()) error {
	begun = sync.OnceFunc(begun)
	defer begun()
	stream, err := apiv1.NewZonesClient(connection).Watch(ctx, &apiv1.WatchRequest{Kinds: []apiv1.WatchRequest_Kind{apiv1.WatchRequest_CONTAINER}, App: app})
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	current := false
	for {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		now := time.Now()
		for _, change := range answer.GetChanges() {
			granted := change.GetContainer().GetGrantedAt().AsTime()
			if fresh := !seen[change.GetName()] && !change.GetRemoved(); fresh && current && granted.After(began) {
				tells.add(now.Sub(granted))
			}
			seen[change.GetName()] = true
		}
		if answer.GetCurrent() {
			current = true
			begun()
		}
	}
}

// readLists reads pages of all lists in turn, fifty in a second.
func readLists(ctx context.Context, connection *grpc.ClientConn, lists *durations) error {
	apps, nodes, containers := apiv1.NewAppsClient(connection), apiv1.NewNodesClient(connection), apiv1.NewContainersClient(connection)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	appsAt, nodesAt, containersAt := "", "", ""
	reads := []func() error{
		func() error {
			page, err := apps.ListApps(ctx, &apiv1.ListAppsRequest{PageToken: appsAt})
			appsAt = page.GetNextPageToken()
			return err
		},
		func() error {
			page, err := nodes.ListNodes(ctx, &apiv1.ListNodesRequest{PageToken: nodesAt, Summarize: true})
			nodesAt = page.GetNextPageToken()
			return err
		},
		func() error {
			page, err := containers.ListContainers(ctx, &apiv1.ListContainersRequest{PageToken: containersAt, Summarize: true})
			containersAt = page.GetNextPageToken()
			return err
		},
		func() error {
			_, err := apps.ListApps(ctx, &apiv1.ListAppsRequest{NamePrefix: "app-9", OrderBy: "name", Summarize: true})
			return err
		},
		func() error {
			_, err := containers.ListContainers(ctx, &apiv1.ListContainersRequest{App: "app-77", State: corev1.ContainerStatus_RUNNING})
			return err
		},
	}
	for i := 0; ; i++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		began := time.Now()
		if err := reads[i%len(reads)](); err != nil {
			return errors.Join(errors.New("read a list"), err)
		}
		lists.add(time.Since(began))
	}
}
