package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// loop is a loop that knows where containers are and nothing else.
type loop struct {
	service.Apps
	targets []zone.Target
}

func (l loop) Targets(_ context.Context, which zone.Containers) ([]zone.Target, error) {
	if which.App != "web" {
		return nil, fmt.Errorf("no app is named %q: %w", which.App, errdefs.ErrNotFound)
	}
	return slices.DeleteFunc(slices.Clone(l.targets), func(t zone.Target) bool {
		return which.Instance != "" && t.Instance != which.Instance || !which.Ended && !t.Running
	}), nil
}

func (loop) MayExec(_ context.Context, app string) error {
	if app == "guarded" {
		return fmt.Errorf("not yours: %w", errdefs.ErrPermissionDenied)
	}
	return nil
}

// node is a ContainerManager that echoes.
type node struct {
	nodev1.UnimplementedContainerManagerServer
}

func (node) Logs(request *nodev1.LogsRequest, stream grpc.ServerStreamingServer[corev1.LogChunk]) error {
	if string(request.GetToken().GetClaims()) != "node token" {
		return status.Error(codes.PermissionDenied, "no")
	}
	if request.GetContainerId() == "purged" {
		return status.Error(codes.NotFound, "its logs are gone")
	}
	text := fmt.Sprintf("%s tail %d", request.GetContainerId(), request.GetOptions().GetTail())
	return stream.Send(&corev1.LogChunk{Lines: []*corev1.LogChunk_Line{{Text: text}}})
}

func (node) Exec(stream grpc.BidiStreamingServer[corev1.ExecInput, corev1.ExecOutput]) error {
	token := &corev1.ContainerToken{}
	raw := metadata.ValueFromIncomingContext(stream.Context(), "mammoth-token-bin")
	if len(raw) != 1 || proto.Unmarshal([]byte(raw[0]), token) != nil || string(token.GetClaims()) != "node token" {
		return status.Error(codes.PermissionDenied, "no")
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	answer := first.GetStart().GetContainerId() + ": " + strings.Join(first.GetStart().GetCommand(), " ")
	for {
		input, err := stream.Recv()
		if errors.Is(err, io.EOF) || input.GetStdinClosed() {
			break
		}
		if err != nil {
			return err
		}
		answer += " <" + string(input.GetStdin()) + ">"
	}
	if err := stream.Send(&corev1.ExecOutput{Output: &corev1.ExecOutput_Stdout{Stdout: []byte(answer)}}); err != nil {
		return err
	}
	return stream.Send(&corev1.ExecOutput{Output: &corev1.ExecOutput_ExitCode{ExitCode: 3}})
}

// inProxy runs a test against the services, with one node behind them.
func inProxy(t *testing.T, targets []zone.Target, test func(apiv1.AppsClient)) {
	t.Helper()
	inServices(t, loop{targets: targets}, node{}, test)
}

// inServices runs a test in a bubble against the services, with a loop and a node behind them.
type packageLoop = service.Frameworks

// noFrameworks is a loop of a zone without framework packages.
type noFrameworks struct{ packageLoop }

func (noFrameworks) Framework(context.Context, string) (*apiv1.Framework, error) {
	return nil, errdefs.ErrNotFound
}

func inServices(t *testing.T, loop service.Apps, node nodev1.ContainerManagerServer, test func(apiv1.AppsClient)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		serve := func(register func(*grpc.Server)) (func(string) (*grpc.ClientConn, error), func()) {
			listener := bufconn.Listen(1 << 16)
			server := grpc.NewServer()
			register(server)
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(listener) }()
			dial := func(string) (*grpc.ClientConn, error) {
				return grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
			}
			return dial, func() {
				server.Stop()
				if err := <-ended; err != nil {
					t.Errorf("serve: %v", err)
				}
			}
		}
		dialNode, stopNode := serve(func(s *grpc.Server) { nodev1.RegisterContainerManagerServer(s, node) })
		defer stopNode()
		dial, stop := serve(func(s *grpc.Server) {
			service.Register(s, service.Config{Apps: loop, Frameworks: noFrameworks{}, Registry: apiv1.UnimplementedRegistryServer{}, Dial: dialNode})
		})
		defer stop()
		connection, err := dial("")
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		test(apiv1.NewAppsClient(connection))
	})
}

