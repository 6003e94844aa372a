package nodemanager_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestStartsAreTriedAgainWhileTheEngineIsAway(t *testing.T) {
	inZone(t, func(z *zone) {
		down := fmt.Errorf("the socket is gone: %w", errdefs.ErrUnavailable)
		z.start(z.container(1), serving())
		z.pass(time.Second)
		z.engine.SetDown(down)
		for i := range int64(5) {
			z.start(z.container(i+2), serving())
		}
		z.pass(10 * time.Second)
		for i := range int64(5) {
			if s := z.rm.status(z.container(i + 2)); s.GetState() != corev1.ContainerStatus_LOCALIZING || s.GetReason() != "the socket is gone" {
				z.Errorf("status %v", s)
			}
		}
		if health := z.rm.Health(); health.GetHealthy() || health.GetReason() != "docker does not answer: the socket is gone" {
			z.Errorf("the node's health is %v", health)
		}
		z.engine.Kill("n1", z.container(1)) // nobody hears it
		z.pass(time.Second)
		z.want(z.container(1), corev1.ContainerStatus_RUNNING)
		z.engine.SetDown(nil)
		z.pass(3 * time.Second)
		z.want(z.container(1), corev1.ContainerStatus_DONE)
		for i := range int64(5) {
			z.want(z.container(i+2), corev1.ContainerStatus_RUNNING)
		}
		if health := z.rm.Health(); !health.GetHealthy() || health.GetReason() != "" {
			z.Errorf("the node's health is %v", health)
		}
		if z.engine.Starts() != 6 {
			z.Errorf("%d starts for 6 containers", z.engine.Starts())
		}
	})
}

func TestAnAnswerThatWasLostStartsNothingTwice(t *testing.T) {
	inZone(t, func(z *zone) {
		z.engine.LoseAnswers(3)
		for i := range int64(3) {
			z.start(z.container(i+1), serving())
		}
		z.pass(5 * time.Second)
		for i := range int64(3) {
			z.want(z.container(i+1), corev1.ContainerStatus_RUNNING)
		}
		if z.engine.Starts() != 3 {
			z.Errorf("%d starts for 3 containers", z.engine.Starts())
		}
	})
}

func TestAnEngineThatStaysAwayEndsTheLaunchWithAReason(t *testing.T) {
	inZone(t, func(z *zone) {
		z.pass(time.Second)
		z.engine.SetDown(fmt.Errorf("the socket is gone: %w", errdefs.ErrUnavailable))
		z.start(z.container(1), serving())
		z.pass(6 * time.Minute)
		z.engine.SetDown(nil)
		z.pass(10 * time.Second)
		exit := z.want(z.container(1), corev1.ContainerStatus_DONE).GetExit()
		if exit.GetReason() != corev1.Exit_NODE_FAILED || exit.GetMessage() != "could not be started within 5m0s: the socket is gone" {
			z.Errorf("exit %v", exit)
		}
	})
}
