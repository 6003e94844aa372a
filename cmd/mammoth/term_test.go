package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/companions/registry/registrytest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/images"
	"github.com/mammoth-os/mammoth/resourcemanager/server"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/term"
	core "github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// serveTerm serves a zone without nodes, on a store in memory, until the end of the test. It is a real ResourceManager's term,
// of which change may wrap services, so that they do what they rarely do.
func serveTerm(t *testing.T, stored *store.Memory, change func(*service.Config)) (address string) {
	t.Helper()
	held, err := images.Open(t.TempDir(), images.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	metrics, log := term.NewMetrics(), slog.New(slog.DiscardHandler)
	leading, err := term.Begin(t.Context(), term.Config{
		Settings: core.Settings{
			Name: "local", Version: version, Listen: listener.Addr().String(), Address: listener.Addr().String(),
			NodeTimeout: 10 * time.Second, ReportInterval: time.Second, KeyRotation: 24 * time.Hour,
		},
		EventRetention: 10_000, Images: anyImage{held}, Metrics: metrics, Logger: log,
		Registry: func(epoch int64, _ term.Observer) term.Registry { return registrytest.NewBoard(epoch) },
	}, stored)
	if err != nil {
		t.Fatal(err)
	}
	services := leading.Services()
	if change != nil {
		change(&services)
	}
	served := server.New(server.Config{Version: version, Uploads: held.Handler(), Metrics: metrics.Handler(), Logger: log}, listener)
	ctx, cancel := context.WithCancel(context.Background())
	stepDown, err := served.Lead(ctx, server.Term{Services: services, Ready: leading.Ready})
	if err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	group.Go(func() error { return served.Run(ctx) })
	group.Go(func() error {
		defer stepDown()
		return leading.Run(ctx)
	})
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(group.Wait(), held.Close()); err != nil {
			t.Errorf("the ResourceManager ended with %v", err)
		}
	})
	return listener.Addr().String()
}

func emptyStore() *store.Memory {
	return store.OpenMemory(&store.Disk{}, store.Options{Now: time.Now(), EventRetention: 10_000})
}

// anyImage is an image store that has every image.
type anyImage struct{ *images.Store }

func (anyImage) Resolve(context.Context, string) (string, images.Config, error) {
	return "sha256:0123456789abcdef", images.Config{Entrypoint: []string{"/hello"}}, nil
}

// mammoth runs the command line against a zone.
func mammoth(ctx context.Context, address string, arguments ...string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	code = run(ctx, append(arguments, "--server", address), streams{in: strings.NewReader(""), out: &stdout, err: &stderr}, func(string) string { return "" })
	return code, stdout.String(), stderr.String()
}

// overtakenApps has somebody else change an app before each of so many deployments.
type overtakenApps struct {
	service.Apps
	left atomic.Int32
}

func (o *overtakenApps) Deploy(ctx context.Context, request *apiv1.DeployRequest) (*apiv1.DeployResponse, error) {
	if request.GetIfGeneration() > 0 && o.left.Add(-1) >= 0 {
		instances := 5 + o.left.Load()
		if _, err := o.Scale(ctx, &apiv1.ScaleAppRequest{Name: request.GetSpec().GetName(), Instances: instances}); err != nil {
			return nil, err
		}
	}
	return o.Apps.Deploy(ctx, request)
}

func TestADeploymentThatIsOvertakenIsTriedAgainButNotForEver(t *testing.T) {
	apps := &overtakenApps{}
	address := serveTerm(t, emptyStore(), func(services *service.Config) {
		apps.Apps = services.Apps
		services.Apps = apps
	})
	if code, _, errs := mammoth(t.Context(), address, "deploy", "hello:1", "--name", "web"); code != 0 {
		t.Fatal(errs)
	}
	apps.left.Store(2)
	if code, out, errs := mammoth(t.Context(), address, "deploy", "hello:2", "--name", "web"); code != 0 || !strings.HasPrefix(out, "web: deployment accepted") {
		t.Errorf("overtaken twice: code %d, output %q, errors %q", code, out, errs)
	}
	if _, out, _ := mammoth(t.Context(), address, "app", "show", "web", "-o", "json"); !strings.Contains(out, `"wanted": 5,`) {
		t.Errorf("what somebody else changed is lost: %s", out)
	}
	apps.left.Store(100)
	code, _, errs := mammoth(t.Context(), address, "deploy", "hello:3", "--name", "web")
	if code != exitFailed || !regexp.MustCompile(`^mammoth: .*web.* generation [0-9]+`).MatchString(errs) {
		t.Errorf("overtaken again and again: code %d, errors %q", code, errs)
	}
}

// lookups has a name of its own because service.Zone has a method Zone.
type lookups = service.Zone

// breakingZone breaks the first watch once its reader has everything.
type breakingZone struct {
	lookups
	watches atomic.Int32
}

