package nodemanager

import (
	"context"
	"testing"

	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/token"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	"github.com/mammoth-os/mammoth/nodemanager/recovery"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// goneStream is the stream of a caller that has disconnected.
type goneStream struct {
	grpc.ServerStreamingServer[nodev1.WatchResponse]
}

func (goneStream) Context() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestAWatcherWhoIsGoneBeforeTheAnswerLeavesNoFeedBehind(t *testing.T) {
	key := token.Key{ID: 1, Secret: []byte("the secret of the zone")}
	nm := &NodeManager{config: Config{NodeID: "node-1"}, inbox: newInbox(), stopped: make(chan struct{})}
	o := newOwner(nm)
	o.node.Trust([]*trackerv1.TokenKey{{Id: key.ID, Secret: key.Secret}})
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

func TestAStartOfWhatAnEarlierNodeManagerWroteDownIsAnsweredAtOnce(t *testing.T) {
	key := id.Container{Epoch: 1, App: id.App{ClusterStart: 1, Seq: 1}, Seq: 1}
	nm := &NodeManager{config: Config{NodeID: "node-1"}, inbox: newInbox()}
	o := newOwner(nm)
	// It was killed between the record and what comes next.
	o.recover([]recovery.Record{{Container: &container.Container{ID: key, State: container.New}}})
	told := false
	o.whenRecorded(o.node.Container(key), func() { told = true })
	if !told {
		t.Error("the start waits for a record that is on the disk")
	}
}
