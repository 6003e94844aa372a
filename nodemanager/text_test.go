package nodemanager_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
)

// mumbling is a runtime whose output and errors are not UTF-8.
type mumbling struct{ runtime.Runtime }

func (m mumbling) Start(ctx context.Context, spec runtime.Spec) (runtime.Container, error) {
	if len(spec.Command) > 0 && spec.Command[0] == "broken" {
		return runtime.Container{}, fmt.Errorf("cannot run caf\xe9: %w", errdefs.ErrInvalidArgument)
	}
	return m.Runtime.Start(ctx, spec)
}

func (m mumbling) Exec(context.Context, id.Container, runtime.Exec) (int, error) {
	return 0, errors.New("the check says \xff\xfe")
}

func (m mumbling) Logs(_ context.Context, _ id.Container, _ runtime.LogOptions, line func(runtime.LogLine) error) error {
	for _, text := range []string{"before", "caf\xe9 \xff\xff", strings.Repeat("\x80", 64<<10), "after"} {
		if err := line(runtime.LogLine{Text: text}); err != nil {
			return err
		}
	}
	return nil
}

// The output of programs, errors of engines and results of checks are reported even if they are not UTF-8.
func TestWhatIsNoTextIsToldReplaced(t *testing.T) {
	inZoneWith(t, func(config *nodemanager.Config) {
		config.Runtimes[corev1.ContainerSpec_DOCKER] = mumbling{config.Runtimes[corev1.ContainerSpec_DOCKER]}
		config.Attributes = map[string]*corev1.Attribute{"rack": {Value: &corev1.Attribute_Text{Text: "\xff1"}}}
	}, func(z *zone) {
		if got := z.rm.lastRegistration().GetAttributes()["rack"].GetText(); got != "�1" {
			z.Errorf("its rack is %q", got)
		}
		spec := serving()
		spec.Health = &corev1.HealthCheck{
			Probe:       &corev1.HealthCheck_Exec_{Exec: &corev1.HealthCheck_Exec{Command: []string{"check"}}},
			StartPeriod: durationpb.New(5 * time.Second),
		}
		key, broken := z.container(1), z.container(2)
		z.start(key, spec)
		z.start(broken, serving("broken"))
		z.pass(time.Second)
		if s := z.want(key, corev1.ContainerStatus_RUNNING); s.GetHealthDetail() != "the check says �" {
			z.Errorf("its health is %q", s.GetHealthDetail())
		}
		if s := z.want(broken, corev1.ContainerStatus_DONE); s.GetExit().GetMessage() != "cannot run caf�" {
			z.Errorf("its end is %q", s.GetExit().GetMessage())
		}
		stream, err := z.node.Logs(z.Context(), &nodev1.LogsRequest{Token: z.token(key), ContainerId: key.String(), Options: &corev1.LogOptions{Tail: -1}})
		var lines []string
		for err == nil {
			var chunk *corev1.LogChunk
			if chunk, err = stream.Recv(); err == nil {
				for _, line := range chunk.GetLines() {
					lines = append(lines, line.GetText())
				}
			}
		}
		if !errors.Is(err, io.EOF) || strings.Join(lines, "|") != "before|caf� �|�|after" {
			z.Errorf("it printed %q, %v", lines, err)
		}
		z.pass(10 * time.Second)
		if s := z.want(key, corev1.ContainerStatus_DONE); s.GetExit().GetMessage() != "did not become healthy within 5s: the check says �" {
			z.Errorf("its end is %q", s.GetExit().GetMessage())
		}
	})
}
