package mastertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// masters serves ApplicationMaster.
type masters struct {
	masterv1.UnimplementedApplicationMasterServer
	zone *Zone
}

// command is a command with the channel for its answer.
type command struct {
	message *masterv1.Command
	answer  chan *masterv1.CommandAnswer
}

// masterStream is one Allocate stream with what is to be sent next.
type masterStream struct {
	pending *masterv1.AllocateResponse
	wake    chan struct{}
	cancel  context.CancelFunc
}

// Register serves ApplicationMaster.
func (m masters) Register(ctx context.Context, request *masterv1.RegisterRequest) (*masterv1.RegisterResponse, error) {
	z := m.zone
	z.mu.Lock()
	defer z.mu.Unlock()
	if err := m.authenticate(ctx); err != nil {
		return nil, err
	}
	if request.GetAppId() != z.app.String() || request.GetAttempt() != z.attempt {
		return nil, status.Errorf(codes.InvalidArgument, "the token is that of attempt %d of %s", z.attempt, z.app)
	}
	z.closeMasterStream()
	if z.registeredAttempt != request.GetAttempt() && !z.keepsAsks {
		maps.DeleteFunc(z.asks, func(_ string, state *askState) bool { return state.granted < state.ask.GetCount() })
	}
	z.registered, z.registeredAttempt = true, request.GetAttempt()
	answer := &masterv1.RegisterResponse{Spec: z.desired.GetSpec(), Desired: z.desired, Memo: z.memo}
	for _, container := range slices.Sorted(maps.Keys(z.leases)) {
		answer.Containers = append(answer.Containers, z.leases[container].repeated(z.key))
	}
	return answer, nil
}

