package nodemanager_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// checking is a runtime whose containers answer every health check with the same exit code.
type checking struct {
	runtime.Runtime
	code *atomic.Int64
}

func (c checking) Exec(ctx context.Context, _ id.Container, _ runtime.Exec) (int, error) {
	return int(c.code.Load()), ctx.Err()
}

func inZoneWithCheck(t *testing.T, test func(z *zone, code *atomic.Int64)) {
	code := &atomic.Int64{}
	inZoneWith(t, func(config *nodemanager.Config) {
		config.Runtimes[corev1.ContainerSpec_DOCKER] = checking{config.Runtimes[corev1.ContainerSpec_DOCKER], code}
	}, func(z *zone) { test(z, code) })
}

func checked() *corev1.ContainerSpec {
	spec := serving()
	spec.Health = &corev1.HealthCheck{
		Probe:       &corev1.HealthCheck_Exec_{Exec: &corev1.HealthCheck_Exec{Command: []string{"check"}}},
		StartPeriod: durationpb.New(10 * time.Second),
	}
	return spec
}

func TestHealthIsReportedAsItChanges(t *testing.T) {
	inZoneWithCheck(t, func(z *zone, code *atomic.Int64) {
		key := z.container(1)
		code.Store(1)
		z.start(key, checked())
		z.pass(500 * time.Millisecond)
		if s := z.want(key, corev1.ContainerStatus_RUNNING); s.GetHealth() != corev1.ContainerStatus_STARTING || s.GetHealthDetail() != "check exited with code 1" {
			z.Errorf("status %v", s)
		}
		code.Store(0)
		z.pass(time.Second)
		s := z.want(key, corev1.ContainerStatus_RUNNING)
		if s.GetHealth() != corev1.ContainerStatus_HEALTHY || s.GetHealthDetail() != "" {
			z.Errorf("status %v", s)
		}
		if run := s.GetPhases()[2]; run.GetName() != "run" || run.GetDurationMs() < 500 {
			z.Errorf("the run phase lasts until it is healthy: %v", run)
		}
		code.Store(2)
		z.pass(2 * time.Second)
		if s := z.rm.status(key); s.GetHealth() != corev1.ContainerStatus_HEALTHY {
			z.Errorf("unhealthy after two failures: %v", s)
		}
		z.pass(2 * time.Second)
		if s := z.rm.status(key); s.GetHealth() != corev1.ContainerStatus_UNHEALTHY || s.GetHealthDetail() != "check exited with code 2" {
			z.Errorf("status %v", s)
		}
		code.Store(0)
		z.pass(2 * time.Second)
		if s := z.rm.status(key); s.GetHealth() != corev1.ContainerStatus_HEALTHY {
			z.Errorf("status %v", s)
		}
	})
}

func TestWhatDoesNotBecomeHealthyInTimeIsStopped(t *testing.T) {
	inZoneWithCheck(t, func(z *zone, code *atomic.Int64) {
		key := z.container(1)
		code.Store(1)
		z.start(key, checked())
		z.pass(9 * time.Second)
		z.want(key, corev1.ContainerStatus_RUNNING)
		z.pass(2 * time.Second)
		exit := z.want(key, corev1.ContainerStatus_DONE).GetExit()
		if exit.GetReason() != corev1.Exit_UNHEALTHY || exit.GetMessage() != "did not become healthy within 10s: check exited with code 1" {
			z.Errorf("exit %v", exit)
		}
	})
}

func TestProbesAreTakenUpAgainAfterARestart(t *testing.T) {
	inZoneWithCheck(t, func(z *zone, code *atomic.Int64) {
		key := z.container(1)
		z.start(key, checked())
		z.pass(time.Second)
		z.restart()
		for _, s := range z.rm.lastRegistration().GetContainers() {
			if s.GetHealth() != corev1.ContainerStatus_HEALTHY {
				z.Errorf("a healthy container was registered as %v", s.GetHealth())
			}
		}
		code.Store(1)
		z.pass(5 * time.Second)
		if s := z.rm.status(key); s.GetHealth() != corev1.ContainerStatus_UNHEALTHY {
			z.Errorf("status %v", s)
		}
	})
}
