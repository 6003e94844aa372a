package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/manifest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
)

// fakeZone answers as a zone does, from memory: two nodes, two queues, and an app "web" of three instances. What is
// deployed comes up in three steps, except an image whose name begins with "bad", which fails, and one that begins
// with "stuck", which never comes up.
type fakeZone struct {
	apiv1.UnimplementedAppsServer
	apiv1.UnimplementedNodesServer
	apiv1.UnimplementedQueuesServer
	apiv1.UnimplementedContainersServer
	apiv1.UnimplementedZonesServer
	apiv1.UnimplementedEventsServer
	apiv1.UnimplementedRegistryServer
	apiv1.UnimplementedImagesServer

	mu   sync.Mutex
	apps map[string]*apiv1.App
	// steps are what a watcher of an app is still to be shown.
	steps map[string][]*apiv1.App
	// conflicts is how many more deployments are refused because somebody was faster.
	conflicts int
	// drained counts looks at nodes since one was drained without a reason.
	drained int
	queues  []*apiv1.QueueSpec
	start   time.Time
}

// startFakeZone serves one on a loopback port until stop is called. So many deployments find that somebody was faster.
func startFakeZone(conflicts int) (address string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	z := &fakeZone{conflicts: conflicts, apps: map[string]*apiv1.App{}, steps: map[string][]*apiv1.App{}, start: time.Now()}
	web := &apiv1.AppSpec{Name: "web", Framework: "dynamicdeploy", Queue: "apps", Roles: []*apiv1.RoleSpec{{
		Image: "hello:1.0", ImageDigest: "sha256:0123456789abcdef0123", Instances: 3, Pids: 256,
		Resources: &corev1.Resources{CpuMillis: 500, MemoryBytes: 64 << 20, DiskBytes: 64 << 20},
		Ports:     []*corev1.Port{{Name: "http", ContainerPort: 8080}},
		Env:       map[string]string{"GREETING": "hello"},
	}}}
	z.apps["web"] = z.running(&apiv1.App{Name: "web", Spec: web, Id: "application_1700000000000_0001", Version: 1, Generation: 1, Queue: "apps", CreatedAt: z.ago(3 * time.Hour)}, 3)
	z.apps["shop"] = &apiv1.App{
		Name: "shop", Id: "application_1700000000000_0002", State: apiv1.App_DEGRADED, Reason: "no master is left after 5 failures in 10m",
		Version: 1, Generation: 1, Queue: "apps", Wanted: 2, CreatedAt: z.ago(49 * time.Hour),
		Spec: &apiv1.AppSpec{Name: "shop", Framework: "dynamicdeploy", Roles: []*apiv1.RoleSpec{{Name: "front", Image: "front:1"}, {Name: "back", Image: "back:1"}}},
	}
	server := grpc.NewServer()
	apiv1.RegisterAppsServer(server, z)
	apiv1.RegisterNodesServer(server, z)
	apiv1.RegisterQueuesServer(server, z)
	apiv1.RegisterContainersServer(server, z)
	apiv1.RegisterZonesServer(server, z)
	apiv1.RegisterEventsServer(server, z)
	apiv1.RegisterRegistryServer(server, z)
	apiv1.RegisterImagesServer(server, z)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	return listener.Addr().String(), func() {
		server.Stop()
		serving.Wait()
	}, nil
}

// ago is so long before it is asked, not before the zone was started: who shows it rounds down.
func (*fakeZone) ago(d time.Duration) *timestamppb.Timestamp {
	return timestamppb.New(time.Now().Add(-d))
}

