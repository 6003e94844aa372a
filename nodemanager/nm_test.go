package nodemanager_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/spec/spectest"
	"github.com/mammoth-os/mammoth/internal/token"
	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/nodemanager"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

func TestAContainerIsStartedReportedAndStopped(t *testing.T) {
	inZone(t, func(z *zone) {
		key := z.container(1)
		z.start(key, serving())
		z.pass(50 * time.Millisecond)
		running := z.want(key, corev1.ContainerStatus_RUNNING)
		if len(running.GetPorts()) != 1 || running.GetPorts()[0].GetHostPort() == 0 || running.GetPorts()[0].GetHostAddress() != "127.0.0.1" {
			z.Errorf("ports %v", running.GetPorts())
		}
		names := ""
		for _, phase := range running.GetPhases() {
			names += phase.GetName() + " "
			if phase.GetDurationMs() <= 0 || phase.GetStartedAt() == nil {
				z.Errorf("phase %v has no time", phase)
			}
		}
		if names != "download load run " {
			z.Errorf("phases %s", names)
		}
		if running.GetLabels()["instance"] != "web-1" || running.GetHealth() != corev1.ContainerStatus_NONE {
			z.Errorf("status %v", running)
		}
		z.stopCommand(key)
		z.pass(50 * time.Millisecond)
		done := z.want(key, corev1.ContainerStatus_DONE)
		if done.GetExit().GetReason() != corev1.Exit_STOPPED || done.GetExit().GetMessage() != "scaled in" || done.GetExit().GetCode() != 0 {
			z.Errorf("exit %v", done.GetExit())
		}
		z.forget(key)
		z.pass(time.Second)
		if left := z.inEngine(); len(left) != 0 {
			z.Errorf("the engine still has %v", left)
		}
	})
}

func TestTheLeaseGivesTheQuotas(t *testing.T) {
	var asked runtime.Spec
	inZoneWith(t, func(config *nodemanager.Config) {
		config.Runtimes[corev1.ContainerSpec_DOCKER] = spying{config.Runtimes[corev1.ContainerSpec_DOCKER], &asked}
	}, func(z *zone) {
		z.start(z.container(1), serving())
		z.pass(50 * time.Millisecond)
		if asked.CPUMillis != 500 || asked.MemoryBytes != 64<<20 || asked.DiskBytes != 64<<20 || asked.Pids != 1024 {
			z.Errorf("the runtime was asked for %+v", asked)
		}
	})
}

type spying struct {
	runtime.Runtime
	asked *runtime.Spec
}

func (s spying) Start(ctx context.Context, spec runtime.Spec) (runtime.Container, error) {
	*s.asked = spec
	return s.Runtime.Start(ctx, spec)
}

func TestOnlyATokenForThisContainerOnThisNodeStartsIt(t *testing.T) {
	inZone(t, func(z *zone) {
		key := z.container(1)
		for name, c := range map[string]struct {
			change func(*corev1.TokenClaims)
			sign   func(*corev1.TokenClaims) *corev1.ContainerToken
			want   codes.Code
		}{
			"forged": {sign: func(claims *corev1.TokenClaims) *corev1.ContainerToken {
				forged, _ := token.Sign(token.Key{ID: 1, Secret: []byte("another secret")}, claims)
				return forged
			}, want: codes.Unauthenticated},
			"none":         {sign: func(*corev1.TokenClaims) *corev1.ContainerToken { return nil }, want: codes.Unauthenticated},
			"another node": {change: func(c *corev1.TokenClaims) { c.NodeId = "n2" }, want: codes.PermissionDenied},
			"a lease on another node": {change: func(c *corev1.TokenClaims) {
				c.Lease.NodeId = "n2"
			}, want: codes.PermissionDenied},
			"to watch": {change: func(c *corev1.TokenClaims) { c.Scope = corev1.TokenClaims_APP }, want: codes.PermissionDenied},
			"expired": {change: func(c *corev1.TokenClaims) {
				c.ExpiresAt = timestamppb.New(time.Now().Add(-time.Second))
			}, want: codes.PermissionDenied},
			"no id": {change: func(c *corev1.TokenClaims) { c.Lease.ContainerId = "../x" }, want: codes.InvalidArgument},
		} {
			claims := z.claims(key)
			if c.change != nil {
				c.change(claims)
			}
			sign := c.sign
			if sign == nil {
				sign = z.sign
			}
			_, err := z.node.Start(z.Context(), &nodev1.StartRequest{Token: sign(claims), Spec: serving()})
			if status.Code(err) != c.want {
				z.Errorf("a token that is %s: %v, want %v", name, err, c.want)
			}
		}
		if z.engine.Starts() != 0 {
			z.Error("something was started")
		}
		// A token for one container gives no access to another, not even of the same app.
		z.start(key, serving())
		logs, err := z.node.Logs(z.Context(), &nodev1.LogsRequest{Token: z.token(z.container(2)), ContainerId: key.String()})
		if err == nil {
			_, err = logs.Recv()
		}
		if status.Code(err) != codes.PermissionDenied {
			z.Errorf("reading the output with another's token: %v", err)
		}
		other := z.sign(&corev1.TokenClaims{Scope: corev1.TokenClaims_APP, AppId: "application_1_0009", NodeId: "n1"})
		stream, err := z.node.Watch(z.Context(), &nodev1.WatchRequest{Token: other, AppId: z.app.String()})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.PermissionDenied {
			z.Errorf("watching another app: %v", err)
		}
	})
}

