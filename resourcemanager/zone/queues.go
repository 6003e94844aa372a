package zone

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
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// queues are the queue tree and the file that declares it, if there is one. What the tree comes to is the scheduler's to work out.
type queues struct {
	*turn
	units     *units
	scheduler *scheduling
	access    *access.Rules
	lending   *lending
	// file is the path of the file that declares the tree; empty if there is none. badFile is why the file is refused at present.
	file, badFile string
	// tree is the one that was set last; nil if none was.
	tree *storev1.Queues
}

func (q *queues) load(stored Records) error {
	return loadRecords(stored, kindQueues, func(record *storev1.Queues) error {
		specs, err := q.read(record.GetQueues())
		if err != nil {
			return err
		}
		q.tree = record
		return q.scheduler.Apply(scheduler.SetQueues{Queues: specs})
	})
}

// set replaces the whole tree, or changes nothing.
func (q *queues) set(who peer.User, request *apiv1.SetQueuesRequest, apps []queuedApp) (*apiv1.ListQueuesResponse, error) {
	if err := q.access.MayOperate(who, "change queues"); err != nil {
		return nil, err
	}
	specs, err := q.read(request.GetQueues())
	if err != nil {
		return nil, err
	}
	if err := appsKeepQueues(apps, specs); err != nil {
		return nil, err
	}
	if request.GetDryRun() {
		usages, err := q.scheduler.QueuesAfter(scheduler.SetQueues{Queues: specs})
		if err != nil {
			return nil, err
		}
		return &apiv1.ListQueuesResponse{Queues: q.viewUsages(usages)}, nil
	}
	if file := q.file; file != "" {
		return nil, fmt.Errorf("the queue tree is declared in %s; change that file, which takes effect within a second: %w", file, errdefs.ErrFailedPrecondition)
	}
	if err := q.scheduler.Apply(scheduler.SetQueues{Queues: specs}); err != nil {
		return nil, err
	}
	q.saveTree(request.GetQueues())
	q.emit(&apiv1.Event{Kind: "queue", Message: fmt.Sprintf("the queue tree was replaced: %d queues", len(specs))})
	return &apiv1.ListQueuesResponse{Queues: q.viewAll()}, nil
}

func (q *queues) saveTree(queues []*apiv1.QueueSpec) {
	q.tree = &storev1.Queues{Queues: queues}
	q.save(kindQueues, "queues", q.tree)
}

// appsKeepQueues refuses a tree that an app's queue is not in.
func appsKeepQueues(apps []queuedApp, specs []scheduler.QueueSpec) error {
	known := map[id.Queue]bool{}
	for _, spec := range specs {
		known[spec.Name] = true
	}
	for _, a := range apps {
		if !known[a.queue] {
			return fmt.Errorf("queue %s has app %s, and is not in the new tree; keep %s in the file until the app is deployed to another queue: %w",
				a.queue, a.app, a.queue, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

func (q *queues) read(messages []*apiv1.QueueSpec) ([]scheduler.QueueSpec, error) {
	specs := make([]scheduler.QueueSpec, 0, len(messages))
	for _, message := range messages {
		if err := spec.CheckQueueName("a queue", message.GetName()); err != nil {
			return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		guaranteed, err := q.readCapacity(message.GetGuaranteed())
		if err != nil {
			return nil, fmt.Errorf("guarantee of queue %q: %w", message.GetName(), err)
		}
		maximum, err := q.readCapacity(message.GetMaximum())
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

func (q *queues) readCapacity(message *apiv1.Capacity) (scheduler.Capacity, error) {
	if message != nil && message.Percent != nil {
		return scheduler.Capacity{Percent: message.GetPercent(), IsPercent: true}, nil
	}
	if message.GetAbsolute() == nil {
		return scheduler.Capacity{}, nil
	}
	v, err := q.units.vector(message.GetAbsolute())
	return scheduler.Capacity{Absolute: v}, err
}

func (q *queues) viewAll() []*apiv1.Queue { return q.viewUsages(q.scheduler.Queues()) }

func (q *queues) viewUsages(usages []scheduler.QueueUsage) []*apiv1.Queue {
	var queues []*apiv1.Queue
	for _, usage := range usages {
		queues = append(queues, q.view(usage))
	}
	return queues
}

func (q *queues) named(name string) (*apiv1.Queue, error) {
	for _, usage := range q.scheduler.Queues() {
		if string(usage.Spec.Name) == name {
			return q.view(usage), nil
		}
	}
	return nil, fmt.Errorf("no queue is named %q; \"mammoth queue ls\" lists those that there are: %w", name, errdefs.ErrNotFound)
}

func (q *queues) view(usage scheduler.QueueUsage) *apiv1.Queue {
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
			Guaranteed:       q.viewCapacity(spec.Guaranteed),
			Maximum:          q.viewCapacity(spec.Maximum),
			State:            apiv1.QueueSpec_State(spec.State),
			MaxApps:          int32(spec.MaxApps),
			MaxMasterPercent: spec.MaxMasterPercent,
			Submit:           spec.Submit,
			Admin:            spec.Admin,
			Order:            order,
			UserLimitPercent: spec.UserLimitPercent,
			Notice:           notice,
		},
		Used:       q.units.resources(usage.Used),
		Pending:    q.units.resources(usage.Pending),
		Guaranteed: q.units.resources(usage.Guaranteed),
		Maximum:    q.units.resources(usage.Maximum),
		Apps:       int32(usage.Apps),
		Containers: int32(usage.Containers),
	}
}

func (q *queues) viewCapacity(capacity scheduler.Capacity) *apiv1.Capacity {
	switch {
	case capacity.IsPercent:
		return &apiv1.Capacity{Percent: proto.Float64(capacity.Percent)}
	case capacity.Absolute.IsZero():
		return nil
	}
	return &apiv1.Capacity{Absolute: q.units.resources(capacity.Absolute)}
}