func (b *breakingZone) Watch(request *apiv1.WatchRequest) (service.Stream[*apiv1.WatchResponse], error) {
	stream, err := b.lookups.Watch(request)
	if b.watches.Add(1) == 1 {
		return &brokenWatch{Stream: stream}, err
	}
	return stream, err
}

type brokenWatch struct {
	service.Stream[*apiv1.WatchResponse]
	complete bool
}

func (b *brokenWatch) Next(ctx context.Context) ([]*apiv1.WatchResponse, error) {
	if b.complete {
		return nil, fmt.Errorf("the connection is lost: %w", errdefs.ErrUnavailable)
	}
	responses, err := b.Stream.Next(ctx)
	for _, response := range responses {
		b.complete = b.complete || response.GetCurrent()
	}
	return responses, err
}

func TestAWatchThatBreaksGoesOnWhereItWas(t *testing.T) {
	broken := &breakingZone{}
	address := serveTerm(t, emptyStore(), func(services *service.Config) {
		broken.lookups = services.Zone
		services.Zone = broken
	})
	for _, name := range []string{"shop", "web"} {
		if code, _, errs := mammoth(t.Context(), address, "deploy", "hello:1", "--name", name); code != 0 {
			t.Fatal(errs)
		}
	}
	for output, want := range map[string]string{
		"table": `^NAME .*\nshop +accepted .*\nweb +accepted .*\n(.*  shop  .*\n)*[0-9:.]+  shop  removed\n$`,
		"json":  `^\{"kind":"APP","name":"shop",.*\n\{"kind":"APP","name":"web",.*\n(.*"name":"shop".*\n)*\{"kind":"APP","name":"shop","removed":true,.*\n$`,
	} {
		broken.watches.Store(0)
		if code, _, errs := mammoth(t.Context(), address, "deploy", "hello:1", "--name", "shop"); code != 0 {
			t.Fatal(errs)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		var removing sync.WaitGroup
		remove := sync.OnceFunc(func() {
			removing.Go(func() { _, _, _ = mammoth(t.Context(), address, "app", "rm", "shop") })
		})
		out := &trigger{word: "web"}
		out.do = func() {
			remove()
			if strings.Contains(out.String(), "shop  removed") || strings.Contains(out.String(), `"removed":true`) {
				cancel(errInterrupted)
			}
		}
		var errs bytes.Buffer
		code := run(ctx, []string{"app", "ls", "-w", "-o", output, "--server", address}, streams{in: strings.NewReader(""), out: out, err: &errs}, func(string) string { return "" })
		removing.Wait()
		if code != exitInterrupted || errs.Len() != 0 || broken.watches.Load() != 2 || !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("%s: code %d after %d watches, errors %q, output\n%s", output, code, broken.watches.Load(), errs.String(), out.String())
		}
	}
}

func TestWhatOthersWroteNeitherMovesTheCursorNorMakesLinesOfItsOwn(t *testing.T) {
	stored := emptyStore()
	event, err := proto.Marshal(&apiv1.Event{
		Time: timestamppb.Now(), Kind: "app", App: "hostile", Sequence: 1, To: "FAILED\x1b[2J",
		Message: "it wrote \x1b]0;title\a\n12:00:00.000  app   web  RUNNING  all is well\u202e",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := stored.Commit(t.Context(), store.Batch{Events: []store.Event{{Sequence: 1, Value: event}}}); err != nil {
		t.Fatal(err)
	}
	address := serveTerm(t, stored, nil)
	code, out, errs := mammoth(t.Context(), address, "events", "--app", "hostile")
	const want = `  app  hostile  FAILED\x1b[2J  it wrote \x1b]0;title\x07\n12:00:00.000  app   web  RUNNING  all is well\u202e` + "\n"
	if at, rest, _ := strings.Cut(out, "  "); code != 0 || errs != "" || "  "+rest != want || len(at) < len("12:00:00.000") {
		t.Errorf("code %d, errors %q, output %q", code, errs, out)
	}
	code, out, errs = mammoth(t.Context(), address, "events", "--app", "hostile", "-o", "json")
	if code != 0 || errs != "" || strings.ContainsAny(out, "\x1b\u202e\a") || !strings.Contains(out, `\u001b[2J`) {
		t.Errorf("code %d, errors %q, output %q", code, errs, out)
	}
}

func TestAContainerIsShownWithItsHealth(t *testing.T) {
	for want, container := range map[string]*apiv1.Container{
		"running":                        {State: corev1.ContainerStatus_RUNNING, Health: corev1.ContainerStatus_HEALTHY},
		"running, unhealthy":             {State: corev1.ContainerStatus_RUNNING, Health: corev1.ContainerStatus_UNHEALTHY},
		"running, unhealthy, is to stop": {State: corev1.ContainerStatus_RUNNING, Health: corev1.ContainerStatus_UNHEALTHY, Stopping: true},
		"stopping":                       {State: corev1.ContainerStatus_STOPPING, Stopping: true},
	} {
		if got := containerState(container); got != want {
			t.Errorf("%v is shown as %q, want %q", container, got, want)
		}
	}
}