func twoInstances() []zone.Target {
	token := &corev1.ContainerToken{Claims: []byte("node token")}
	return []zone.Target{
		{Container: "purged", Instance: "web-1", Ended: true, Listed: true, Node: "node-1", Token: token},
		{Container: "c0", Instance: "web-1", Ended: true, Listed: true, Node: "node-1", Token: token},
		{Container: "c1", Instance: "web-1", Running: true, Listed: true, Node: "node-1", Token: token},
		{Container: "c2", Instance: "web-2", Running: true, Listed: true, Node: "node-1", Token: token},
	}
}

func TestLogsOfSeveralInstancesAreMerged(t *testing.T) {
	inProxy(t, twoInstances(), func(client apiv1.AppsClient) {
		read := func(request *apiv1.AppLogsRequest) ([]string, error) {
			stream, err := client.AppLogs(context.Background(), request)
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for {
				chunk, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					slices.Sort(lines)
					return lines, nil
				}
				if err != nil {
					return lines, err
				}
				lines = append(lines, chunk.GetInstance()+": "+chunk.GetLines()[0].GetText())
			}
		}
		for _, test := range []struct {
			request *apiv1.AppLogsRequest
			want    []string
		}{
			{&apiv1.AppLogsRequest{Name: "web"}, []string{"web-1: c1 tail -1", "web-2: c2 tail -1"}},
			{&apiv1.AppLogsRequest{Name: "web", Instance: "web-2", Tail: proto.Int32(5)}, []string{"web-2: c2 tail 5"}},
			{&apiv1.AppLogsRequest{Name: "web", Instance: "web-1", Previous: true}, []string{"web-1: c0 tail -1", "web-1: c1 tail -1"}},
		} {
			if got, err := read(test.request); err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%v: %v, %v; want %v", test.request, got, err, test.want)
			}
		}
		if _, err := read(&apiv1.AppLogsRequest{Name: "other"}); status.Code(err) != codes.NotFound {
			t.Errorf("of an app that is not there: %v", err)
		}
	})
}

// cat runs cat with the input "hello", in the instance that pairs name.
func cat(t *testing.T, client apiv1.AppsClient, pairs ...string) (text string, code int32, err error) {
	t.Helper()
	stream, err := client.Exec(metadata.AppendToOutgoingContext(context.Background(), pairs...))
	if err != nil {
		t.Fatal(err)
	}
	for _, input := range []*corev1.ExecInput{
		{Input: &corev1.ExecInput_Start_{Start: &corev1.ExecInput_Start{Command: []string{"cat", "-"}}}},
		{Input: &corev1.ExecInput_Stdin{Stdin: []byte("hello")}},
		{Input: &corev1.ExecInput_StdinClosed{StdinClosed: true}},
	} {
		if err := stream.Send(input); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	code = -1
	for {
		output, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return text, code, nil
		}
		if err != nil {
			return text, code, err
		}
		text += string(output.GetStdout())
		if _, ok := output.GetOutput().(*corev1.ExecOutput_ExitCode); ok {
			code = output.GetExitCode()
		}
	}
}

