package resourcemanager

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
)

// goneMeanwhile calls open with a loop that is busy, gives up, and lets the loop go on.
func (z *testZone) goneMeanwhile(open func(context.Context) error) {
	z.t.Helper()
	busy := make(chan struct{})
	z.rm.post(inputFunc(func(*zone) (any, error) { <-busy; return nil, nil }))
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
			_, err := z.rm.WatchApp(ctx, "web")
			return err
		})
		z.goneMeanwhile(func(ctx context.Context) error {
			_, err := z.rm.OpenAllocate(ctx, m.bearer)
			return err
		})
		type left struct {
			watchers int
			master   bool
		}
		got, err := ask[left](context.Background(), z.rm, inputFunc(func(z *zone) (any, error) {
			a := z.names["web"]
			return left{len(a.watchers), a.stream != 0}, nil
		}))
		if err != nil || got != (left{}) {
			t.Errorf("left behind: %+v, %v", got, err)
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
			open, err := ask[bool](context.Background(), z.rm, inputFunc(func(z *zone) (any, error) {
				a := z.names["web"]
				if a.stream != 0 {
					z.say(a)
				}
				return a.stream != 0, nil
			}))
			if err != nil {
				t.Fatal(err)
			}
			return open
		}
		answers := 1 // the first one
		for open() {
			if answers++; answers > mostAnswers+1 {
				t.Fatal("answers wait without bound")
			}
		}
		if waiting, err := stream.Next(context.Background()); err != nil || len(waiting) != mostAnswers+1 {
			t.Errorf("%d answers wait, %v", len(waiting), err)
		}
		if _, err := stream.Next(context.Background()); !errdefs.IsResourceExhausted(err) {
			t.Errorf("the stream ended with %v", err)
		}
	})
}
