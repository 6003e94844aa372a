// Command framework is an application master that somebody else wrote: a Go module of its own, which imports nothing of Mammoth but
// appmaster and proto. It keeps a ring of workers, which pass a number on from one to the next. A worker that ends is replaced under
// its name.
//
//	mammoth app run ring -- framework -workers 3
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/mammoth-os/mammoth/appmaster"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func main() {
	workers := flag.Int("workers", 3, "how many workers the ring has")
	flag.Parse()
	err := fmt.Errorf("%q is none of its arguments", flag.Args())
	switch flag.Arg(0) {
	case "":
		var config appmaster.Config
		if config, err = appmaster.FromEnvironment(); err == nil {
			err = keep(context.Background(), config, *workers)
		}
	case "worker":
		err = work()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "framework:", err)
		os.Exit(1)
	}
}

// ring is the master. Each worker has a name, which goes on when its container is replaced.
type ring struct {
	client *appmaster.Client
	config appmaster.Config
	// registry is where workers find each other.
	registry string
	// names are those of the workers, by their containers; asks counts the asks of this attempt.
	names map[string]string
	asks  int
}

// keep keeps a ring of so many workers until another attempt takes over.
func keep(ctx context.Context, config appmaster.Config, workers int) error {
	client := appmaster.New(config)
	defer client.Close()
	registration, err := client.Register(ctx)
	if err != nil {
		return err
	}
	r := &ring{client: client, config: config, registry: registration.GetRegistry(), names: map[string]string{}}
	// The attempt before may have left workers, and containers that nothing was started in.
	for _, allocation := range registration.GetContainers() {
		if name := allocation.GetLabels()["instance"]; name != "" {
			r.serve(allocation, name)
		} else {
			client.Release(allocation.GetLease().GetContainerId(), "nothing was started in it")
		}
	}
	for range workers - len(r.names) {
		r.ask()
	}
	client.ReportGeneration(registration.GetWanted().GetGeneration())
	for {
		switch event := (<-client.Events()).(type) {
		case appmaster.Allocated:
			if err := r.start(ctx, event.Allocation); err != nil {
				return client.Fail(ctx, "a worker did not start: "+err.Error())
			}
		case appmaster.Completed:
			if name, known := r.names[event.Status.GetLease().GetContainerId()]; known {
				delete(r.names, event.Status.GetLease().GetContainerId())
				client.ForgetInstance(name)
				fmt.Printf("%s: %s\n", name, event.Status.GetExit().GetMessage())
				time.Sleep(time.Second) // workers that always end do not keep the zone busy
				r.ask()
			}
		case appmaster.DesiredChanged:
			if event.Desired.GetStopped() || event.Desired.GetRemoving() {
				return client.Finish(ctx, "it was stopped")
			}
			client.ReportGeneration(event.Desired.GetGeneration())
		case appmaster.Superseded:
			return appmaster.ErrSuperseded
		case nil:
			return context.Cause(ctx)
		}
	}
}

func (r *ring) ask() {
	r.asks++
	r.client.SetAsk(&masterv1.Ask{
		Id: fmt.Sprintf("worker/%d.%d", r.config.Attempt, r.asks), Count: 1, Service: true,
		Resources: &corev1.Resources{CpuMillis: 50, MemoryBytes: 32 << 20, DiskBytes: 1 << 20, Ports: 1},
	})
}

// start starts a worker in a container that was granted, under the first name that is free.
func (r *ring) start(ctx context.Context, allocation *masterv1.Allocation) error {
	taken := map[string]bool{}
	for _, name := range r.names {
		taken[name] = true
	}
	number := 1
	for taken[r.name(number)] {
		number++
	}
	name := r.name(number)
	program, err := os.Executable()
	if err != nil {
		return err
	}
	r.serve(allocation, name)
	_, err = r.client.Start(ctx, allocation, &corev1.ContainerSpec{
		Runtime: corev1.ContainerSpec_PROCESS, Command: []string{program, "worker"},
		Ports:  []*corev1.Port{{Name: "ring", ContainerPort: 80}},
		Env:    map[string]string{"RING": r.config.App, "RING_WORKER": name, "MAMMOTH_REGISTRY": r.registry},
		Labels: map[string]string{"instance": name},
	})
	return err
}

func (r *ring) name(number int) string { return fmt.Sprintf("%s-%d", r.config.App, number) }

// serve has the registry name a worker.
func (r *ring) serve(allocation *masterv1.Allocation, name string) {
	r.names[allocation.GetLease().GetContainerId()] = name
	r.client.ReportInstance(&masterv1.InstanceReport{
		Id: name, ContainerId: allocation.GetLease().GetContainerId(), Version: 1, State: apiv1.Instance_RUNNING, InService: true, Weight: 100,
	})
}