func TestExecGoesBothWaysAndTellsTheExitCode(t *testing.T) {
	inProxy(t, twoInstances(), func(client apiv1.AppsClient) {
		run := func(pairs ...string) (string, int32, error) { return cat(t, client, pairs...) }
		if text, code, err := run("mammoth-app", "web", "mammoth-instance", "web-2"); err != nil || text != "c2: cat - <hello>" || code != 3 {
			t.Errorf("in web-2: %q, %d, %v", text, code, err)
		}
		if text, _, err := run("mammoth-app", "web"); err != nil || !strings.HasPrefix(text, "c1: ") {
			t.Errorf("in any instance: %q, %v", text, err)
		}
		if _, _, err := run("mammoth-app", "guarded"); status.Code(err) != codes.PermissionDenied {
			t.Errorf("in somebody else's app: %v", err)
		}
		if _, _, err := run("mammoth-app", "web", "mammoth-instance", "web-9"); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("in an instance that is not running: %v", err)
		}
		if _, _, err := run(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("without an app: %v", err)
		}
	})
}

func TestACommandRunsInTheContainerThatCanBeReached(t *testing.T) {
	lost := zone.Target{Container: "c1", Instance: "web-1", Running: true, Node: "node-2", Lost: true, Trouble: "node-2 is lost"}
	targets := append([]zone.Target{lost}, twoInstances()[2])
	targets[1].Container = "c3"
	inProxy(t, targets, func(client apiv1.AppsClient) {
		if text, _, err := cat(t, client, "mammoth-app", "web", "mammoth-instance", "web-1"); err != nil || !strings.HasPrefix(text, "c3: ") {
			t.Errorf("beside one on a lost node: %q, %v", text, err)
		}
	})
	inProxy(t, []zone.Target{lost}, func(client apiv1.AppsClient) {
		_, _, err := cat(t, client, "mammoth-app", "web")
		if want := `cannot run a command in web-1: node-2 is lost; try again, or see "mammoth node show node-2"`; status.Convert(err).Message() != want || status.Code(err) != codes.FailedPrecondition {
			t.Errorf("on a lost node: %v, want %q", err, want)
		}
	})
}

// awayNode is a node that answers nothing.
type awayNode struct {
	nodev1.UnimplementedContainerManagerServer
	said string
}

func (n awayNode) Logs(*nodev1.LogsRequest, grpc.ServerStreamingServer[corev1.LogChunk]) error {
	return status.Error(codes.Unavailable, n.said)
}

func (n awayNode) Exec(grpc.BidiStreamingServer[corev1.ExecInput, corev1.ExecOutput]) error {
	return status.Error(codes.Unavailable, n.said)
}

// The error about a node that does not answer must not look like an error of the zone.
func TestTheSilenceOfANodeIsNotTakenForTheZones(t *testing.T) {
	for name, c := range map[string]struct{ trouble, said, want string }{
		"a known reason": {"node-1 is unhealthy: it has too many files open", "error reading server preface: EOF", "node-1 is unhealthy: it has too many files open"},
		"no connection":  {"", `connection error: desc = "connect: connection refused"`, "node-1 does not answer at 127.0.0.1:4"},
		"its engine":     {"", "the Docker engine does not answer", "on node-1, the Docker engine does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			targets := twoInstances()[2:3]
			targets[0].Node, targets[0].ContainerManager, targets[0].Trouble = "node-1", "127.0.0.1:4", c.trouble
			inServices(t, loop{targets: targets}, awayNode{said: c.said}, func(client apiv1.AppsClient) {
				_, _, err := cat(t, client, "mammoth-app", "web")
				if want := "cannot run a command in web-1: " + c.want; !strings.HasPrefix(status.Convert(err).Message(), want) || status.Code(err) != codes.FailedPrecondition {
					t.Errorf("a command: %v, want %q", err, want)
				}
				logs, err := client.AppLogs(context.Background(), &apiv1.AppLogsRequest{Name: "web"})
				if err != nil {
					t.Fatal(err)
				}
				_, err = logs.Recv()
				if want := "cannot read the logs of web-1: " + c.want; !strings.HasPrefix(status.Convert(err).Message(), want) || status.Code(err) != codes.FailedPrecondition {
					t.Errorf("logs: %v, want %q", err, want)
				}
			})
		})
	}
}
