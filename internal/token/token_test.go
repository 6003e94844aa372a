package token_test

import (
	"errors"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/token"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestOnlyWhatTheZoneSignedIsBelieved(t *testing.T) {
	old, current := token.Key{ID: 1, Secret: []byte("old")}, token.Key{ID: 2, Secret: []byte("current")}
	claims := &corev1.TokenClaims{Scope: corev1.TokenClaims_CONTAINER, NodeId: "node-1"}
	signed, err := token.Sign(old, claims)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := token.Verify([]token.Key{current, old}, signed); err != nil || got.GetNodeId() != "node-1" {
		t.Errorf("a token under an older key that is still valid: %v, %v", got, err)
	}
	if _, err := token.Verify([]token.Key{current}, signed); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("a token under a retired key: %v", err)
	}
	signed.Claims[len(signed.Claims)-1] ^= 1
	if _, err := token.Verify([]token.Key{old}, signed); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("a forged token: %v", err)
	}
	if _, err := token.Verify([]token.Key{old}, nil); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("no token: %v", err)
	}
}

func TestExpired(t *testing.T) {
	deadline := time.Unix(1000, 0)
	claims := &corev1.TokenClaims{ExpiresAt: timestamppb.New(deadline)}
	if token.Expired(claims, deadline) || !token.Expired(claims, deadline.Add(1)) {
		t.Error("a token is valid up to and including its deadline")
	}
}
