package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	"github.com/mammoth-os/mammoth/nodemanager/recovery"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func record(seq int64) recovery.Record {
	key := id.Container{Epoch: 3, App: id.App{ClusterStart: 1, Seq: 2}, Seq: seq}
	grace := time.Second
	started := time.Unix(1_000_000, 123_000_000).UTC()
	return recovery.Record{
		Container: &container.Container{
			ID: key, State: container.Running, HasProbe: true, StartPeriod: time.Minute, Grace: 10 * time.Second,
			Sequence: 42, Health: container.Healthy, Launched: true,
			Process:     container.Process{RuntimeID: "abc", StartedAt: started, Ports: []container.Port{{Name: "http", Container: 80, Host: 31000}}},
			Phases:      []container.Phase{{Name: "download", StartedAt: started, Duration: time.Second, Bytes: 7}},
			StopRequest: &container.Stop{Reason: container.Preempted, Message: "lent", Grace: &grace},
			Exit:        &container.Exit{Reason: container.OOMKilled, Code: 137, Message: "OOMKilled"},
		},
		Lease: &corev1.Lease{ContainerId: key.String(), AppName: "web", Resources: &corev1.Resources{CpuMillis: 500}},
		Spec:  &corev1.ContainerSpec{Image: "web@sha256:1", Env: map[string]string{"A": "b"}, StopGrace: durationpb.New(time.Second)},
	}
}

// open opens a file and writes to it until the function it gives is called, which closes it.
func open(t *testing.T, path string) (*recovery.File, func()) {
	t.Helper()
	file, err := recovery.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		file.Run(ctx, func(err error) { t.Error(err) })
		close(done)
	}()
	return file, func() {
		cancel()
		<-done
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "store")
	file, shut := open(t, path)
	want := record(1)
	written := make(chan error, 1)
	file.Save(record(2), nil)
	file.Save(want, func(err error) { written <- err })
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	file.Drop(record(2).Container.ID.String())
	shut() // what is queued is written first

	file, shut = open(t, path)
	defer shut()
	records, err := file.Load()
	if err != nil || len(records) != 1 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	got := records[0]
	if !proto.Equal(got.Lease, want.Lease) || !proto.Equal(got.Spec, want.Spec) {
		t.Errorf("got %v %v, want %v %v", got.Lease, got.Spec, want.Lease, want.Spec)
	}
	if fmt.Sprintf("%+v", plain(got.Container)) != fmt.Sprintf("%+v", plain(want.Container)) {
		t.Errorf("got %+v, want %+v", plain(got.Container), plain(want.Container))
	}
}

// plain is a container with its pointers followed, to be compared as text.
func plain(c *container.Container) any {
	copied := *c
	stop, grace, exit := *c.StopRequest, *c.StopRequest.Grace, *c.Exit
	copied.StopRequest, copied.Exit, stop.Grace = nil, nil, nil
	return []any{copied, stop, grace, exit}
}

func TestTheLastWriteOfAContainerStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	file, shut := open(t, path)
	for i := range int64(500) {
		r := record(1)
		r.Container.Sequence = i
		file.Save(r, nil)
	}
	shut()
	file, shut = open(t, path)
	defer shut()
	records, err := file.Load()
	if err != nil || len(records) != 1 || records[0].Container.Sequence != 499 {
		t.Errorf("%v, %v", records, err)
	}
}

func TestEverybodyWhoWaitsIsTold(t *testing.T) {
	file, shut := open(t, filepath.Join(t.TempDir(), "store"))
	defer shut()
	var told sync.WaitGroup
	for i := range int64(2000) {
		told.Add(1)
		file.Save(record(i), func(err error) {
			if err != nil {
				t.Error(err)
			}
			told.Done()
		})
	}
	told.Wait()
	records, err := file.Load()
	if err != nil || len(records) != 2000 {
		t.Errorf("%d records, %v", len(records), err)
	}
}

func TestOneNodeManagerAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	_, shut := open(t, path)
	if _, err := recovery.Open(path); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a second one: %v", err)
	}
	shut()
	_, shut = open(t, path)
	shut()
}

func TestAFactStaysAsItWasFirstMeasured(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	for i, measured := range []int64{100, 70, 200} {
		file, shut := open(t, path)
		if got, err := file.Fact("disk", measured); got != 100 || err != nil {
			t.Errorf("start %d: %d, %v", i, got, err)
		}
		shut()
	}
}

// BenchmarkRecord is what a start waits for its record, alone and among many.
func BenchmarkRecord(b *testing.B) {
	for _, together := range []int{1, 20, 200} {
		b.Run(fmt.Sprint(together), func(b *testing.B) {
			file, err := recovery.Open(filepath.Join(b.TempDir(), "store"))
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { file.Run(ctx, func(err error) { b.Error(err) }); close(done) }()
			for b.Loop() {
				var told sync.WaitGroup
				for i := range together {
					told.Add(1)
					file.Save(record(int64(i)), func(error) { told.Done() })
				}
				told.Wait()
			}
			cancel()
			<-done
			_ = file.Close()
		})
	}
}

func TestAFolderKeepsItsID(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	var ids []string
	for _, path := range []string{path, path, filepath.Join(t.TempDir(), "store")} {
		file, err := recovery.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		id, err := file.FolderID()
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if ids[0] == "" || ids[0] != ids[1] || ids[0] == ids[2] {
		t.Errorf("the same folder twice, then another one: %q", ids)
	}
}

// A damaged record is an error and is not skipped: its container would look like one without a record.
func TestDamagedRecordsAreRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	file, shut := open(t, dir)
	written := make(chan error, 1)
	file.Save(record(1), func(err error) { written <- err })
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	shut()
	runs, err := filepath.Glob(filepath.Join(dir, "*.run"))
	if err != nil || len(runs) != 1 {
		t.Fatal(runs, err)
	}
	raw, err := os.ReadFile(runs[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[bytes.Index(raw, []byte("OOMKilled"))]++
	if err := os.WriteFile(runs[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := recovery.Open(dir); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "mammoth store check") {
		t.Errorf("opened with %v", err)
	}
}
