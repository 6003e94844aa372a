package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// These are the metadata keys of Exec: the app and instance in the client's call, and the token in the call to the node.
const (
	appKey      = "mammoth-app"
	instanceKey = "mammoth-instance"
	tokenKey    = "mammoth-token-bin"
)

// Exec connects a client with a command in a container and copies both directions.
func (s *apps) Exec(stream grpc.BidiStreamingServer[corev1.ExecInput, corev1.ExecOutput]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	target, err := s.execTarget(stream.Context())
	if err != nil {
		return wire.Status(err)
	}
	if len(first.GetStart().GetCommand()) == 0 {
		return wire.Status(invalid("name a command to run"))
	}
	if err := spec.CheckWords(first.GetStart().GetCommand()); err != nil {
		return wire.Status(err)
	}
	token, err := proto.Marshal(target.Token)
	if err != nil {
		return wire.Status(fmt.Errorf("encode the token: %w", err))
	}
	connection, err := s.connect(target)
	if err != nil {
		return wire.Status(err)
	}
	defer connection.Close() //nolint:errcheck // the stream has the error
	node, err := nodev1.NewContainerManagerClient(connection).Exec(metadata.AppendToOutgoingContext(stream.Context(), tokenKey, string(token)))
	if err != nil {
		return wire.Status(nodeError(target, "run a command in", err))
	}
	first.GetStart().ContainerId = target.Container
	return runBoth(stream.Context(),
		func(ctx context.Context) error {
			for input := first; ; {
				if err := node.Send(input); err != nil && !errors.Is(err, io.EOF) {
					return nodeError(target, "run a command in", err)
				}
				if input, err = stream.Recv(); errors.Is(err, io.EOF) {
					if err := node.CloseSend(); err != nil {
						return err
					}
					<-ctx.Done() // the command may continue; its end ends the stream
					return nil
				} else if err != nil {
					return err
				}
			}
		},
		func(context.Context) error {
			for {
				output, err := node.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return nodeError(target, "run a command in", err)
				}
				if err := stream.Send(output); err != nil {
					return err
				}
			}
		},
	)
}

// execTarget is the instance in the metadata, or any running one.
func (s *apps) execTarget(ctx context.Context) (zone.Target, error) {
	name, instance := firstOf(ctx, appKey), firstOf(ctx, instanceKey)
	if name == "" {
		return zone.Target{}, invalid("the metadata %q must name the app", appKey)
	}
	if err := s.loop.MayExec(ctx, name); err != nil {
		return zone.Target{}, err
	}
	targets, err := s.loop.Targets(ctx, zone.Containers{App: name, Instance: instance})
	if err != nil {
		return zone.Target{}, err
	}
	// A container on a lost node may run, but another may run in its place.
	slices.SortStableFunc(targets, func(a, b zone.Target) int { return cmp.Compare(reach(a), reach(b)) })
	for _, target := range targets {
		switch {
		case target.Running && target.Lost:
			return zone.Target{}, unreachable(target, "run a command in", target.Trouble)
		case target.Running:
			return target, nil
		}
	}
	subject := name
	if instance != "" {
		subject = instance
	}
	return zone.Target{}, fmt.Errorf("no instance of %s is running; \"mammoth app explain %s\" says why: %w", subject, name, errdefs.ErrFailedPrecondition)
}

func (s *apps) connect(target zone.Target) (*grpc.ClientConn, error) {
	dial := s.dial
	if dial == nil {
		dial = func(address string) (*grpc.ClientConn, error) { return credentials.Dial(address) }
	}
	connection, err := dial(target.ContainerManager)
	if err != nil {
		return nil, fmt.Errorf("connect to node %s at %s: %w", target.Node, target.ContainerManager, err)
	}
	return connection, nil
}

// reach orders targets by how likely their node is to answer.
func reach(target zone.Target) int {
	switch {
	case target.Lost:
		return 2
	case target.Trouble != "":
		return 1
	}
	return 0
}

// nodeError converts an error of a node for a person. A node that does not answer is an errdefs.ErrFailedPrecondition, so that
// clients do not conclude that the ResourceManager does not answer.
func nodeError(target zone.Target, doing string, err error) error {
	answer := wire.Error(err)
	switch {
	case !errdefs.IsUnavailable(answer):
		return fmt.Errorf("%s %s on node %s: %w", doing, target.Instance, target.Node, answer)
	case target.Trouble != "":
		return unreachable(target, doing, target.Trouble)
	case strings.Contains(answer.Error(), "connection error") || strings.Contains(answer.Error(), "error reading from server"):
		return unreachable(target, doing, fmt.Sprintf("%s does not answer at %s", target.Node, target.ContainerManager))
	}
	return unreachable(target, doing, fmt.Sprintf("on %s, %s", target.Node, wire.Sentence(answer)))
}

func unreachable(target zone.Target, doing, why string) error {
	return fmt.Errorf("cannot %s %s: %s; try again, or see \"mammoth node show %s\": %w", doing, target.Instance, why, target.Node, errdefs.ErrFailedPrecondition)
}

func firstOf(ctx context.Context, key string) string {
	if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
		return values[0]
	}
	return ""
}
