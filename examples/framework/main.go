// Command framework is an application master that somebody else wrote: a Go module of its own, which imports nothing of Mammoth but
// appmaster and proto. It keeps a ring of workers, which pass a number on from one to the next. A worker that ends is replaced under
// its name. A new command is that of the workers that start from then on. package.yaml makes a framework of it, and ring.yaml is an app of that:
//
//	mammoth framework install package.yaml
//	mammoth deploy ring.yaml --wait
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/appmaster"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func main() {
	run := func() error {
		config, err := appmaster.FromEnvironment()
		if err != nil {
			return err
		}
		return keep(context.Background(), config)
	}
	if strings.Join(os.Args[1:], " ") == "worker" {
		run = work
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "framework:", err)
		os.Exit(1)
	}
}

// ring is the master. Each worker has a number, which goes on when its container is replaced.
type ring struct {
	client *appmaster.Client
	config appmaster.Config
	// registry is where workers find each other.
	registry string
	// desired has the options: how many workers there are to be, and the command of each.
	desired *masterv1.DesiredState
	// workers are their numbers, by their containers; asks counts the asks of this attempt, and open those not answered.
	workers    map[string]int
	asks, open int
}

// keep keeps a ring until it is stopped, or another attempt takes over.
func keep(ctx context.Context, config appmaster.Config) error {
	client := appmaster.New(config)
	defer client.Close()
	registration, err := client.Register(ctx)
	if err != nil {
		return err
	}
	r := &ring{client: client, config: config, registry: registration.GetRegistry(), workers: map[string]int{}, desired: registration.GetDesired()}
	// The attempt before may have left workers, and containers that nothing was started in.
	for _, allocation := range registration.GetContainers() {
		if number, err := strconv.Atoi(allocation.GetLabels()["number"]); err == nil {
			r.workers[allocation.GetLease().GetContainerId()] = number
		} else {
			client.Release(allocation.GetLease().GetContainerId(), "nothing was started in it")
		}
	}
	for !r.desired.GetStopped() && !r.desired.GetRemoving() {
		r.fit()
		switch event := (<-client.Events()).(type) {
		case appmaster.Allocated:
			r.open--
			if err := r.start(ctx, event.Allocation); err != nil {
				return client.Fail(ctx, "a worker did not start: "+err.Error())
			}
		case appmaster.Completed:
			if number, known := r.workers[event.Status.GetLease().GetContainerId()]; known {
				delete(r.workers, event.Status.GetLease().GetContainerId())
				client.ForgetInstance(r.name(number))
				fmt.Printf("%s: %s\n", r.name(number), event.Status.GetExit().GetMessage())
				time.Sleep(time.Second) // workers that always end do not keep the zone busy
			}
		case appmaster.Withdrawn: // nobody passes numbers to it any more
			for container, number := range r.workers {
				if r.name(number) == event.Instance && number > r.size() {
					client.Release(container, "the ring is smaller now")
				}
			}
		case appmaster.DesiredChanged:
			r.desired = event.Desired
		case appmaster.Superseded:
			return appmaster.ErrSuperseded
		case nil:
			return context.Cause(ctx)
		}
	}
	return client.Finish(ctx, "it was stopped")
}

// fit asks for the workers that are missing, takes those out of service whose numbers are too high, and says how far that is.
func (r *ring) fit() {
	workers := r.size()
	for container, number := range r.workers {
		r.client.ReportInstance(&masterv1.InstanceReport{
			Id: r.name(number), ContainerId: container, Version: 1, State: apiv1.Instance_RUNNING, InService: number <= workers, Weight: 100,
		})
	}
	for ; len(r.workers)+r.open < workers; r.open++ {
		r.asks++
		r.client.SetAsk(&masterv1.Ask{
			Id: fmt.Sprintf("worker/%d.%d", r.config.Attempt, r.asks), Count: 1, Service: true,
			Resources: &corev1.Resources{CpuMillis: 50, MemoryBytes: 32 << 20, DiskBytes: 1 << 20, Ports: 1},
		})
	}
	status := &apiv1.MasterStatus{State: apiv1.MasterStatus_WORKING, Version: r.desired.GetVersion(), Done: int32(len(r.workers)), Total: int32(workers)}
	if status.Text = fmt.Sprintf("%d of %d workers are in the ring", len(r.workers), workers); len(r.workers) == workers {
		status.State = apiv1.MasterStatus_DONE
	}
	r.client.ReportStatus(status)
	r.client.ReportGeneration(r.desired.GetGeneration())
}

// start starts a worker in a container that was granted, under the first number that is free.
func (r *ring) start(ctx context.Context, allocation *masterv1.Allocation) error {
	number, command := 1, []string{}
	for slices.Contains(slices.Collect(maps.Values(r.workers)), number) {
		number++
	}
	for _, word := range r.desired.GetSpec().GetOptions().GetFields()["command"].GetListValue().GetValues() {
		command = append(command, word.GetStringValue())
	}
	r.workers[allocation.GetLease().GetContainerId()] = number
	_, err := r.client.Start(ctx, allocation, &corev1.ContainerSpec{
		Runtime: corev1.ContainerSpec_PROCESS, Command: command, Ports: []*corev1.Port{{Name: "ring", ContainerPort: 80}},
		Env:    map[string]string{"RING": r.config.App, "RING_WORKER": r.name(number), "MAMMOTH_REGISTRY": r.registry},
		Labels: map[string]string{"instance": r.name(number), "number": strconv.Itoa(number)},
	})
	return err
}

func (r *ring) name(number int) string { return fmt.Sprintf("%s-%d", r.config.App, number) }

func (r *ring) size() int {
	return int(r.desired.GetSpec().GetOptions().GetFields()["workers"].GetNumberValue())
}
