// Package token signs and verifies container tokens. They show a NodeManager that the ResourceManager has granted what is
// requested.
//
// It owns the form of a token. The keys belong to the ResourceManager, which makes and replaces them.
package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Key is a secret that only the ResourceManager and its NodeManagers have.
type Key struct {
	ID     int32
	Secret []byte
}

// Sign signs claims with a key.
func Sign(key Key, claims *corev1.TokenClaims) (*corev1.ContainerToken, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(claims)
	if err != nil {
		return nil, fmt.Errorf("encode the claims of a container token: %w", err)
	}
	return &corev1.ContainerToken{Claims: raw, Mac: mac(key, raw), KeyId: key.ID}, nil
}

// Verify returns the claims of a token that one of the keys signed. It fails with errdefs.ErrUnauthenticated otherwise. The
// caller checks Expired: an expired token permits no start, but still reads.
func Verify(keys []Key, token *corev1.ContainerToken) (*corev1.TokenClaims, error) {
	for _, key := range keys {
		if key.ID != token.GetKeyId() || !hmac.Equal(token.GetMac(), mac(key, token.GetClaims())) {
			continue
		}
		claims := &corev1.TokenClaims{}
		if err := proto.Unmarshal(token.GetClaims(), claims); err != nil {
			return nil, fmt.Errorf("decode the claims of a container token: %w", errdefs.ErrUnauthenticated)
		}
		return claims, nil
	}
	return nil, fmt.Errorf("the container token is not signed by this zone's ResourceManager: %w", errdefs.ErrUnauthenticated)
}

// Expired reports whether claims no longer allow a start.
func Expired(claims *corev1.TokenClaims, now time.Time) bool {
	return claims.GetExpiresAt() != nil && now.After(claims.GetExpiresAt().AsTime())
}

func mac(key Key, raw []byte) []byte {
	h := hmac.New(sha256.New, key.Secret)
	h.Write(raw)
	return h.Sum(nil)
}
