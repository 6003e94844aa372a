// Package shares says who may have how much of a zone: the queue tree, the file that declares it if there is one, and the contracts by
// which queues lend each other parts of their guarantees. It reads and stores them, and shows what they come to; that is the
// scheduler's to work out.
//
// Words:
//   - tree: all queues, which are replaced as a whole
//   - declare: put the tree and the contracts of the queue file in force
//   - refuse: leave everything as it is, because the file is wrong
//   - contract: a queue, the lender, lends a part of its guarantee to others, the borrowers
//   - window: the time in which a contract lends
//   - hand-back: the return of all that is lent, at the close of a window
//   - ledger: what a contract has come to so far
package shares

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// Kinds of records.
const (
	KindQueues   store.Kind = "queues"
	KindContract store.Kind = "contract"
)

// Turn is the present turn of the zone. None of its methods fails.
type Turn interface {
	Now() time.Time
	// Save has a record stored with the turn, Forget has it removed.
	Save(kind store.Kind, key string, record proto.Message)
	Forget(kind store.Kind, key string)
	// Emit adds an event to the turn.
	Emit(event *apiv1.Event)
	// Fault has a fault of the program logged, with pairs of a key and a value.
	Fault(text string, about ...any)
}

// Units translate resources between messages and vectors.
type Units interface {
	// Vector makes room for a resource that is named for the first time. It fails with errdefs.ErrInvalidArgument if there is none.
	Vector(message *corev1.Resources) (resource.Vector, error)
	Resources(v resource.Vector) *corev1.Resources
}

// Scheduler works out what queues and contracts come to.
type Scheduler interface {
	// Apply takes in a fact, or fails and changes nothing.
	Apply(input scheduler.Input) error
	Queues() []scheduler.QueueUsage
	// QueuesAfter is what Queues would be after a change, which is not made.
	QueuesAfter(change scheduler.SetQueues) ([]scheduler.QueueUsage, error)
	Ledgers() []scheduler.Ledger
}

// Zone is the zone as the shares need it.
type Zone struct {
	Turn      Turn
	Units     Units
	Scheduler Scheduler
	Access    *access.Rules
	// File is the path of the file that declares the queue tree; empty if there is none.
	File string
}

// New makes the shares of a zone: no tree is set, and there is no contract.
func New(zone Zone) (*Queues, *Lending) {
	lending := &Lending{zone: zone, byName: map[string]*contract{}}
	return &Queues{zone: zone, lending: lending}, lending
}

// QueuedApp is an app and the queue that it is in.
type QueuedApp struct {
	App   string
	Queue id.Queue
}
