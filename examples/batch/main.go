// Command batch is an application master whose work has an end: it asks for a number of containers, runs one command in each of
// them to its end, and finishes. A container whose command fails is replaced; after some failures the work has failed.
//
// If it dies, the next run is given the containers that this one holds, and goes on.
//
//	mammoth app run hello -- batch -containers 3 -image busybox:1 -- /bin/echo hello
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"

	"github.com/mammoth-os/mammoth/appmaster"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// mostFailures is how many commands may fail before the work has failed.
const mostFailures = 10

func main() {
	containers := flag.Int("containers", 3, "how many containers run the command")
	image := flag.String("image", "", "image in the zone's store; empty runs the command as a plain process")
	flag.Parse()
	config, err := appmaster.FromEnvironment()
	if err == nil {
		err = run(context.Background(), config, *containers, container(*image, flag.Args()))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "batch:", err)
		os.Exit(1)
	}
}

func container(image string, command []string) *corev1.ContainerSpec {
	if image == "" {
		return &corev1.ContainerSpec{Runtime: corev1.ContainerSpec_PROCESS, Command: command}
	}
	return &corev1.ContainerSpec{Runtime: corev1.ContainerSpec_DOCKER, Image: image, Command: command}
}

// run asks for containers, starts what is granted, and counts the commands that succeed. It asks again for those that fail.
func run(ctx context.Context, config appmaster.Config, count int, spec *corev1.ContainerSpec) error {
	client := appmaster.New(config)
	defer client.Close()
	registration, err := client.Register(ctx)
	if err != nil {
		return err
	}
	// The memo is the number of completed commands. Containers of an earlier attempt still run, or are started now.
	done, _ := strconv.Atoi(string(registration.GetMemo()))
	asked, failures := 0, 0
	ask := func(missing int) {
		for range missing {
			asked++
			client.SetAsk(&masterv1.Ask{
				Id: fmt.Sprintf("run/%d.%d", config.Attempt, asked), Count: 1,
				Resources: &corev1.Resources{CpuMillis: 100, MemoryBytes: 32 << 20, DiskBytes: 32 << 20},
			})
		}
	}
	start := func(allocation *masterv1.Allocation) {
		if _, err := client.Start(ctx, allocation, spec); err != nil {
			client.Release(allocation.GetLease().GetContainerId(), "it did not start: "+err.Error())
		}
	}
	for _, allocation := range registration.GetContainers() {
		start(allocation)
	}
	report := func() {
		client.ReportStatus(&apiv1.MasterStatus{
			State: apiv1.MasterStatus_WORKING, Version: registration.GetDesired().GetVersion(), Done: int32(done), Total: int32(count),
			Text: fmt.Sprintf("%d of %d commands have run", done, count),
		})
	}
	report()
	ask(count - done - len(registration.GetContainers()))
	client.ReportGeneration(registration.GetDesired().GetGeneration())
	for done < count {
		switch event := (<-client.Events()).(type) {
		case appmaster.Allocated:
			start(event.Allocation)
		case appmaster.Completed:
			if exit := event.Status.GetExit(); exit.GetReason() != corev1.Exit_EXITED || exit.GetCode() != 0 {
				fmt.Printf("%s: %s\n", event.Status.GetLease().GetContainerId(), exit.GetMessage())
				if failures++; failures > mostFailures {
					return client.Fail(ctx, fmt.Sprintf("%d commands have failed, the last one: %s", failures, exit.GetMessage()))
				}
				ask(1)
				break
			}
			done++
			client.SaveMemo([]byte(strconv.Itoa(done)))
			report()
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
	return client.Finish(ctx, fmt.Sprintf("%d of %d commands have run", done, count))
}