func TestWithoutKeysNothingStarts(t *testing.T) {
	inZone(t, func(z *zone) {
		z.stop()
		z.rm.zone.SetKeys()
		z.startNode()
		_, err := z.node.Start(z.Context(), &nodev1.StartRequest{Token: z.token(z.container(1)), Spec: serving()})
		if status.Code(err) != codes.Unavailable {
			z.Errorf("without keys: %v", err)
		}
		z.command(&trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Keys_{Keys: &trackerv1.NodeCommand_Keys{
			Keys: []*trackerv1.TokenKey{{Id: z.key.ID, Secret: z.key.Secret}},
		}}})
		z.start(z.container(1), serving())
	})
}

func TestWhatANodeDoesNotHaveIsRefusedWithASentence(t *testing.T) {
	inZone(t, func(z *zone) {
		for _, c := range []struct {
			change func(*corev1.ContainerSpec)
			code   codes.Code
			says   string
		}{
			{func(s *corev1.ContainerSpec) { s.Network = corev1.ContainerSpec_HOST }, codes.PermissionDenied, "does not allow network: host"},
			{func(s *corev1.ContainerSpec) { s.Runtime = corev1.ContainerSpec_PROCESS }, codes.FailedPrecondition, "has no process runtime"},
		} {
			spec := serving()
			c.change(spec)
			_, err := z.node.Start(z.Context(), &nodev1.StartRequest{Token: z.token(z.container(1)), Spec: spec})
			if status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) {
				z.Errorf("got %v, want %v with %q", err, c.code, c.says)
			}
		}
	})
}

func TestAContainerIsRefusedWithTheSentenceThatEverybodyIsTold(t *testing.T) {
	inZone(t, func(z *zone) {
		key := z.container(1)
		for _, c := range spectest.Cases() {
			if c.OfApps {
				continue
			}
			_, err := z.node.Start(z.Context(), &nodev1.StartRequest{Token: z.token(key), Spec: c.Container()})
			if status.Code(err) != codes.InvalidArgument || wire.Sentence(wire.Error(err)) != fmt.Sprintf("container %s: %s", key, c.Sentence) {
				z.Errorf("%s: %v, want %q", c.Name, err, c.Sentence)
			}
		}
	})
}

func TestStartingWhatIsThereIsNotAnError(t *testing.T) {
	inZone(t, func(z *zone) {
		key := z.container(1)
		z.start(key, serving())
		z.start(key, serving())
		z.pass(50 * time.Millisecond)
		z.start(key, serving())
		z.pass(50 * time.Millisecond)
		if z.engine.Starts() != 1 {
			z.Errorf("%d starts for one container", z.engine.Starts())
		}
	})
}

func TestAStopThatOvertakesTheStartEndsTheLeaseAndBarsTheStart(t *testing.T) {
	inZone(t, func(z *zone) {
		key := z.container(1)
		z.pass(10 * time.Millisecond)
		z.stopCommand(key)
		z.pass(10 * time.Millisecond)
		if exit := z.want(key, corev1.ContainerStatus_DONE).GetExit(); exit.GetReason() != corev1.Exit_STOPPED {
			z.Errorf("exit %v", exit)
		}
		response, err := z.node.Start(z.Context(), &nodev1.StartRequest{Token: z.token(key), Spec: serving()})
		if err != nil || response.GetStatus().GetState() != corev1.ContainerStatus_DONE {
			z.Errorf("the start that came too late: %v, %v", response, err)
		}
		z.pass(time.Second)
		if z.engine.Starts() != 0 {
			z.Error("it was started all the same")
		}
	})
}

