package nodemanager

import (
	"context"
	"testing"

	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/token"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
)

// goneStream is a caller who has hung up.
type goneStream struct {
	grpc.ServerStreamingServer[nodev1.WatchResponse]
}

func (goneStream) Context() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestAWatcherWhoIsGoneBeforeTheAnswerLeavesNoFeedBehind(t *testing.T) {
	key := token.NewKey(1)
	nm := &NodeManager{config: Config{NodeID: "node-1"}, inbox: newInbox(), stopped: make(chan struct{})}
	o := &owner{nm: nm, keys: []token.Key{key}, feeds: map[*feed]struct{}{}}
	signed, err := token.Sign(key, &corev1.TokenClaims{Scope: corev1.TokenClaims_NODE, NodeId: "node-1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := (&service{nm: nm}).Watch(&nodev1.WatchRequest{Token: signed}, goneStream{}); err == nil {
		t.Error("a watch without a caller ended well")
	}
	watched := 0
	for _, message := range nm.inbox.take() {
		message(o)
		watched = max(watched, len(o.feeds))
	}
	if watched != 1 || len(o.feeds) != 0 {
		t.Errorf("%d feeds were opened and %d are left", watched, len(o.feeds))
	}
}
