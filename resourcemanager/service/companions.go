package service

import (
	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/internal/wire"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// companions admits only permitted users as balancers. The other calls only read.
type companions struct {
	companionv1.CompanionsServer
	loop Zone
}

func (s *companions) Route(stream grpc.BidiStreamingServer[companionv1.RouteReport, companionv1.RouteUpdate]) error {
	if err := s.loop.MayRoute(stream.Context()); err != nil {
		return wire.Status(err)
	}
	return s.CompanionsServer.Route(stream)
}