func TestAStopThatRacesTheLaunchLeavesNoZombie(t *testing.T) {
	inZone(t, func(z *zone) {
		for i := range int64(40) {
			key := z.container(i + 1)
			z.start(key, serving())
			z.pass(time.Duration(i) * time.Millisecond)
			z.stopCommand(key)
		}
		z.pass(30 * time.Second)
		for i := range int64(40) {
			z.want(z.container(i+1), corev1.ContainerStatus_DONE)
		}
		if n := z.engine.Running(); n != 0 {
			z.Errorf("%d containers still run", n)
		}
	})
}

func TestEndsAreReportedWithTheirReason(t *testing.T) {
	inZone(t, func(z *zone) {
		for i, c := range []struct {
			command []string
			reason  corev1.Exit_Reason
			code    int32
			says    string
		}{
			{[]string{"exit", "3"}, corev1.Exit_EXITED, 3, "exited with code 3"},
			{[]string{"memory", "100"}, corev1.Exit_OOM_KILLED, 137, "OOMKilled: it reached its memory quota of 64MiB"},
			{[]string{"disk", "72"}, corev1.Exit_DISK_QUOTA_EXCEEDED, 137, "disk quota exceeded (72MiB of 64MiB)"},
			{[]string{"nothing-of-the-kind"}, corev1.Exit_LAUNCH_FAILED, -1, "no such program"},
		} {
			key := z.container(int64(i + 1))
			z.start(key, serving(c.command...))
			z.pass(100 * time.Millisecond)
			exit := z.want(key, corev1.ContainerStatus_DONE).GetExit()
			if exit.GetReason() != c.reason || exit.GetCode() != c.code || !strings.Contains(exit.GetMessage(), c.says) {
				z.Errorf("%v ended with %v", c.command, exit)
			}
		}
	})
}

func TestAnImageThatDoesNotExistFailsTheLaunch(t *testing.T) {
	inZone(t, func(z *zone) {
		z.engine.Missing("web@sha256:1")
		z.start(z.container(1), serving())
		z.pass(50 * time.Millisecond)
		done := z.want(z.container(1), corev1.ContainerStatus_DONE)
		if done.GetExit().GetReason() != corev1.Exit_LAUNCH_FAILED || done.GetPhases()[0].GetError() == "" {
			z.Errorf("status %v", done)
		}
	})
}

func TestALaunchThatCannotBeIsReportedAsEnded(t *testing.T) {
	inZone(t, func(z *zone) {
		key := z.container(1)
		spec := serving()
		spec.Runtime = corev1.ContainerSpec_PROCESS
		launch := func(spec *corev1.ContainerSpec) {
			z.command(&trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Launch_{Launch: &trackerv1.NodeCommand_Launch{Token: z.token(key), Spec: spec}}})
			z.pass(50 * time.Millisecond)
		}
		launch(spec)
		if exit := z.want(key, corev1.ContainerStatus_DONE).GetExit(); exit.GetReason() != corev1.Exit_LAUNCH_FAILED || exit.GetMessage() == "" {
			z.Errorf("exit %v", exit)
		}
		key = z.container(2)
		launch(serving())
		z.want(key, corev1.ContainerStatus_RUNNING)
	})
}

func TestWatchTellsAllOfTheAppThenEachChange(t *testing.T) {
	inZone(t, func(z *zone) {
		z.start(z.container(1), serving())
		z.pass(50 * time.Millisecond)
		stream, err := z.node.Watch(z.Context(), &nodev1.WatchRequest{Token: z.watchToken()})
		if err != nil {
			z.Fatal(err)
		}
		first, err := stream.Recv()
		if err != nil || !first.GetSnapshot() || len(first.GetContainers()) != 1 || first.GetContainers()[0].GetState() != corev1.ContainerStatus_RUNNING {
			z.Fatalf("the first message: %v, %v", first, err)
		}
		foreign := z.container(2)
		foreign.App.Seq = 2
		z.start(foreign, serving())
		z.engine.Kill("n1", z.container(1))
		change, err := stream.Recv()
		if err != nil || change.GetSnapshot() || len(change.GetContainers()) != 1 {
			z.Fatalf("the change: %v, %v", change, err)
		}
		got := change.GetContainers()[0]
		if got.GetLease().GetContainerId() != z.container(1).String() || got.GetState() != corev1.ContainerStatus_DONE || got.GetExit().GetCode() != 137 {
			z.Errorf("the change is %v", got)
		}
		if got.GetSequence() <= first.GetContainers()[0].GetSequence() {
			z.Error("the sequence did not rise")
		}
	})
}

