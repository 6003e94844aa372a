package resourcemanager

import (
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// setQueues replaces the whole tree, or changes nothing.
func (z *zone) setQueues(who peer.User, request *apiv1.SetQueuesRequest) (*apiv1.ListQueuesResponse, error) {
	if err := z.mayOperate(who, "change queues"); err != nil {
		return nil, err
	}
	specs, err := z.readQueues(request.GetQueues())
	if err != nil {
		return nil, err
	}
	if err := z.appsKeepQueues(specs); err != nil {
		return nil, err
	}
	if request.GetDryRun() {
		usages, err := z.core.QueuesAfter(scheduler.SetQueues{Queues: specs})
		if err != nil {
			return nil, err
		}
		return &apiv1.ListQueuesResponse{Queues: z.viewUsages(usages)}, nil
	}
	if file := z.config.Queues; file != "" {
		return nil, fmt.Errorf("the queue tree is declared in %s; change that file, which takes effect within a second: %w", file, errdefs.ErrFailedPrecondition)
	}
	if err := z.core.Apply(scheduler.SetQueues{Queues: specs}); err != nil {
		return nil, err
	}
	z.saveTree(request.GetQueues())
	z.tell(&apiv1.Event{Kind: "queue", Message: fmt.Sprintf("the queue tree was replaced: %d queues", len(specs))})
	return &apiv1.ListQueuesResponse{Queues: z.viewQueues()}, nil
}

func (z *zone) saveTree(queues []*apiv1.QueueSpec) {
	z.tree = &storev1.Queues{Queues: queues}
	z.save(kindQueues, "queues", z.tree)
}

// appsKeepQueues refuses a tree that an app's queue is not in.
func (z *zone) appsKeepQueues(specs []scheduler.QueueSpec) error {
	known := map[id.Queue]bool{}
	for _, spec := range specs {
		known[spec.Name] = true
	}
	for _, a := range z.sortedApps() {
		if queue := id.Queue(a.record.GetSpec().GetQueue()); !known[queue] {
			return fmt.Errorf("queue %s has app %s, and is not in the new tree; keep %s in the file until the app is deployed to another queue: %w",
				queue, a.record.GetName(), queue, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

func (z *zone) readQueues(messages []*apiv1.QueueSpec) ([]scheduler.QueueSpec, error) {
	specs := make([]scheduler.QueueSpec, 0, len(messages))
	for _, message := range messages {
		if err := spec.CheckQueueName("a queue", message.GetName()); err != nil {
			return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		guaranteed, err := z.readCapacity(message.GetGuaranteed())
		if err != nil {
			return nil, fmt.Errorf("guarantee of queue %q: %w", message.GetName(), err)
		}
		maximum, err := z.readCapacity(message.GetMaximum())
		if err != nil {
			return nil, fmt.Errorf("maximum of queue %q: %w", message.GetName(), err)
		}
		if notice := message.GetNotice().AsDuration(); notice < 0 || notice > longestNotice {
			return nil, fmt.Errorf("queue %q has a notice of %s; it is up to a day: %w", message.GetName(), notice, errdefs.ErrInvalidArgument)
		}
		specs = append(specs, scheduler.QueueSpec{
			Name:             id.Queue(message.GetName()),
			Parent:           id.Queue(message.GetParent()),
			Guaranteed:       guaranteed,
			Maximum:          maximum,
			State:            scheduler.QueueState(message.GetState()),
			MaxApps:          int(message.GetMaxApps()),
			MaxMasterPercent: message.GetMaxMasterPercent(),
			Fair:             message.GetOrder() == apiv1.QueueSpec_FAIR,
			UserLimitPercent: message.GetUserLimitPercent(),
			Submit:           message.GetSubmit(),
			Admin:            message.GetAdmin(),
			Notice:           message.GetNotice().AsDuration(),
		})
	}
	return specs, nil
}

func (z *zone) readCapacity(message *apiv1.Capacity) (scheduler.Capacity, error) {
	if message != nil && message.Percent != nil {
		return scheduler.Capacity{Percent: message.GetPercent(), IsPercent: true}, nil
	}
	if message.GetAbsolute() == nil {
		return scheduler.Capacity{}, nil
	}
	v, err := z.vector(message.GetAbsolute())
	return scheduler.Capacity{Absolute: v}, err
}

func (z *zone) viewQueues() []*apiv1.Queue { return z.viewUsages(z.core.Queues()) }

func (z *zone) viewUsages(usages []scheduler.QueueUsage) []*apiv1.Queue {
	var queues []*apiv1.Queue
	for _, usage := range usages {
		queues = append(queues, z.viewQueue(usage))
	}
	return queues
}

func (z *zone) queue(name string) (*apiv1.Queue, error) {
	for _, usage := range z.core.Queues() {
		if string(usage.Spec.Name) == name {
			return z.viewQueue(usage), nil
		}
	}
	return nil, fmt.Errorf("no queue is named %q; \"mammoth queue ls\" lists those that there are: %w", name, errdefs.ErrNotFound)
}

func (z *zone) viewQueue(usage scheduler.QueueUsage) *apiv1.Queue {
	spec := usage.Spec
	order := apiv1.QueueSpec_FIFO
	if spec.Fair {
		order = apiv1.QueueSpec_FAIR
	}
	var notice *durationpb.Duration
	if spec.Notice > 0 {
		notice = durationpb.New(spec.Notice)
	}
	return &apiv1.Queue{
		Spec: &apiv1.QueueSpec{
			Name:             string(spec.Name),
			Parent:           string(spec.Parent),
			Guaranteed:       z.viewCapacity(spec.Guaranteed),
			Maximum:          z.viewCapacity(spec.Maximum),
			State:            apiv1.QueueSpec_State(spec.State),
			MaxApps:          int32(spec.MaxApps),
			MaxMasterPercent: spec.MaxMasterPercent,
			Submit:           spec.Submit,
			Admin:            spec.Admin,
			Order:            order,
			UserLimitPercent: spec.UserLimitPercent,
			Notice:           notice,
		},
		Used:       z.resources(usage.Used),
		Pending:    z.resources(usage.Pending),
		Guaranteed: z.resources(usage.Guaranteed),
		Maximum:    z.resources(usage.Maximum),
		Apps:       int32(usage.Apps),
		Containers: int32(usage.Containers),
	}
}

func (z *zone) viewCapacity(capacity scheduler.Capacity) *apiv1.Capacity {
	switch {
	case capacity.IsPercent:
		return &apiv1.Capacity{Percent: proto.Float64(capacity.Percent)}
	case capacity.Absolute.IsZero():
		return nil
	}
	return &apiv1.Capacity{Absolute: z.resources(capacity.Absolute)}
}
