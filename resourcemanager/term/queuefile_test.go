package term

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/shares"
)

const (
	twoQueues   = "queues:\n  - {name: default, guaranteed: 60%}\n  - {name: batch, guaranteed: 40%, submit: [analyst]}\n"
	oneQueue    = "queues:\n  - {name: default, guaranteed: 90%}\n"
	lentNightly = "lending:\n  - {name: nightly, lender: default, borrowers: [batch], lend: 50%, notice: 10s, grace: 10s}\n"
)

// withQueueFile runs a test in a zone whose queue tree is declared in a file.
func withQueueFile(t *testing.T, text string, test func(z *testZone, write func(string))) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "queues.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inZone(t, func(z *testZone) {
		write(text)
		z.queues = path
		z.restart()
		test(z, func(text string) {
			write(text)
			z.pass(time.Second)
		})
	})
}

// tree gives the queues with their guarantees.
func (z *testZone) tree() string {
	z.t.Helper()
	var names []string
	for _, queue := range z.rm.Queues() {
		names = append(names, queue.GetSpec().GetName())
	}
	return strings.Join(names, " ")
}

// queueEvents gives the sentences of events about the queue tree.
func (z *testZone) queueEvents() []string {
	z.t.Helper()
	var sentences []string
	reader := z.rm.Events(&apiv1.WatchEventsRequest{Kind: "queue"})
	for {
		events, err := reader.Next(context.Background())
		if errors.Is(err, io.EOF) {
			return sentences
		}
		if err != nil {
			z.t.Fatal(err)
		}
		for _, event := range events {
			sentences = append(sentences, event.GetTo()+" "+strings.ReplaceAll(event.GetMessage(), z.queues, "queues.yaml"))
		}
	}
}

func TestTheQueueFileIsFollowed(t *testing.T) {
	withQueueFile(t, twoQueues, func(z *testZone, write func(string)) {
		if got := z.tree(); got != "root default batch" {
			t.Fatalf("at the start: %s", got)
		}
		write(oneQueue)
		if got := z.tree(); got != "root default" {
			t.Errorf("after a change: %s", got)
		}
		z.restart()
		want := []string{"DECLARED the queue tree is the one in queues.yaml now: 3 queues", "DECLARED the queue tree is the one in queues.yaml now: 2 queues"}
		if got := z.queueEvents(); !slices.Equal(got, want) {
			t.Errorf("events: %q", got)
		}
	})
}

func TestTheFileTakesThePlaceOfAStoredTree(t *testing.T) {
	withQueueFile(t, oneQueue, func(z *testZone, _ func(string)) {
		path := z.queues
		z.queues = ""
		z.restart()
		if _, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: guardedQueues()}); err != nil {
			t.Fatal(err)
		}
		z.queues = path
		z.restart()
		if got := z.tree(); got != "root default" {
			t.Errorf("the tree is %s", got)
		}
		if got := z.queueEvents(); got[len(got)-1] != "DECLARED the queue tree is the one in queues.yaml now: 2 queues" {
			t.Errorf("events: %q", got)
		}
		_, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: guardedQueues()})
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "declared in "+path) {
			t.Errorf("set beside the file: %v", err)
		}
		if _, err := z.rm.SetQueues(as("root"), &apiv1.SetQueuesRequest{Queues: guardedQueues(), DryRun: true}); err != nil {
			t.Errorf("checked beside the file: %v", err)
		}
	})
}

func TestABadFileChangesNothingAndSaysWhichLine(t *testing.T) {
	withQueueFile(t, twoQueues+lentNightly, func(z *testZone, write func(string)) {
		if _, err := z.rm.Deploy(as("analyst"), &apiv1.DeployRequest{Spec: specIn("web", "batch")}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ text, want string }{
			{"queues:\n  - {name: default, guarantee: 90%}\n", `queues.yaml: line 2: unknown key "guarantee"; did you mean "guaranteed"?`},
			{"queues:\n  - {name: default, guaranteed: 70%}\n  - {name: batch, guaranteed: 40%}\n", `queues.yaml: line 3: with queue "batch", the guarantees below "root" add up to more than it has: 110% of 100%`},
			{oneQueue, "queues.yaml: queue batch has app web, and is not in the new tree; keep batch in the file until the app is deployed to another queue"},
			{twoQueues + "  - {name: night, parent: batch}\n", "queues.yaml: line 3: queue batch cannot be given children: it has the app web"},
			{twoQueues + strings.ReplaceAll(lentNightly, "[batch]", "[nobody]"), `queues.yaml: line 5: lending contract nightly has the borrower "nobody", which is no queue`},
			{"", "queues.yaml: the file is empty"},
		} {
			write(c.text)
			events := z.queueEvents()
			last := events[len(events)-1]
			if !strings.HasPrefix(last, "REFUSED "+c.want) || !strings.HasSuffix(last, "; the queue tree stays as it is") {
				t.Errorf("got:  %s\nwant: %s", last, c.want)
			}
			if got := z.tree(); got != "root default batch" {
				t.Errorf("after %s the tree is %s", c.want, got)
			}
			if k, err := z.rm.Contract("nightly"); err != nil || !slices.Equal(k.GetSpec().GetBorrowers(), []string{"batch"}) {
				t.Errorf("after %s the contract is %v, %v", c.want, k, err)
			}
			z.pass(5 * time.Second)
			if again := z.queueEvents(); len(again) != len(events) {
				t.Errorf("one bad file was refused more than once: %q", again[len(events):])
			}
		}
		z.restart() // with a tree in the store a bad file does not keep it from starting
		if got := z.tree(); got != "root default batch" {
			t.Errorf("after a restart the tree is %s", got)
		}
		if err := os.Remove(z.queues); err != nil {
			t.Fatal(err)
		}
		z.pass(time.Second)
		if events := z.queueEvents(); !strings.Contains(events[len(events)-1], "queues.yaml is not there") {
			t.Errorf("of a file that is gone: %s", events[len(events)-1])
		}
		write(twoQueues)
		if got := z.rm.Contracts(); len(got.GetContracts()) != 0 {
			t.Errorf("a contract that the file does not declare any more: %v", got)
		}
	})
}

