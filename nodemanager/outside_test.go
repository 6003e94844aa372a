package nodemanager_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// said is what a NodeManager logs.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), text)
}

func TestAContainerStartedFromOutsideIsEndedAndLoggedOnce(t *testing.T) {
	log := &said{}
	inZoneWith(t, func(config *nodemanager.Config) { config.Logger = slog.New(slog.NewTextHandler(log, nil)) }, func(z *zone) {
		for seq, forgotten := range []bool{false, true} {
			key := z.container(int64(seq + 1))
			z.start(key, serving())
			z.pass(time.Second)
			z.want(key, corev1.ContainerStatus_RUNNING)
			z.engine.Kill("n1", key)
			if forgotten { // only an end that was told is forgotten
				z.settle()
			}
			if !z.engine.StartAgain("n1", key) {
				z.Fatal("it has not ended")
			}
			if forgotten { // its removal meets it running
				z.forget(key)
			}
			z.pass(5 * time.Second)
			if n := z.engine.Running(); n != 0 {
				z.Errorf("%d containers run that the zone does not list", n)
			}
			if s := z.want(key, corev1.ContainerStatus_DONE); s.GetExit().GetCode() != 137 {
				z.Errorf("its end is reported as %v", s.GetExit())
			}
			if left := len(z.inEngine()); forgotten && left != 1 {
				z.Errorf("the engine has %d containers, not only the one whose end is not stored", left)
			}
		}
		z.pass(time.Hour)
		if n := log.count("was started again from outside"); n != 2 {
			z.Errorf("logged %d times for two containers", n)
		}
	})
}

func TestAContainerStartedWhileNoNodeManagerRanIsEnded(t *testing.T) {
	inZone(t, func(z *zone) {
		key := z.container(1)
		z.start(key, serving())
		z.pass(time.Second)
		z.engine.Kill("n1", key)
		z.settle()
		z.stop()
		z.engine.StartAgain("n1", key)
		z.startNode()
		z.pass(time.Second)
		if n := z.engine.Running(); n != 0 {
			z.Errorf("%d containers run", n)
		}
	})
}

// The end of its first process was not observed. The process that runs now is another start, not the instance.
func TestWhatWasRestartedWhileNobodyWatchedIsEnded(t *testing.T) {
	inZone(t, func(z *zone) {
		key := z.container(1)
		z.start(key, serving())
		z.pass(time.Second)
		z.stop()
		z.engine.Signal("n1", key, 15)
		z.settle()
		if !z.engine.StartAgain("n1", key) {
			z.Fatal("it has not ended")
		}
		z.startNode()
		z.pass(time.Second)
		if n := z.engine.Running(); n != 0 {
			z.Errorf("%d containers run", n)
		}
		exit := z.want(key, corev1.ContainerStatus_DONE).GetExit()
		if exit.GetReason() != corev1.Exit_KILLED_FROM_OUTSIDE || exit.GetMessage() != "it was killed from outside Mammoth and started again" {
			z.Errorf("it ended as %v", exit)
		}
	})
}

// An end by a command of the engine does not count against the program. An end without the engine may be caused by the program.
func TestAnEndThatSomebodyElseAskedTheEngineFor(t *testing.T) {
	inZone(t, func(z *zone) {
		var seq int64
		run := func() id.Container {
			seq++
			key := z.container(seq)
			z.start(key, serving())
			z.pass(time.Second)
			return key
		}
		is := func(key id.Container, reason corev1.Exit_Reason, message string) {
			z.Helper()
			if exit := z.want(key, corev1.ContainerStatus_DONE).GetExit(); exit.GetReason() != reason || exit.GetMessage() != message {
				z.Errorf("it ended as %v", exit)
			}
		}
		killed := run()
		z.engine.Signal("n1", killed, 9)
		z.pass(time.Second)
		is(killed, corev1.Exit_KILLED_FROM_OUTSIDE, "it was killed from outside Mammoth, with SIGKILL")

		died := run()
		z.engine.Kill("n1", died)
		z.pass(time.Second)
		is(died, corev1.Exit_EXITED, "was killed by signal 9")

		missed := run()
		z.stop()
		z.engine.Signal("n1", missed, 15)
		z.startNode()
		z.pass(time.Second)
		is(missed, corev1.Exit_KILLED_FROM_OUTSIDE, "it was killed from outside Mammoth, with SIGTERM")

		stopped := run()
		z.stopCommand(stopped)
		z.pass(time.Second)
		is(stopped, corev1.Exit_STOPPED, "scaled in")
	})
}

// An engine may drop events, so the node lists its containers at intervals.
func TestALostEventIsMadeUpFor(t *testing.T) {
	inZone(t, func(z *zone) {
		key := z.container(1)
		z.start(key, serving())
		z.pass(time.Second)
		z.engine.LoseEvents(1)
		z.engine.Kill("n1", key)
		z.pass(90 * time.Second)
		z.want(key, corev1.ContainerStatus_DONE)
	})
}
