package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// containerCommands list containers.
type containerCommands struct{ client }

func (c *containerCommands) containerCommand() *cobra.Command {
	return group("container", "See containers", c.containerListCommand())
}

func (c *containerCommands) containerListCommand() *cobra.Command {
	request, watch := &apiv1.ListContainersRequest{}, &watching{}
	cmd := &cobra.Command{Use: "ls", Short: "List the containers that are held", Args: noArgs}
	state := newStateFlag(cmd, corev1.ContainerStatus_State(0).Descriptor())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		number, err := state.number()
		if err != nil {
			return err
		}
		request.State = corev1.ContainerStatus_State(number)
		if watch.watch {
			if err := watch.without(cmd, "state"); err != nil {
				return err
			}
			asked := &apiv1.WatchRequest{
				Kinds: []apiv1.WatchRequest_Kind{apiv1.WatchRequest_CONTAINER}, App: request.GetApp(), Node: request.GetNode(), Queue: request.GetQueue(),
			}
			return c.with(cmd.Context(), func(z *zone) error {
				return (&changes{printer: c.printer, request: asked, table: func(w io.Writer, begun []*apiv1.WatchResponse_Change) error {
					return containersTable(w, collectObjects(begun, (*apiv1.WatchResponse_Change).GetContainer))
				}}).follow(cmd.Context(), z)
			})
		}
		return c.with(cmd.Context(), func(z *zone) error {
			answer, err := allContainers(cmd.Context(), z, request)
			if err != nil {
				return err
			}
			c.warnOfLosses(cmd, z)
			return c.print(answer, func(w io.Writer) error { return containersTable(w, answer.GetContainers()) })
		})
	}
	cmd.Flags().StringVar(&request.App, "app", "", "only those of this app")
	cmd.Flags().StringVar(&request.Node, "node", "", "only those on this node")
	cmd.Flags().StringVar(&request.Queue, "queue", "", "only those of apps in this queue")
	must(cmd.RegisterFlagCompletionFunc("app", c.completeApps))
	must(cmd.RegisterFlagCompletionFunc("node", c.completeNodes))
	must(cmd.RegisterFlagCompletionFunc("queue", c.completeQueues))
	watch.flag(cmd)
	return cmd
}

func containersTable(w io.Writer, containers []*apiv1.Container) error {
	t := newTable(w, "CONTAINER", "APP", "INSTANCE", "NODE", "QUEUE", "STATE", "CPU", "MEMORY", "DISK", "AGE")
	for _, container := range containers {
		instance := container.GetInstance()
		if container.GetMaster() {
			instance = "(master)"
		}
		r := container.GetResources()
		t.row(container.GetId(), container.GetApp(), instance, container.GetNode(), container.GetQueue(), containerState(container),
			cores(r.GetCpuMillis()), size(r.GetMemoryBytes()), size(r.GetDiskBytes()), ago(container.GetGrantedAt()))
	}
	return t.Flush()
}

// containerState is a container's state with its health, for a person.
func containerState(container *apiv1.Container) string {
	words := []string{word(container.GetState())}
	if container.GetHealth() == corev1.ContainerStatus_UNHEALTHY {
		words = append(words, "unhealthy")
	}
	if container.GetStopping() && container.GetState() != corev1.ContainerStatus_STOPPING && container.GetState() != corev1.ContainerStatus_DONE {
		words = append(words, "is to stop")
	}
	return strings.Join(words, ", ")
}

// collectObjects are the objects of changes.
func collectObjects[T any](changes []*apiv1.WatchResponse_Change, of func(*apiv1.WatchResponse_Change) T) []T {
	objects := make([]T, len(changes))
	for i, change := range changes {
		objects[i] = of(change)
	}
	return objects
}
