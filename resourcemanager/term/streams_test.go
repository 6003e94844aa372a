package term

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"

	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// goneMeanwhile calls open with a loop that is busy, gives up, and lets the loop go on.
func (z *testZone) goneMeanwhile(open func(context.Context) error) {
	z.t.Helper()
	busy := make(chan struct{})
	z.rm.looks.put(task{look: func(*zone.Core) (any, error) { <-busy; return nil, nil }})
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() { failed <- open(ctx) }()
	synctest.Wait()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		z.t.Errorf("the caller was told %v", err)
	}
	close(busy)
	synctest.Wait()
}

// Whoever opens a stream and goes away before the loop has opened it leaves nothing behind.
func TestStreamsThatNobodyWaitsForAreDropped(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		z.goneMeanwhile(func(ctx context.Context) error {
			_, err := z.rm.OpenAllocate(ctx, m.bearer)
			return err
		})
		got, err := look(context.Background(), z.rm.calls, func(*zone.Core) (int, error) { return len(z.rm.streams.masters), nil })
		if err != nil || got != 0 {
			t.Errorf("left behind are %d masters, %v", got, err)
		}
	})
}

func TestAMasterThatReadsNothingIsLetGo(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		stream, err := z.rm.OpenAllocate(context.Background(), m.bearer)
		if err != nil {
			t.Fatal(err)
		}
		open := func() bool {
			if err := stream.Allocate(context.Background(), &masterv1.AllocateRequest{}); err != nil {
				t.Fatal(err)
			}
			open, err := look(context.Background(), z.rm.calls, func(*zone.Core) (bool, error) { return len(z.rm.streams.masters) > 0, nil })
			if err != nil {
				t.Fatal(err)
			}
			return open
		}
		answers := 1 // the first one
		for open() {
			if answers++; answers > mostResponses+1 {
				t.Fatal("answers wait without bound")
			}
		}
		if waiting, err := stream.Next(context.Background()); err != nil || len(waiting) != mostResponses+1 {
			t.Errorf("%d answers wait, %v", len(waiting), err)
		}
		if _, err := stream.Next(context.Background()); !errdefs.IsResourceExhausted(err) {
			t.Errorf("the stream ended with %v", err)
		}
	})
}
