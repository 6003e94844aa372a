package shares

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

// Queues are the queue tree and the file that declares it, if there is one. What the tree comes to is the scheduler's to work out.
type Queues struct {
	zone    Zone
	lending *Lending
	// refused is why the queue file is refused at present; empty if it is in force.
	refused string
	// tree is the one that was set last; nil if none was.
	tree *storev1.Queues
}

// Load takes in the stored tree.
func (q *Queues) Load(record *storev1.Queues) error {
	specs, err := q.read(record.GetQueues())
	if err != nil {
		return err
	}
	q.tree = record
	return q.zone.Scheduler.Apply(scheduler.SetQueues{Queues: specs})
}

// Set replaces the whole tree, or changes nothing.
func (q *Queues) Set(who peer.User, request *apiv1.SetQueuesRequest, apps []QueuedApp) (*apiv1.ListQueuesResponse, error) {
	if err := q.zone.Access.MayOperate(who, "change queues"); err != nil {
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
		usages, err := q.zone.Scheduler.QueuesAfter(scheduler.SetQueues{Queues: specs})
		if err != nil {
			return nil, err
		}
		return &apiv1.ListQueuesResponse{Queues: q.viewUsages(usages)}, nil
	}
	if file := q.zone.File; file != "" {
		return nil, fmt.Errorf("the queue tree is declared in %s; change that file, which takes effect within a second: %w", file, errdefs.ErrFailedPrecondition)
	}
	if err := q.zone.Scheduler.Apply(scheduler.SetQueues{Queues: specs}); err != nil {
		return nil, err
	}
	q.saveTree(request.GetQueues())
	q.zone.Turn.Emit(&apiv1.Event{Kind: "queue", Message: fmt.Sprintf("the queue tree was replaced: %d queues", len(specs))})
	return &apiv1.ListQueuesResponse{Queues: q.ViewAll()}, nil
}

func (q *Queues) saveTree(queues []*apiv1.QueueSpec) {
	q.tree = &storev1.Queues{Queues: queues}
	q.zone.Turn.Save(KindQueues, "queues", q.tree)
}

// appsKeepQueues refuses a tree that an app's queue is not in.
func appsKeepQueues(apps []QueuedApp, specs []scheduler.QueueSpec) error {
	known := map[id.Queue]bool{}
	for _, spec := range specs {
		known[spec.Name] = true
	}
	for _, a := range apps {
		if !known[a.Queue] {
			return fmt.Errorf("queue %s has app %s, and is not in the new tree; keep %s in the file until the app is deployed to another queue: %w",
				a.Queue, a.App, a.Queue, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

func (q *Queues) read(messages []*apiv1.QueueSpec) ([]scheduler.QueueSpec, error) {
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

func (q *Queues) readCapacity(message *apiv1.Capacity) (scheduler.Capacity, error) {
	if message != nil && message.Percent != nil {
		return scheduler.Capacity{Percent: message.GetPercent(), IsPercent: true}, nil
	}
	if message.GetAbsolute() == nil {
		return scheduler.Capacity{}, nil
	}
	v, err := q.zone.Units.Vector(message.GetAbsolute())
	return scheduler.Capacity{Absolute: v}, err
}

// ViewAll are all queues: behind each the ones below it, and those of one parent in the order of the file.
func (q *Queues) ViewAll() []*apiv1.Queue { return q.viewUsages(q.zone.Scheduler.Queues()) }

func (q *Queues) viewUsages(usages []scheduler.QueueUsage) []*apiv1.Queue {
	below := map[string][]*apiv1.Queue{}
	for _, usage := range usages {
		queue := q.view(usage)
		below[queue.GetSpec().GetParent()] = append(below[queue.GetSpec().GetParent()], queue)
	}
	ordered := make([]*apiv1.Queue, 0, len(usages))
	var add func(parent string)
	add = func(parent string) {
		for _, queue := range below[parent] {
			ordered = append(ordered, queue)
			add(queue.GetSpec().GetName())
		}
	}
	add("")
	return ordered
}

func (q *Queues) view(usage scheduler.QueueUsage) *apiv1.Queue {
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
		Used:       q.zone.Units.Resources(usage.Used),
		Pending:    q.zone.Units.Resources(usage.Pending),
		Guaranteed: q.zone.Units.Resources(usage.Guaranteed),
		Maximum:    q.zone.Units.Resources(usage.Maximum),
		Apps:       int32(usage.Apps),
		Containers: int32(usage.Containers),
	}
}

func (q *Queues) viewCapacity(capacity scheduler.Capacity) *apiv1.Capacity {
	switch {
	case capacity.IsPercent:
		return &apiv1.Capacity{Percent: proto.Float64(capacity.Percent)}
	case capacity.Absolute.IsZero():
		return nil
	}
	return &apiv1.Capacity{Absolute: q.zone.Units.Resources(capacity.Absolute)}
}
