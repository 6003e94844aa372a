// Package peertest makes requests of users for tests.
package peertest

import (
	"context"

	"github.com/mammoth-os/mammoth/internal/peer"
)

// With is a context for requests of a user.
func With(ctx context.Context, user peer.User) context.Context { return peer.With(ctx, program(user)) }

type program peer.User

// User implements peer.Program.
func (p program) User() peer.User { return peer.User(p) }