// running gives the app with n instances that run.
func (z *fakeZone) running(app *apiv1.App, n int32) *apiv1.App {
	app = proto.Clone(app).(*apiv1.App)
	app.State, app.Wanted, app.Running = apiv1.App_RUNNING, n, n
	app.ObservedGeneration = app.GetGeneration()
	app.Master = &apiv1.Master{Attempt: 1, State: apiv1.Master_REGISTERED, Node: "node-1"}
	app.Status = statusOf(&dynamicdeployv1.Rollout{State: dynamicdeployv1.Rollout_DONE, Version: app.GetVersion(), Updated: n, Total: n})
	app.Instances = nil
	for i := int32(1); i <= n; i++ {
		app.Instances = append(app.Instances, &apiv1.Instance{
			Id: fmt.Sprintf("%s-%d", app.GetName(), i), ContainerId: fmt.Sprintf("container_e1_1700000000000_0001_%06d", i+10*int32(app.GetGeneration())),
			Node: fmt.Sprintf("node-%d", 1+(i+1)%2), State: apiv1.Instance_RUNNING, Address: "127.0.0.1", Port: 20000 + i, Version: app.GetVersion(),
			Phases: []*corev1.Phase{
				{Name: "download", StartedAt: z.ago(time.Hour), DurationMs: 12, Bytes: 4096},
				{Name: "load", StartedAt: z.ago(time.Hour), DurationMs: 3},
				{Name: "run", StartedAt: z.ago(time.Hour), DurationMs: 250},
			},
			StartedAt: z.ago(time.Hour + time.Hour*3/2),
		})
	}
	return app
}

// come makes app the present one by way of the steps that a person sees.
func (z *fakeZone) come(app *apiv1.App, n int32) *apiv1.App {
	first := proto.Clone(app).(*apiv1.App)
	first.State, first.Wanted = apiv1.App_RUNNING, n
	first.Status = statusOf(&dynamicdeployv1.Rollout{State: dynamicdeployv1.Rollout_PROGRESSING, Version: app.GetVersion(), Total: n})
	first.Instances = nil
	for i := int32(1); i <= n; i++ {
		first.Instances = append(first.Instances, &apiv1.Instance{Id: fmt.Sprintf("%s-%d", app.GetName(), i), State: apiv1.Instance_PENDING, Version: app.GetVersion()})
	}
	second := proto.Clone(first).(*apiv1.App)
	for _, instance := range second.Instances {
		instance.State, instance.Node = apiv1.Instance_STARTING, "node-1"
	}
	image := app.GetSpec().GetRoles()[0].GetImage()
	last := z.running(app, n)
	z.steps[app.GetName()] = []*apiv1.App{first, second, last}
	switch {
	case strings.HasPrefix(image, "stuck"):
		z.steps[app.GetName()] = []*apiv1.App{first}
		last = first
	case strings.HasPrefix(image, "bad"):
		last = proto.Clone(second).(*apiv1.App)
		last.Status = statusOf(&dynamicdeployv1.Rollout{
			State: dynamicdeployv1.Rollout_FAILED, Version: app.GetVersion(), Total: n, Reason: app.GetName() + "-1 exited with code 1 five times in 10m",
		})
		z.steps[app.GetName()] = []*apiv1.App{first, last}
	}
	z.apps[app.GetName()] = last
	return first
}

func (z *fakeZone) find(name string) (*apiv1.App, error) {
	if app := z.apps[name]; app != nil {
		return app, nil
	}
	return nil, status.Errorf(codes.NotFound, "no app is named %q", name)
}

