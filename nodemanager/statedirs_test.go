package nodemanager_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/nodemanager"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/fake"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// stateDirs are the state directories of an engine. None can be removed while a container runs.
type stateDirs struct {
	engine *fake.Runtime
	mu     sync.Mutex
	ended  []string
}

func (p *stateDirs) StateDirs() ([]string, error) { return nil, nil }

func (p *stateDirs) RemoveStateDir(ctx context.Context, place string) error {
	list, err := p.engine.List(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(list, func(c runtime.Container) bool { return c.Running }) {
		return fmt.Errorf("a container is there: %w", errdefs.ErrFailedPrecondition)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = append(p.ended, place)
	return nil
}

func (p *stateDirs) told() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ended)
}

// A node comes back after its companion app was removed: the container that is reaped takes a moment to end.
func TestAPlaceEndsOnceTheLastContainerInItHas(t *testing.T) {
	for name, acknowledged := range map[string]bool{"a stop": false, "the end was acknowledged before": true} {
		t.Run(name, func(t *testing.T) { placeEnds(t, acknowledged) })
	}
}

func placeEnds(t *testing.T, acknowledged bool) {
	kept := &stateDirs{}
	inZoneWith(t, func(config *nodemanager.Config) {
		kept.engine = config.Runtimes[corev1.ContainerSpec_DOCKER].(*fake.Runtime)
		config.Runtimes[corev1.ContainerSpec_PROCESS] = kept.engine
		delete(config.Runtimes, corev1.ContainerSpec_DOCKER)
		config.StateDirs = kept
	}, func(z *zone) {
		start := func(seq int64) {
			claims := z.claims(z.container(seq))
			claims.Lease.AppName, claims.Lease.Companion = "edge", true
			spec := serving()
			spec.Runtime, spec.Image = corev1.ContainerSpec_PROCESS, ""
			if _, err := z.node.Start(context.Background(), &nodev1.StartRequest{Token: z.sign(claims), Spec: spec}); err != nil {
				z.Fatal(err)
			}
			z.pass(time.Second)
		}
		end := func() {
			z.command(&trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_RemoveStateDir_{
				RemoveStateDir: &trackerv1.NodeCommand_RemoveStateDir{Name: "edge"},
			}})
		}
		stop := func(seq int64) {
			if acknowledged {
				z.command(&trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Forget_{
					Forget: &trackerv1.NodeCommand_Forget{ContainerIds: []string{z.container(seq).String()}},
				}})
			}
			z.stopCommand(z.container(seq))
			z.pass(time.Minute)
		}
		start(1)
		end()
		if told := kept.told(); told != nil {
			z.Errorf("%q ended while a container is there", told)
		}
		stop(1)
		if told := kept.told(); !slices.Equal(told, []string{"edge"}) {
			z.Errorf("after the end of the last container, %q have ended", told)
		}
		// A container that starts after the command keeps the state directory.
		start(2)
		end()
		start(3)
		stop(2)
		stop(3)
		if told := kept.told(); len(told) != 1 {
			z.Errorf("%q have ended, and the companion app came back", told)
		}
	})
}
