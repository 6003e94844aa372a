package shares

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// FileText is the text of the queue file, or why it could not be read.
type FileText struct{ Text, Failure string }

// LoadDeclaration puts the tree of the queue file in force at a start. A file that is refused keeps the zone from starting only if there is
// no tree that could stay in force.
func (q *Queues) LoadDeclaration(found FileText, apps []QueuedApp) error {
	if q.zone.File == "" {
		return nil
	}
	err := q.declare(found, apps)
	if err != nil && q.tree != nil {
		q.refuse(err)
		return nil
	}
	return err
}

// Redeclare puts the tree of a changed queue file in force.
func (q *Queues) Redeclare(found FileText, apps []QueuedApp) {
	before, tree := q.refused, q.tree
	q.refused = ""
	if err := q.declare(found, apps); err != nil {
		q.refuse(err)
		return
	}
	if before != "" && q.tree == tree {
		// An event said that the file was refused: another one says that it is right again.
		q.zone.Turn.Emit(&apiv1.Event{Kind: "queue", From: "REFUSED", To: "DECLARED", Message: fmt.Sprintf("%s is right again; the queue tree in force is the one it declares", q.zone.File)})
	}
}

// FileRefused reports whether the queue file is refused at present.
func (q *Queues) FileRefused() bool { return q.refused != "" }

func (q *Queues) refuse(err error) {
	q.refused = wire.Sentence(err)
	q.zone.Turn.Fault("the queue file is refused, and the queue tree stays as it is", "error", q.refused)
	q.zone.Turn.Emit(&apiv1.Event{Kind: "queue", To: "REFUSED", Message: q.refused + "; the queue tree stays as it is"})
}

// declare puts the tree and the contracts of the queue file in force, or changes nothing. Contracts that people have added stay.
func (q *Queues) declare(found FileText, apps []QueuedApp) error {
	path := q.zone.File
	if found.Failure != "" {
		return fmt.Errorf("the queue file %s: %w", found.Failure, errdefs.ErrFailedPrecondition)
	}
	declared, err := manifest.ParseDeclaration([]byte(found.Text))
	if err != nil {
		return inQueueFile(path, err)
	}
	if err := q.install(declared, apps); err != nil {
		var names []string
		for _, queue := range declared.Queues {
			names = append(names, queue.GetName())
		}
		for _, contract := range declared.Contracts {
			names = append(names, contract.GetName())
		}
		return inQueueFile(path, manifest.AtLine([]byte(found.Text), names, err))
	}
	return nil
}

// inQueueFile puts the file before each thing that is wrong with it.
func inQueueFile(path string, err error) error {
	var mistakes manifest.Errors
	if !errors.As(err, &mistakes) {
		return fmt.Errorf("%s: %s", path, wire.Sentence(err))
	}
	lines := make([]string, len(mistakes))
	for i, mistake := range mistakes {
		lines[i] = path + ": " + mistake.Error()
	}
	return errors.New(strings.Join(lines, "; "))
}

func (q *Queues) install(declared manifest.Declaration, apps []QueuedApp) error {
	specs, err := q.read(declared.Queues)
	if err != nil {
		return err
	}
	if err := appsKeepQueues(apps, specs); err != nil {
		return err
	}
	change, err := q.lending.declare(declared.Contracts)
	if err != nil {
		return err
	}
	if err := q.zone.Scheduler.Apply(scheduler.SetQueues{Queues: specs, Contracts: change.specs}); err != nil {
		return err
	}
	q.lending.adopt(change)
	if !proto.Equal(q.tree, &storev1.Queues{Queues: declared.Queues}) {
		q.saveTree(declared.Queues)
		q.zone.Turn.Emit(&apiv1.Event{Kind: "queue", To: "DECLARED", Message: fmt.Sprintf("the queue tree is the one in %s now: %d queues", q.zone.File, len(specs))})
	}
	return nil
}