func (z *fakeZone) Deploy(_ context.Context, request *apiv1.DeployRequest) (*apiv1.DeployResponse, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if request.GetManifest() != nil {
		file, err := manifest.ParseApp(request.GetManifest())
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		request.Spec = file.Spec
		for _, role := range file.Spec.GetRoles() {
			role.Image = request.GetImages()[role.GetImage()]
		}
	}
	name, n := request.GetSpec().GetName(), request.GetSpec().GetRoles()[0].GetInstances()
	if request.GetSpec().GetRoles()[0].GetResources().GetMemoryBytes() > 8<<30 {
		return nil, status.Errorf(codes.InvalidArgument, "no node could ever hold an instance: it asks for 16GiB of memory, and the largest node, node-1, has 8GiB")
	}
	if request.GetDryRun() {
		answer := &apiv1.DeployResponse{}
		for i := int32(1); i <= min(n, 2); i++ {
			answer.Placements = append(answer.Placements, &apiv1.PlannedPlacement{Instance: fmt.Sprintf("%s-%d", name, i), Node: fmt.Sprintf("node-%d", i)})
		}
		if n > 2 {
			answer.Explanation = &apiv1.Explanation{Summary: fmt.Sprintf("%d of %d instances would have to wait", n-2, n), Obstacles: []*apiv1.Obstacle{{
				Subject: name + "-3", Count: n - 2, Reason: "no node has room",
				FailedTests: []*apiv1.Obstacle_FailedTest{{Test: "not enough memory", Nodes: 2, Example: "node-2 has 32MiB free of 64MiB asked"}},
			}}}
		}
		return answer, nil
	}
	app := z.apps[name]
	if z.conflicts > 0 {
		z.conflicts--
		return nil, status.Error(codes.Aborted, "somebody else changed the app")
	}
	switch {
	case app == nil:
		app = &apiv1.App{Name: name, Id: "application_1700000000000_0009", CreatedAt: timestamppb.New(z.start)}
	case request.GetIfGeneration() == 0:
		return nil, status.Errorf(codes.AlreadyExists, "an app named %q exists", name)
	case request.GetIfGeneration() > 0 && request.GetIfGeneration() != app.GetGeneration():
		return nil, status.Error(codes.Aborted, "somebody else changed the app")
	}
	app = proto.Clone(app).(*apiv1.App)
	app.Spec, app.Queue = request.GetSpec(), request.GetSpec().GetQueue()
	app.Version++
	app.Generation++
	return &apiv1.DeployResponse{App: z.come(app, n)}, nil
}

func (z *fakeZone) ListApps(_ context.Context, request *apiv1.ListAppsRequest) (*apiv1.ListAppsResponse, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	answer := &apiv1.ListAppsResponse{}
	for _, app := range z.apps {
		if request.GetQueue() == "" || request.GetQueue() == app.GetQueue() {
			answer.Apps = append(answer.Apps, app)
		}
	}
	answer.Apps = slices.DeleteFunc(answer.Apps, func(app *apiv1.App) bool {
		return !strings.HasPrefix(app.GetName(), request.GetNamePrefix()) || request.GetState() != 0 && request.GetState() != app.GetState() ||
			app.GetName() <= request.GetPageToken()
	})
	slices.SortFunc(answer.Apps, func(a, b *apiv1.App) int { return strings.Compare(a.GetName(), b.GetName()) })
	if len(answer.Apps) > 1 { // pages of one app
		answer.Apps, answer.NextPageToken = answer.Apps[:1], answer.Apps[0].GetName()
	}
	return answer, nil
}