func TestLogsOutliveTheContainerUntilTheirRetentionEnds(t *testing.T) {
	inZoneWith(t, func(config *nodemanager.Config) { config.LogRetention = time.Hour }, func(z *zone) {
		key := z.container(1)
		z.start(key, serving("lines", "5"))
		z.pass(50 * time.Millisecond)
		z.want(key, corev1.ContainerStatus_DONE)
		z.forget(key)
		z.pass(time.Second)
		read := func() (lines []string, err error) {
			stream, err := z.node.Logs(z.Context(), &nodev1.LogsRequest{
				Token: z.token(key), ContainerId: key.String(), Options: &corev1.LogOptions{Tail: 2},
			})
			for err == nil {
				var chunk *corev1.LogChunk
				if chunk, err = stream.Recv(); err == nil {
					for _, line := range chunk.GetLines() {
						lines = append(lines, line.GetText())
					}
				}
			}
			return lines, err
		}
		if lines, err := read(); !errors.Is(err, io.EOF) || strings.Join(lines, ",") != "line 4,line 5" {
			z.Errorf("after its end: %q, %v", lines, err)
		}
		z.pass(2 * time.Hour)
		if lines, err := read(); status.Code(err) != codes.NotFound {
			z.Errorf("after the retention: %q, %v", lines, err)
		}
	})
}

func TestExec(t *testing.T) {
	inZone(t, func(z *zone) {
		key := z.container(1)
		z.start(key, serving())
		z.pass(50 * time.Millisecond)
		raw, err := proto.Marshal(z.token(key))
		if err != nil {
			z.Fatal(err)
		}
		run := func(start *corev1.ExecInput_Start, stdin string) (string, string, int32, error) {
			start.ContainerId = key.String()
			stream, err := z.node.Exec(metadata.AppendToOutgoingContext(z.Context(), "mammoth-token-bin", string(raw)))
			if err != nil {
				return "", "", 0, err
			}
			inputs := []*corev1.ExecInput{{Input: &corev1.ExecInput_Start_{Start: start}}}
			if stdin != "" {
				inputs = append(inputs, &corev1.ExecInput{Input: &corev1.ExecInput_Stdin{Stdin: []byte(stdin)}})
			}
			inputs = append(inputs, &corev1.ExecInput{Input: &corev1.ExecInput_StdinClosed{StdinClosed: true}})
			for _, input := range inputs {
				if err := stream.Send(input); errors.Is(err, io.EOF) {
					break // the command has ended already; Recv says how
				} else if err != nil {
					return "", "", 0, err
				}
			}
			var out, errs strings.Builder
			for {
				message, err := stream.Recv()
				if err != nil {
					return out.String(), errs.String(), -1, err
				}
				switch o := message.GetOutput().(type) {
				case *corev1.ExecOutput_Stdout:
					out.Write(o.Stdout)
				case *corev1.ExecOutput_Stderr:
					errs.Write(o.Stderr)
				case *corev1.ExecOutput_ExitCode:
					return out.String(), errs.String(), o.ExitCode, nil
				}
			}
		}
		if out, errs, code, err := run(&corev1.ExecInput_Start{Command: []string{"both"}}, ""); out != "out\n" || errs != "err\n" || code != 0 || err != nil {
			z.Errorf("both: %q, %q, %d, %v", out, errs, code, err)
		}
		if out, _, code, err := run(&corev1.ExecInput_Start{Command: []string{"cat"}, Stdin: true}, "hello"); out != "hello" || code != 0 || err != nil {
			z.Errorf("cat: %q, %d, %v", out, code, err)
		}
		if _, _, code, err := run(&corev1.ExecInput_Start{Command: []string{"exit", "7"}}, ""); code != 7 || err != nil {
			z.Errorf("exit 7: %d, %v", code, err)
		}
		window := &corev1.ExecInput_WindowSize{Rows: 24, Columns: 80}
		if out, _, _, err := run(&corev1.ExecInput_Start{Command: []string{"tty"}, Tty: true, Window: window}, ""); out != "24x80\r\n" || err != nil {
			z.Errorf("tty: %q, %v", out, err)
		}
		if _, _, _, err := run(&corev1.ExecInput_Start{}, ""); status.Code(err) != codes.InvalidArgument {
			z.Errorf("no command: %v", err)
		}
		z.engine.Kill("n1", key)
		z.pass(50 * time.Millisecond)
		if _, _, _, err := run(&corev1.ExecInput_Start{Command: []string{"both"}}, ""); status.Code(err) != codes.FailedPrecondition {
			z.Errorf("in a container that has ended: %v", err)
		}
	})
}
