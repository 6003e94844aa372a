package nodemanager_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
)

// Whatever happens to the node, its engine and its ResourceManager: no container is started twice, each whose
// lease is ended is reported ended, and nothing runs after that.
func TestThroughAnyTroubleEachLeaseHasOneProcessAndOneEnd(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inZone(t, func(z *zone) { z.trouble(rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func (z *zone) trouble(random *rand.Rand) {
	down := fmt.Errorf("the socket is gone: %w", errdefs.ErrUnavailable)
	const containers = 12
	accepted, rmAway := map[int64]bool{}, false
	commands := [][]string{{"serve"}, {"exit", "1"}, {"sleep", "3s"}, {"ignore-term"}, {"memory", "100"}}
	for range 60 {
		seq := random.Int64N(containers) + 1
		switch random.IntN(10) {
		case 0, 1, 2:
			spec := serving(commands[random.IntN(len(commands))]...)
			if _, err := z.node.Start(z.Context(), &nodev1.StartRequest{Token: z.token(z.container(seq)), Spec: spec}); err == nil {
				accepted[seq] = true
			} else if status.Code(err) != codes.Unavailable {
				z.Fatal(err)
			}
		case 3:
			if !rmAway {
				z.stopCommand(z.container(seq))
				accepted[seq] = true
			}
		case 4:
			z.engine.Kill("n1", z.container(seq))
		case 5:
			z.engine.SetDown(down)
		case 6:
			z.engine.SetDown(nil)
		case 7:
			z.engine.LoseAnswers(random.IntN(3))
		case 8:
			z.stop()
			z.startNode()
		case 9:
			if rmAway {
				z.rm.zone.Start()
			} else {
				z.rm.zone.Stop()
			}
			rmAway = !rmAway
		}
		z.pass(time.Duration(random.IntN(2000)) * time.Millisecond)
	}
	z.engine.SetDown(nil)
	if rmAway {
		z.rm.zone.Start()
	}
	z.pass(10 * time.Second)
	for seq := range accepted {
		z.stopCommand(z.container(seq))
	}
	z.pass(time.Minute)
	for seq := range accepted {
		if z.want(z.container(seq), corev1.ContainerStatus_DONE).GetExit() == nil {
			z.Errorf("container %d ended without saying how", seq)
		}
		z.forget(z.container(seq))
	}
	z.pass(time.Minute)
	if n := z.engine.Starts(); n > len(accepted) {
		z.Errorf("%d starts for %d containers", n, len(accepted))
	}
	if left := z.inEngine(); len(left) != 0 {
		z.Errorf("the engine still has %v", left)
	}
}