// Allocate serves ApplicationMaster.
func (m masters) Allocate(stream masterv1.ApplicationMaster_AllocateServer) error {
	z := m.zone
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	z.mu.Lock()
	if err := m.authenticate(ctx); err != nil || !z.registered {
		z.mu.Unlock()
		switch {
		case errors.Is(err, errSuperseded):
			return stream.Send(&masterv1.AllocateResponse{Superseded: true})
		case err != nil:
			return err
		}
		return status.Error(codes.FailedPrecondition, "register first")
	}
	z.closeMasterStream()
	mine := &masterStream{pending: &masterv1.AllocateResponse{Desired: z.desired}, wake: make(chan struct{}, 1), cancel: cancel}
	z.stream = mine
	for _, name := range slices.Sorted(maps.Keys(z.nodes)) {
		mine.pending.Nodes = append(mine.pending.Nodes, z.nodes[name].update())
	}
	for _, name := range slices.Sorted(maps.Keys(z.leases)) {
		if held := z.leases[name]; held.status.GetState() == corev1.ContainerStatus_STATE_UNSPECIFIED && !held.released {
			mine.pending.Allocated = append(mine.pending.Allocated, held.repeated(z.key))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(z.ended)) {
		mine.pending.Completed = append(mine.pending.Completed, z.ended[name])
	}
	for _, name := range slices.Sorted(maps.Keys(z.instances)) {
		if report := z.instances[name]; !report.GetInService() && report.GetState() == apiv1.Instance_DRAINING {
			mine.pending.Withdrawn = append(mine.pending.Withdrawn, name)
		}
	}
	for _, given := range z.commands {
		mine.pending.Commands = append(mine.pending.Commands, given.message)
	}
	z.send(func(*masterv1.AllocateResponse) {})
	z.mu.Unlock()

	received := make(chan error, 1)
	go func() {
		for {
			request, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			z.mu.Lock()
			if z.stream == mine {
				m.apply(request)
			}
			z.mu.Unlock()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return status.Error(codes.Unavailable, "the stream was replaced")
		case err := <-received:
			return err
		case <-mine.wake:
			z.mu.Lock()
			answer := mine.pending
			mine.pending = &masterv1.AllocateResponse{}
			z.mu.Unlock()
			if err := stream.Send(answer); err != nil {
				return err
			}
		}
	}
}

// Plan serves ApplicationMaster.
func (m masters) Plan(ctx context.Context, request *masterv1.PlanRequest) (*masterv1.PlanResponse, error) {
	z := m.zone
	z.mu.Lock()
	defer z.mu.Unlock()
	if err := m.authenticate(ctx); err != nil {
		return nil, err
	}
	response := &masterv1.PlanResponse{}
	for _, ask := range request.GetAsks() {
		planned := &masterv1.PlannedAsk{}
		for _, name := range slices.Sorted(maps.Keys(z.nodes)) {
			for range min(z.nodes[name].room(ask), int(ask.GetCount())-len(planned.GetNodes())) {
				planned.Nodes = append(planned.Nodes, name)
			}
		}
		if len(planned.GetNodes()) < int(ask.GetCount()) {
			planned.Reason = "every node is full"
		}
		response.Planned = append(response.Planned, planned)
	}
	return response, nil
}

// Leave serves ApplicationMaster.
func (m masters) Leave(ctx context.Context, _ *masterv1.LeaveRequest) (*masterv1.LeaveResponse, error) {
	z := m.zone
	z.mu.Lock()
	defer z.mu.Unlock()
	if err := m.authenticate(ctx); err != nil {
		return nil, err
	}
	z.closeMasterStream()
	return &masterv1.LeaveResponse{}, nil
}

// Finish serves ApplicationMaster.
func (m masters) Finish(_ context.Context, request *masterv1.FinishRequest) (*masterv1.FinishResponse, error) {
	z := m.zone
	z.mu.Lock()
	defer z.mu.Unlock()
	z.finished, z.failed = true, request.GetFailed()
	clear(z.instances)
	for _, container := range slices.Sorted(maps.Keys(z.leases)) {
		z.release(container)
	}
	return &masterv1.FinishResponse{}, nil
}

// apply takes in a request of the master.
func (m masters) apply(request *masterv1.AllocateRequest) {
	z := m.zone
	for _, ask := range request.GetAsks() {
		known, ok := z.asks[ask.GetId()]
		if !ok {
			known = &askState{}
			z.asks[ask.GetId()] = known
		}
		known.ask = ask
	}
	for _, report := range request.GetInstances() {
		before := z.instances[report.GetId()]
		z.instances[report.GetId()] = report
		if !report.GetInService() && (before.GetInService() || report.GetState() == apiv1.Instance_DRAINING) {
			z.send(func(answer *masterv1.AllocateResponse) { answer.Withdrawn = append(answer.Withdrawn, report.GetId()) })
		}
	}
	for _, instance := range request.GetGoneInstances() {
		delete(z.instances, instance)
	}
	for _, release := range request.GetRelease() {
		z.release(release.GetContainerId())
	}
	if request.GetStatus() != nil {
		z.status = request.GetStatus()
	}
	if request.GetMemo() != nil {
		z.memo = request.GetMemo()
		if len(z.memo) > 64<<10 {
			z.violation("a memo of %d bytes", len(z.memo))
		}
	}
	if request.Traffic != nil {
		z.traffic = request.GetTraffic()
	}
	for _, note := range request.GetNotes() {
		if desired := noted(z.desired, note); desired != nil {
			z.setDesired(desired)
		}
	}
	if revise := request.GetRevise(); revise != nil {
		z.revisions = append(z.revisions, revise)
		if desired := revised(z.desired, revise); desired != nil {
			z.setDesired(desired)
		}
	}
	for _, answer := range request.GetAnswers() {
		m.answered(answer)
	}
	z.generation = max(z.generation, request.GetObservedGeneration())
	z.schedule()
	z.send(func(answer *masterv1.AllocateResponse) { answer.AppliedSequence = request.GetSequence() })
}

// answered passes a master's answer to the caller of Command.
func (m masters) answered(answer *masterv1.CommandAnswer) {
	z := m.zone
	for i, given := range z.commands {
		if given.message.GetId() == answer.GetId() {
			z.commands = slices.Delete(z.commands, i, i+1)
			given.answer <- answer
			return
		}
	}
}

// bearer is the bearer token of an attempt.
func bearer(attempt int32) string { return fmt.Sprintf("secret of attempt %d", attempt) }

// authenticate refuses calls without the token of the newest attempt.
func (m masters) authenticate(ctx context.Context) error {
	z := m.zone
	shown := strings.TrimPrefix(strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ","), "Bearer ")
	for attempt := int32(1); attempt <= z.attempt; attempt++ {
		switch {
		case shown != bearer(attempt):
		case attempt < z.attempt || z.finished:
			return errSuperseded
		default:
			return nil
		}
	}
	return status.Error(codes.Unauthenticated, "the bearer token is not that of an application master")
}

var errSuperseded = status.Error(codes.FailedPrecondition, "this attempt was replaced by a newer one")