func TestARefusedFileIsTriedAgainWhenAsked(t *testing.T) {
	withQueueFile(t, twoQueues, func(z *testZone, write func(string)) {
		if _, err := z.rm.Deploy(as("analyst"), &apiv1.DeployRequest{Spec: specIn("web", "batch")}); err != nil {
			t.Fatal(err)
		}
		write(oneQueue)
		if _, err := z.rm.Remove(as("analyst"), "web"); err != nil {
			t.Fatal(err)
		}
		z.pass(time.Minute)
		if got := z.tree(); got != "root default batch" {
			t.Errorf("nobody asked, and the tree is %s", got)
		}
		z.rm.RereadQueues()
		z.pass(time.Second)
		if got := z.tree(); got != "root default" {
			t.Errorf("the tree is %s", got)
		}
	})
}

func TestContractsOfTheFileAndContractsOfPeople(t *testing.T) {
	withQueueFile(t, twoQueues+lentNightly, func(z *testZone, write func(string)) {
		add := func(name string) error {
			_, err := z.rm.AddContracts(as("root"), &apiv1.AddContractsRequest{Contracts: []*apiv1.ContractSpec{
				{Name: name, Lender: "default", Borrowers: []string{"batch"}, LendPercent: 10},
			}})
			return err
		}
		if err := add("byhand"); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{add("nightly"), z.rm.RemoveContract(as("root"), "nightly")} {
			if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "is declared in") {
				t.Errorf("a declared contract was changed beside the file: %v", err)
			}
		}
		if _, err := z.rm.LendNow(as("root"), &apiv1.LendNowRequest{Name: "nightly", For: durationpb.New(time.Hour)}); err != nil {
			t.Errorf("its window: %v", err)
		}
		// Queue and contract change in one step: neither of them could alone.
		write("queues:\n  - {name: default, guaranteed: 60%}\n  - {name: late, guaranteed: 40%}\n" + strings.ReplaceAll(lentNightly, "batch", "late"))
		if got := z.tree(); got != "root default batch" {
			t.Errorf("the contract byhand lost its borrower: %s", got)
		}
		if err := z.rm.RemoveContract(as("root"), "byhand"); err != nil {
			t.Fatal(err)
		}
		z.rm.RereadQueues()
		z.pass(time.Second)
		k, err := z.rm.Contract("nightly")
		if got := z.tree(); got != "root default late" || err != nil || k.GetState() != apiv1.Contract_LENDING || !slices.Equal(k.GetSpec().GetBorrowers(), []string{"late"}) {
			t.Errorf("the tree is %s, the contract %v, %v", got, k, err)
		}
	})
}

func TestAZoneWithoutATreeDoesNotStartWithABadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queues.yaml")
	if err := os.WriteFile(path, []byte("queues: none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := zone.Load(store.OpenMemory(&store.Disk{}, store.Options{Now: time.Now(), EventRetention: 10}), zone.Start{
		Settings: zone.Settings{QueueFile: path}, Now: time.Now(), QueueFile: readQueueFile(path),
	})
	if err == nil || !strings.HasPrefix(err.Error(), path+": line 1, column 9: ") {
		t.Errorf("got %v", err)
	}
}

// Opening a pipe waits for whoever writes to it, and would keep the ResourceManager from ending.
func TestAQueueFileThatIsAPipeIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queues.yaml")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	found := make(chan shares.FileText, 1)
	go func() { found <- readQueueFile(path) }()
	select {
	case got := <-found:
		if want := (shares.FileText{Failure: path + " is no regular file, and cannot be read again and again"}); got != want {
			t.Errorf("got %q", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("it is still waited for")
	}
}

func TestAFileThatIsRightAgainIsToldOf(t *testing.T) {
	withQueueFile(t, oneQueue, func(z *testZone, write func(string)) {
		write("queues: [")
		write(oneQueue)
		got := z.queueEvents()
		if want := "DECLARED queues.yaml is right again; the queue tree in force is the one it declares"; got[len(got)-1] != want {
			t.Errorf("events: %q", got)
		}
		if len(got) != 3 || !strings.HasPrefix(got[1], "REFUSED") {
			t.Errorf("events: %q", got)
		}
	})
}