// Watch breaks after the first change, and ends after the second.
func (z *fakeZone) Watch(request *apiv1.WatchRequest, stream grpc.ServerStreamingServer[apiv1.WatchResponse]) error {
	if slices.Contains(request.GetKinds(), apiv1.WatchRequest_NODE) {
		return z.watchNode(request.GetNames()[0], stream)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	changed := func(name string, removed bool) *apiv1.WatchResponse_Change {
		return &apiv1.WatchResponse_Change{
			Kind: apiv1.WatchRequest_APP, Name: name, Removed: removed, Object: &apiv1.WatchResponse_Change_App{App: z.apps[name]},
		}
	}
	if request.GetIndex() == 0 {
		for _, response := range []*apiv1.WatchResponse{
			{Restarted: true, Index: 5, Changes: []*apiv1.WatchResponse_Change{changed("shop", false)}},
			{Current: true, Index: 6, Changes: []*apiv1.WatchResponse_Change{changed("web", false)}},
			{Current: true, Index: 7, Changes: []*apiv1.WatchResponse_Change{changed("web", false)}},
		} {
			if err := stream.Send(response); err != nil {
				return err
			}
		}
		return status.Error(codes.Unavailable, "the ResourceManager is stopping")
	}
	if request.GetIndex() == 7 {
		_ = stream.Send(&apiv1.WatchResponse{Current: true, Index: 8, Changes: []*apiv1.WatchResponse_Change{changed("shop", true)}})
	}
	return status.Error(codes.FailedPrecondition, "that was all")
}

// watchNode shows a node ten times a second.
func (z *fakeZone) watchNode(name string, stream grpc.ServerStreamingServer[apiv1.WatchResponse]) error {
	for index := int64(2); ; index++ {
		node, err := z.GetNode(stream.Context(), &apiv1.GetNodeRequest{Name: name})
		if err != nil {
			return err
		}
		change := &apiv1.WatchResponse_Change{Kind: apiv1.WatchRequest_NODE, Name: name, Object: &apiv1.WatchResponse_Change_Node{Node: node}}
		if err := stream.Send(&apiv1.WatchResponse{Index: index, Current: true, Changes: []*apiv1.WatchResponse_Change{change}}); err != nil {
			return err
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (z *fakeZone) ListContainers(_ context.Context, request *apiv1.ListContainersRequest) (*apiv1.ListContainersResponse, error) {
	containers := []*apiv1.Container{
		{
			Id: "container_e1_1700000000000_0001_000001", App: "web", Node: "node-1", Queue: "apps", Master: true, State: corev1.ContainerStatus_RUNNING,
			Resources: &corev1.Resources{CpuMillis: 100, MemoryBytes: 64 << 20, DiskBytes: 32 << 20}, GrantedAt: z.ago(3 * time.Hour),
		},
		{
			Id: "container_e1_1700000000000_0001_000002", App: "web", Instance: "web-1", Node: "node-2", Queue: "apps", State: corev1.ContainerStatus_RUNNING,
			Health: corev1.ContainerStatus_UNHEALTHY, Resources: &corev1.Resources{CpuMillis: 500, MemoryBytes: 64 << 20, DiskBytes: 64 << 20}, GrantedAt: z.ago(2 * time.Hour),
		},
	}
	return &apiv1.ListContainersResponse{Containers: slices.DeleteFunc(containers, func(c *apiv1.Container) bool {
		return request.GetNode() != "" && request.GetNode() != c.GetNode()
	})}, nil
}

func (z *fakeZone) GetApp(_ context.Context, request *apiv1.GetAppRequest) (*apiv1.App, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.find(request.GetName())
}

func (z *fakeZone) GetAppManifest(ctx context.Context, request *apiv1.GetAppRequest) (*apiv1.AppManifest, error) {
	app, err := z.GetApp(ctx, request)
	if err != nil {
		return nil, err
	}
	text, err := manifest.FormatApp(app.GetSpec())
	return &apiv1.AppManifest{Manifest: string(text), Generation: app.GetGeneration()}, err
}

func (z *fakeZone) WatchApp(request *apiv1.GetAppRequest, stream grpc.ServerStreamingServer[apiv1.App]) error {
	z.mu.Lock()
	app, err := z.find(request.GetName())
	steps := z.steps[request.GetName()]
	z.mu.Unlock()
	if err != nil {
		return err
	}
	if len(steps) == 0 {
		steps = []*apiv1.App{app}
	}
	for _, step := range steps {
		if err := stream.Send(step); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// change gives the app a new generation and lets it come up with n instances, n < 0 keeping their number.
func (z *fakeZone) change(name string, n int32, edit func(*apiv1.App)) (*apiv1.App, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	app, err := z.find(name)
	if err != nil {
		return nil, err
	}
	app = proto.Clone(app).(*apiv1.App)
	app.Generation++
	if n < 0 {
		n = app.GetWanted()
	}
	edit(app)
	return z.come(app, n), nil
}

func (z *fakeZone) ScaleApp(_ context.Context, request *apiv1.ScaleAppRequest) (*apiv1.App, error) {
	return z.change(request.GetName(), request.GetInstances(), func(*apiv1.App) {})
}

func (z *fakeZone) RestartApp(_ context.Context, request *apiv1.RestartAppRequest) (*apiv1.App, error) {
	return z.change(request.GetName(), -1, func(*apiv1.App) {})
}

func (z *fakeZone) RollbackApp(_ context.Context, request *apiv1.RollbackAppRequest) (*apiv1.App, error) {
	if request.GetVersion() > 2 {
		return nil, status.Errorf(codes.NotFound, "%q has no version %d", request.GetName(), request.GetVersion())
	}
	return z.change(request.GetName(), -1, func(app *apiv1.App) { app.Version++ })
}

func (z *fakeZone) StopApp(_ context.Context, request *apiv1.StopAppRequest) (*apiv1.App, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	app, err := z.find(request.GetName())
	if err != nil {
		return nil, err
	}
	stopping := proto.Clone(app).(*apiv1.App)
	stopping.State = apiv1.App_STOPPING
	ended := proto.Clone(app).(*apiv1.App)
	ended.State, ended.Instances, ended.Running, ended.Wanted = apiv1.App_STOPPED, nil, 0, 0
	z.steps[app.GetName()], z.apps[app.GetName()] = []*apiv1.App{stopping, ended}, ended
	return stopping, nil
}

func (z *fakeZone) RemoveApp(_ context.Context, request *apiv1.RemoveAppRequest) (*apiv1.App, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	app, err := z.find(request.GetName())
	if err != nil {
		return nil, err
	}
	delete(z.apps, request.GetName())
	app = proto.Clone(app).(*apiv1.App)
	app.State = apiv1.App_REMOVING
	return app, nil
}

func (z *fakeZone) GetAppHistory(_ context.Context, request *apiv1.GetAppRequest) (*apiv1.AppHistory, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	app, err := z.find(request.GetName())
	if err != nil {
		return nil, err
	}
	return &apiv1.AppHistory{Versions: []*apiv1.AppHistory_Version{
		{Version: 1, Cause: "deploy", CreatedAt: z.ago(3 * time.Hour), Spec: app.GetSpec(), Current: true, CameUp: true},
	}, Attempts: []*apiv1.AppHistory_Attempt{
		{
			Number: 1, State: apiv1.Master_FAILED, Node: "node-1", LaunchedAt: z.ago(3 * time.Hour), RegisteredAt: z.ago(3 * time.Hour), EndedAt: z.ago(2 * time.Hour),
			Reason: "it was silent for 1m0s",
		},
		{Number: 2, State: apiv1.Master_REGISTERED, Node: "node-2", LaunchedAt: z.ago(2 * time.Hour), RegisteredAt: z.ago(2 * time.Hour)},
	}}, nil
}

func (z *fakeZone) ExplainApp(_ context.Context, request *apiv1.GetAppRequest) (*apiv1.Explanation, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	app, err := z.find(request.GetName())
	if err != nil {
		return nil, err
	}
	if app.GetRunning() == app.GetWanted() {
		return &apiv1.Explanation{Summary: fmt.Sprintf("all %d instances of %s run", app.GetRunning(), app.GetName())}, nil
	}
	return &apiv1.Explanation{Summary: fmt.Sprintf("%d of %d instances wait for memory", app.GetWanted(), app.GetWanted()), Obstacles: []*apiv1.Obstacle{{
		Subject: app.GetName() + "-1", Count: 1, Reason: "no node has room", Limit: "queue apps is at its maximum of 4 cpu",
		FailedTests: []*apiv1.Obstacle_FailedTest{{Test: "not enough memory", Nodes: 1, Example: "node-2 has 32MiB free of 64MiB asked"}},
	}}}, nil
}

func (z *fakeZone) AppLogs(request *apiv1.AppLogsRequest, stream grpc.ServerStreamingServer[corev1.LogChunk]) error {
	z.mu.Lock()
	app, err := z.find(request.GetName())
	z.mu.Unlock()
	if err != nil {
		return err
	}
	for _, instance := range app.GetInstances() {
		if request.GetInstance() != "" && request.GetInstance() != instance.GetId() {
			continue
		}
		lines := []*corev1.LogChunk_Line{
			{Text: "listening on 8080", Time: timestamppb.New(time.Unix(1_700_000_000, 5_000_000))},
			{Text: "no config, defaults used", Stream: corev1.LogChunk_STDERR, Time: timestamppb.New(time.Unix(1_700_000_001, 0))},
			{Text: "ready", Time: timestamppb.New(time.Unix(1_700_000_002, 0))},
		}
		if tail := int(request.GetTail()); tail > 0 {
			lines = lines[max(0, len(lines)-tail):]
		}
		if err := stream.Send(&corev1.LogChunk{Instance: instance.GetId(), ContainerId: instance.GetContainerId(), Lines: lines}); err != nil {
			return err
		}
	}
	return nil
}

// Exec knows four commands: true, false, cat, and env, which tells the metadata of the call.
func (z *fakeZone) Exec(stream grpc.BidiStreamingServer[corev1.ExecInput, corev1.ExecOutput]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	out := func(text string) {
		_ = stream.Send(&corev1.ExecOutput{Output: &corev1.ExecOutput_Stdout{Stdout: []byte(text)}})
	}
	code := int32(0)
	switch command := first.GetStart().GetCommand(); command[0] {
	case "true":
	case "false":
		_ = stream.Send(&corev1.ExecOutput{Output: &corev1.ExecOutput_Stderr{Stderr: []byte("no\n")}})
		code = 7
	case "cat":
		for {
			input, err := stream.Recv()
			if err != nil || input.GetStdinClosed() {
				break
			}
			out(string(input.GetStdin()))
		}
	case "env":
		meta, _ := metadata.FromIncomingContext(stream.Context())
		out(fmt.Sprintf("app %s instance %s arguments %q\n", strings.Join(meta["mammoth-app"], ","), strings.Join(meta["mammoth-instance"], ","), command[1:]))
	default:
		_ = stream.Send(&corev1.ExecOutput{Output: &corev1.ExecOutput_Stderr{Stderr: fmt.Appendf(nil, "mammoth: cannot run %s: there is no such program in the container\n", command[0])}})
		code = 127
	}
	return stream.Send(&corev1.ExecOutput{Output: &corev1.ExecOutput_ExitCode{ExitCode: code}})
}

func (z *fakeZone) node(n int) *apiv1.Node {
	node := &apiv1.Node{
		Name: fmt.Sprintf("node-%d", n), State: apiv1.NodeState_READY, Address: "127.0.0.1", Version: "devel",
		Capacity:     &corev1.Resources{CpuMillis: 4000, MemoryBytes: 8 << 30, DiskBytes: 100 << 30, Ports: 5000},
		Used:         &corev1.Resources{CpuMillis: 1100, MemoryBytes: 192 << 20, DiskBytes: 160 << 20, Ports: 2},
		LastReportAt: z.ago(30 * time.Minute), RegisteredAt: z.ago(time.Hour),
		Attributes: map[string]*corev1.Attribute{
			"arch":      {Value: &corev1.Attribute_Text{Text: "amd64"}},
			"cores":     {Value: &corev1.Attribute_Number{Number: 4}},
			"diskQuota": {Value: &corev1.Attribute_Flag{Flag: n == 1}},
		},
		Containers: []*apiv1.NodeContainer{{
			Id: fmt.Sprintf("container_e1_1700000000000_0001_%06d", n), App: "web", Instance: fmt.Sprintf("web-%d", n), State: "RUNNING",
			Resources: &corev1.Resources{CpuMillis: 500, MemoryBytes: 64 << 20, DiskBytes: 64 << 20},
		}},
	}
	if n == 2 {
		node.State, node.Reason = apiv1.NodeState_UNHEALTHY, "the Docker Engine does not answer"
	}
	return node
}

func (z *fakeZone) ListNodes(context.Context, *apiv1.ListNodesRequest) (*apiv1.ListNodesResponse, error) {
	return &apiv1.ListNodesResponse{Nodes: []*apiv1.Node{z.node(1), z.node(2)}}, nil
}

func (z *fakeZone) GetNode(_ context.Context, request *apiv1.GetNodeRequest) (*apiv1.Node, error) {
	for n := 1; n <= 2; n++ {
		if node := z.node(n); node.GetName() == request.GetName() {
			z.mu.Lock()
			defer z.mu.Unlock()
			if z.drained > 0 {
				// Drained at the third look; node-2 never.
				if z.drained++; z.drained > 4 && n == 1 {
					node.State, node.Containers = apiv1.NodeState_DRAINED, nil
					return node, nil
				}
				node.State, node.Waiting = apiv1.NodeState_DRAINING, []*apiv1.Waiting{{Text: "web: web-4 waits for capacity: no node has room", Help: "another node would do"}}
			}
			return node, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "no node is named %q", request.GetName())
}

func (z *fakeZone) DrainNode(ctx context.Context, request *apiv1.DrainNodeRequest) (*apiv1.Node, error) {
	node, err := z.GetNode(ctx, &apiv1.GetNodeRequest{Name: request.GetName()})
	if err != nil {
		return nil, err
	}
	node.State, node.Reason = apiv1.NodeState_DRAINING, request.GetReason()
	if request.GetReason() == "" {
		z.mu.Lock()
		defer z.mu.Unlock()
		z.drained = 1
	}
	return node, nil
}

func (z *fakeZone) UndrainNode(ctx context.Context, request *apiv1.GetNodeRequest) (*apiv1.Node, error) {
	return z.GetNode(ctx, request)
}

func (z *fakeZone) RemoveNode(ctx context.Context, request *apiv1.GetNodeRequest) (*apiv1.Node, error) {
	node, err := z.GetNode(ctx, request)
	if err == nil && node.GetState() == apiv1.NodeState_READY {
		return nil, status.Errorf(codes.FailedPrecondition, "%s answers", node.GetName())
	}
	return node, err
}

func (z *fakeZone) ListQueues(context.Context, *apiv1.ListQueuesRequest) (*apiv1.ListQueuesResponse, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.queues == nil {
		half, all := 50.0, 100.0
		z.queues = []*apiv1.QueueSpec{
			{Name: "root"},
			{Name: "apps", Parent: "root", Guaranteed: &apiv1.Capacity{Percent: &half}, Maximum: &apiv1.Capacity{Percent: &all}},
			{Name: "batch", Parent: "root", Guaranteed: &apiv1.Capacity{Absolute: &corev1.Resources{CpuMillis: 2000, MemoryBytes: 4 << 30}}},
		}
	}
	return z.tree(z.queues), nil
}

func (z *fakeZone) tree(specs []*apiv1.QueueSpec) *apiv1.ListQueuesResponse {
	answer := &apiv1.ListQueuesResponse{}
	for _, spec := range specs {
		queue := &apiv1.Queue{Spec: spec, Used: &corev1.Resources{}, Pending: &corev1.Resources{}, Guaranteed: &corev1.Resources{CpuMillis: 4000, MemoryBytes: 8 << 30}, Maximum: &corev1.Resources{CpuMillis: 8000, MemoryBytes: 16 << 30}}
		if spec.GetName() != "batch" {
			queue.Used, queue.Apps, queue.Containers = &corev1.Resources{CpuMillis: 1700, MemoryBytes: 256 << 20, DiskBytes: 224 << 20}, 1, 4
		}
		answer.Queues = append(answer.Queues, queue)
	}
	return answer
}

func (z *fakeZone) GetQueue(ctx context.Context, request *apiv1.GetQueueRequest) (*apiv1.Queue, error) {
	all, _ := z.ListQueues(ctx, nil)
	for _, queue := range all.GetQueues() {
		if queue.GetSpec().GetName() == request.GetName() {
			return queue, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "no queue is named %q", request.GetName())
}

func (z *fakeZone) SetQueues(_ context.Context, request *apiv1.SetQueuesRequest) (*apiv1.ListQueuesResponse, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	total := 0.0
	for _, queue := range request.GetQueues() {
		total += queue.GetGuaranteed().GetPercent()
	}
	if total > 100 {
		return nil, status.Errorf(codes.InvalidArgument, "the children of queue \"root\" are guaranteed %g%%, which is more than all", total)
	}
	if !request.GetDryRun() {
		z.queues = request.GetQueues()
	}
	return z.tree(request.GetQueues()), nil
}

func (z *fakeZone) WatchEvents(request *apiv1.WatchEventsRequest, stream grpc.ServerStreamingServer[apiv1.Event]) error {
	at := timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC))
	all := []*apiv1.Event{
		{Sequence: 1, Time: at, Kind: "node", Node: "node-1", To: "READY", Message: "registered with 4 cpu, 8GiB of memory"},
		{Sequence: 2, Time: at, Kind: "app", App: "web", To: "ACCEPTED", Message: "deployed"},
		{Sequence: 3, Time: at, Kind: "container", App: "web", Instance: "web-1", Container: "container_e1_1700000000000_0001_000001", Node: "node-1", From: "RUNNING", To: "DONE", Message: "OOMKilled: it used all of its 64MiB of memory"},
	}
	if request.GetApp() == "hostile" {
		all = []*apiv1.Event{{Sequence: 1, Time: at, Kind: "app", App: "hostile", To: "FAILED\x1b[2J", Message: "it wrote \x1b]0;title\a\n12:00:00.000  app   web  RUNNING  all is well\u202e"}}
	}
	for _, event := range all {
		if request.GetApp() != "" && request.GetApp() != event.GetApp() || event.GetSequence() <= request.GetAfter() || request.GetKind() != "" && request.GetKind() != event.GetKind() {
			continue
		}
		if err := stream.Send(event); err != nil {
			return err
		}
	}
	return nil
}

func (z *fakeZone) service(n int32) *apiv1.Service {
	service := &apiv1.Service{Name: "web", Index: int64(n)}
	for i := int32(1); i <= n; i++ {
		service.Endpoints = append(service.Endpoints, &apiv1.Endpoint{
			Id: fmt.Sprintf("web-%d", i), Address: "127.0.0.1", Port: 20000 + i, Weight: 100, State: apiv1.Endpoint_HEALTHY, Version: 1,
			Node: "node-1", RegisteredAt: z.ago(3 * time.Hour), Ports: map[string]int32{"http": 20000 + i},
		})
	}
	return service
}

func (z *fakeZone) ListServices(context.Context, *apiv1.ListServicesRequest) (*apiv1.ListServicesResponse, error) {
	return &apiv1.ListServicesResponse{Services: []*apiv1.Service{z.service(3)}, Generation: 3}, nil
}

func (z *fakeZone) GetService(_ context.Context, request *apiv1.GetServiceRequest) (*apiv1.Service, error) {
	if request.GetName() != "web" {
		return nil, status.Errorf(codes.NotFound, "no service is named %q", request.GetName())
	}
	return z.service(3), nil
}

// WatchService shows two endpoints, a third, and that the first went; then it ends, as when a zone is stopped.
func (z *fakeZone) WatchService(_ *apiv1.GetServiceRequest, stream grpc.ServerStreamingServer[apiv1.Service]) error {
	fewer := z.service(3)
	fewer.Endpoints = fewer.GetEndpoints()[1:]
	fewer.Endpoints[0].Weight = 50
	for _, service := range []*apiv1.Service{z.service(2), z.service(3), fewer} {
		if err := stream.Send(service); err != nil {
			return err
		}
	}
	return nil
}

func (z *fakeZone) ListImages(context.Context, *apiv1.ListImagesRequest) (*apiv1.ListImagesResponse, error) {
	return &apiv1.ListImagesResponse{StoredBytes: 5 << 20, Images: []*apiv1.Image{{
		Name: "hello:1.0", Digest: "sha256:0123456789abcdef0123", Architecture: "amd64", SizeBytes: 5 << 20,
		Layers: []*apiv1.Layer{{Digest: "sha256:aa", SizeBytes: 5 << 20}}, CreatedAt: z.ago(3 * time.Hour),
	}}}, nil
}

func (z *fakeZone) RemoveImage(_ context.Context, request *apiv1.RemoveImageRequest) (*apiv1.RemoveImageResponse, error) {
	if request.GetName() != "hello:1.0" {
		return nil, status.Errorf(codes.NotFound, "no image is named %q", request.GetName())
	}
	return &apiv1.RemoveImageResponse{FreedBytes: 5 << 20}, nil
}
