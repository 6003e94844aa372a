package zone

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// QueueFileText is what a look at the queue file found: its text, or why it could not be read.
type QueueFileText struct{ Text, Failure string }

// loadDeclaration makes the queue file's tree the zone's. One that cannot be keeps a zone from starting only if there is no
// tree that could stay in force.
func (s *shares) loadDeclaration(found QueueFileText, apps []resident) error {
	if s.file == "" {
		return nil
	}
	err := s.declare(found, apps)
	if err != nil && s.tree != nil {
		s.refuse(err)
		return nil
	}
	return err
}

// redeclare takes in a changed queue file.
func (s *shares) redeclare(found QueueFileText, apps []resident) {
	before, tree := s.badFile, s.tree
	s.badFile = ""
	if err := s.declare(found, apps); err != nil {
		s.refuse(err)
		return
	}
	if before != "" && s.tree == tree {
		// Whoever read that the file was refused is to read that it is right again.
		s.emit(&apiv1.Event{Kind: "queue", From: "REFUSED", To: "DECLARED", Message: fmt.Sprintf("%s is right again; the queue tree in force is the one it declares", s.file)})
	}
}

func (s *shares) refuse(err error) {
	s.badFile = wire.Sentence(err)
	s.fault("the queue file is refused, and the queue tree stays as it is", "error", s.badFile)
	s.emit(&apiv1.Event{Kind: "queue", To: "REFUSED", Message: s.badFile + "; the queue tree stays as it is"})
}

// declare makes what the queue file says the queue tree and the declared contracts, or changes nothing. Contracts that people
// have added stay.
func (s *shares) declare(found QueueFileText, apps []resident) error {
	path := s.file
	if found.Failure != "" {
		return fmt.Errorf("the queue file %s: %w", found.Failure, errdefs.ErrFailedPrecondition)
	}
	declared, err := manifest.ParseDeclaration([]byte(found.Text))
	if err != nil {
		return inQueueFile(path, err)
	}
	if err := s.install(declared, apps); err != nil {
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

func (s *shares) install(declared manifest.Declaration, apps []resident) error {
	specs, err := s.readQueues(declared.Queues)
	if err != nil {
		return err
	}
	if err := appsKeepQueues(apps, specs); err != nil {
		return err
	}
	contracts, err := s.contractsWith(declared.Contracts)
	if err != nil {
		return err
	}
	var gone, set []*contract
	for _, k := range s.sortedContracts() {
		if k.record.GetDeclared() && !slices.ContainsFunc(declared.Contracts, func(spec *apiv1.ContractSpec) bool { return spec.GetName() == k.name() }) {
			delete(contracts, k.name())
			gone = append(gone, k)
		}
	}
	for _, spec := range declared.Contracts {
		k := contracts[spec.GetName()]
		known := s.contracts[spec.GetName()]
		if known == nil || !known.record.GetDeclared() || !proto.Equal(known.record.GetSpec(), spec) {
			set = append(set, k)
		}
		k.record.Declared = true
	}
	lending, err := foreseen(contracts, s.now)
	if err != nil {
		return err
	}
	if err := s.scheduler.Apply(scheduler.SetQueues{Queues: specs, Contracts: lending}); err != nil {
		return err
	}
	s.arranged(contracts, lending)
	for _, k := range gone {
		s.contractGone(k)
	}
	for _, k := range set {
		s.contractSet(k)
	}
	if !proto.Equal(s.tree, &storev1.Queues{Queues: declared.Queues}) {
		s.saveTree(declared.Queues)
		s.emit(&apiv1.Event{Kind: "queue", To: "DECLARED", Message: fmt.Sprintf("the queue tree is the one in %s now: %d queues", s.file, len(specs))})
	}
	return nil
}

// notDeclared refuses to change a contract that the queue file holds.
func (s *shares) notDeclared(k *contract) error {
	if s.file != "" && k.record.GetDeclared() {
		return fmt.Errorf("contract %s is declared in %s; change that file, which takes effect within a second: %w", k.name(), s.file, errdefs.ErrFailedPrecondition)
	}
	return nil
}
