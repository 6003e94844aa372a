package service

import (
	"context"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Lending is the part of the loop for contracts between queues.
type Lending interface {
	// Contracts and Contract show contracts as the last commit left them, and do not wait.
	Contracts() *apiv1.ListContractsResponse
	Contract(name string) (*apiv1.Contract, error)
	// AddContracts adds or replaces all of the contracts or none.
	AddContracts(ctx context.Context, request *apiv1.AddContractsRequest) (*apiv1.ListContractsResponse, error)
	RemoveContract(ctx context.Context, name string) error
	LendNow(ctx context.Context, request *apiv1.LendNowRequest) (*apiv1.Contract, error)
	StopLending(ctx context.Context, name string) (*apiv1.Contract, error)
	LendingReport(ctx context.Context) (*apiv1.LendingReport, error)
}

type lending struct {
	apiv1.UnimplementedLendingServer
	loop Lending
}

func (s *lending) ListContracts(context.Context, *apiv1.ListContractsRequest) (*apiv1.ListContractsResponse, error) {
	return s.loop.Contracts(), nil
}

func (s *lending) GetContract(_ context.Context, request *apiv1.GetContractRequest) (*apiv1.Contract, error) {
	contract, err := s.loop.Contract(request.GetName())
	return contract, wire.Status(err)
}

func (s *lending) AddContracts(ctx context.Context, request *apiv1.AddContractsRequest) (*apiv1.ListContractsResponse, error) {
	response, err := s.loop.AddContracts(ctx, request)
	return response, wire.Status(err)
}

func (s *lending) RemoveContract(ctx context.Context, request *apiv1.GetContractRequest) (*apiv1.RemoveContractResponse, error) {
	return &apiv1.RemoveContractResponse{}, wire.Status(s.loop.RemoveContract(ctx, request.GetName()))
}

func (s *lending) LendNow(ctx context.Context, request *apiv1.LendNowRequest) (*apiv1.Contract, error) {
	contract, err := s.loop.LendNow(ctx, request)
	return contract, wire.Status(err)
}

func (s *lending) StopLending(ctx context.Context, request *apiv1.GetContractRequest) (*apiv1.Contract, error) {
	contract, err := s.loop.StopLending(ctx, request.GetName())
	return contract, wire.Status(err)
}

func (s *lending) GetReport(ctx context.Context, _ *apiv1.GetReportRequest) (*apiv1.LendingReport, error) {
	report, err := s.loop.LendingReport(ctx)
	return report, wire.Status(err)
}
