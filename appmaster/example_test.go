package appmaster_test

import (
	"context"
	"fmt"
	"log"

	"github.com/mammoth-os/mammoth/appmaster"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// An application master that runs one command in three containers and ends when they have ended. examples/batch does the same and
// survives restarts.
func Example() {
	config, err := appmaster.FromEnvironment()
	if err != nil {
		fmt.Println("not started by a ResourceManager")
		return
	}
	ctx := context.Background()
	client := appmaster.New(config)
	defer client.Close()
	if _, err := client.Register(ctx); err != nil {
		log.Fatal(err)
	}
	client.SetAsk(&masterv1.Ask{Id: "hello", Count: 3, Resources: &corev1.Resources{CpuMillis: 100, MemoryBytes: 32 << 20}})
	for ended := 0; ended < 3; {
		switch event := (<-client.Events()).(type) {
		case appmaster.Allocated:
			spec := &corev1.ContainerSpec{Runtime: corev1.ContainerSpec_PROCESS, Command: []string{"/bin/echo", "hello"}}
			if _, err := client.Start(ctx, event.Allocation, spec); err != nil {
				client.Release(event.Allocation.GetLease().GetContainerId(), "it did not start")
			}
		case appmaster.Completed:
			ended++
		case appmaster.Superseded, nil:
			return
		}
	}
	if err := client.Finish(ctx, "said hello three times"); err != nil {
		log.Fatal(err)
	}
	// Output: not started by a ResourceManager
}
