package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// nodeCommands show nodes, drain and remove them.
type nodeCommands struct{ client }

func (c *nodeCommands) nodeCommand() *cobra.Command {
	return group("node", "See, drain and remove nodes", c.nodeListCommand(), c.nodeShowCommand(), c.nodeDrainCommand(), c.nodeUndrainCommand(),
		c.nodeRemoveCommand())
}

func (c *nodeCommands) nodeListCommand() *cobra.Command {
	request, watch := &apiv1.ListNodesRequest{}, &watching{}
	cmd := &cobra.Command{Use: "ls", Short: "List nodes", Args: noArgs}
	state := newStateFlag(cmd, apiv1.NodeState(0).Descriptor())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		number, err := state.number()
		if err != nil {
			return err
		}
		request.State = apiv1.NodeState(number)
		if watch.watch {
			if err := watch.without(cmd, "state", "app"); err != nil {
				return err
			}
			asked := &apiv1.WatchRequest{Kinds: []apiv1.WatchRequest_Kind{apiv1.WatchRequest_NODE}, NamePrefix: request.GetNamePrefix()}
			return c.with(cmd.Context(), func(z *zone) error {
				return (&changes{printer: c.printer, request: asked, table: func(w io.Writer, begun []*apiv1.WatchResponse_Change) error {
					return nodeTable(w, collectObjects(begun, (*apiv1.WatchResponse_Change).GetNode))
				}}).follow(cmd.Context(), z)
			})
		}
		return c.with(cmd.Context(), func(z *zone) error {
			answer, err := allNodes(cmd.Context(), z, request)
			if err != nil {
				return err
			}
			c.warnOfLosses(cmd, z)
			return c.print(answer, func(w io.Writer) error { return nodeTable(w, answer.GetNodes()) })
		})
	}
	cmd.Flags().StringVar(&request.App, "app", "", "only those with a container of this app")
	cmd.Flags().StringVar(&request.NamePrefix, "prefix", "", "only those whose names begin with this")
	must(cmd.RegisterFlagCompletionFunc("app", c.completeApps))
	watch.flag(cmd)
	return cmd
}

func nodeTable(w io.Writer, nodes []*apiv1.Node) error {
	t := newTable(w, "NAME", "STATE", "ADDRESS", "CPU", "MEMORY", "DISK", "PORTS", "CONTAINERS", "REPORTED", "REASON")
	for _, node := range nodes {
		used, capacity := node.GetUsed(), node.GetCapacity()
		t.row(node.GetName(), word(node.GetState()), node.GetAddress(),
			ratio(used.GetCpuMillis(), capacity.GetCpuMillis(), cores),
			ratio(used.GetMemoryBytes(), capacity.GetMemoryBytes(), size),
			ratio(used.GetDiskBytes(), capacity.GetDiskBytes(), size),
			fmt.Sprintf("%d/%d", used.GetPorts(), capacity.GetPorts()),
			len(node.GetContainers()), ago(node.GetLastReportAt()), node.GetReason())
	}
	return t.Flush()
}

func (c *nodeCommands) nodeShowCommand() *cobra.Command {
	return c.oneNodeCommand("show NAME", "Show a node and what runs on it", func(ctx context.Context, z *zone, name string) (*apiv1.Node, error) {
		return z.nodes.GetNode(ctx, &apiv1.GetNodeRequest{Name: name})
	}, nodeText)
}

func (c *nodeCommands) nodeDrainCommand() *cobra.Command {
	var reason string
	wait := &waiting{}
	cmd := c.oneNodeCommand("drain NAME", "Place nothing new on a node and move its containers", func(ctx context.Context, z *zone, name string) (*apiv1.Node, error) {
		node, err := z.nodes.DrainNode(ctx, &apiv1.DrainNodeRequest{Name: name, Reason: reason})
		if err != nil || !wait.wait {
			return node, err
		}
		return c.awaitDrained(ctx, z, node, wait.timeout)
	}, func(w io.Writer, node *apiv1.Node) error {
		if node.GetState() == apiv1.NodeState_DRAINED {
			_, err := fmt.Fprintf(w, "%s: drained, nothing is left on it\n", node.GetName())
			return err
		}
		_, err := fmt.Fprintf(w, "%s: %s, %s to move\n", node.GetName(), word(node.GetState()), plural(len(node.GetContainers()), "container"))
		return err
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why, one sentence for those who wonder")
	wait.flags(cmd)
	return cmd
}

func (c *nodeCommands) nodeUndrainCommand() *cobra.Command {
	return c.oneNodeCommand("undrain NAME", "Use a drained node again", func(ctx context.Context, z *zone, name string) (*apiv1.Node, error) {
		return z.nodes.UndrainNode(ctx, &apiv1.GetNodeRequest{Name: name})
	}, func(w io.Writer, node *apiv1.Node) error {
		_, err := fmt.Fprintf(w, "%s: %s\n", node.GetName(), word(node.GetState()))
		return err
	})
}

func (c *nodeCommands) nodeRemoveCommand() *cobra.Command {
	cmd := c.oneNodeCommand("rm NAME", "Forget a node that is gone for good", func(ctx context.Context, z *zone, name string) (*apiv1.Node, error) {
		return z.nodes.RemoveNode(ctx, &apiv1.GetNodeRequest{Name: name})
	}, func(w io.Writer, node *apiv1.Node) error {
		_, err := fmt.Fprintln(w, removedText(node))
		return err
	})
	cmd.Long = "Forget a node that is gone for good, and what ran there: its containers count as gone, and what they held is free.\n" +
		"It is your word for it, so it is refused while the node answers: drain it, stop its NodeManager, and then remove it.\n" +
		"Should the node come back all the same, it ends what it still runs and is a new one."
	return cmd
}

// removedText says that a node is removed, and how many containers count as gone with it.
func removedText(node *apiv1.Node) string {
	text := node.GetName() + ": removed"
	if count := len(node.GetContainers()); count > 0 {
		text += fmt.Sprintf(", and %s with it", plural(count, "container"))
	}
	return text
}

func (c *nodeCommands) oneNodeCommand(use, short string, do func(context.Context, *zone, string) (*apiv1.Node, error), text func(io.Writer, *apiv1.Node) error) *cobra.Command {
	return &cobra.Command{
		Use:               use,
		Short:             short,
		Args:              names("the name of a node"),
		ValidArgsFunction: firstArgument(c.completeNodes),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				node, err := do(cmd.Context(), z, args[0])
				if err != nil {
					return err
				}
				return c.print(node, func(w io.Writer) error { return text(w, node) })
			})
		},
	}
}

func nodeText(w io.Writer, node *apiv1.Node) error {
	used, capacity := node.GetUsed(), node.GetCapacity()
	t := newTable(w)
	t.row("name", node.GetName())
	t.row("state", because(word(node.GetState()), node.GetReason()))
	for _, w := range node.GetWaiting() {
		t.row("waiting", waitingNote(w))
	}
	t.row("address", node.GetAddress())
	t.row("cpu", ratio(used.GetCpuMillis(), capacity.GetCpuMillis(), cores)+" cores")
	t.row("memory", ratio(used.GetMemoryBytes(), capacity.GetMemoryBytes(), size))
	t.row("disk", ratio(used.GetDiskBytes(), capacity.GetDiskBytes(), size))
	t.row("ports", fmt.Sprintf("%d/%d", used.GetPorts(), capacity.GetPorts()))
	for _, name := range slices.Sorted(maps.Keys(capacity.GetExtended())) {
		t.row(name, fmt.Sprintf("%d/%d", used.GetExtended()[name], capacity.GetExtended()[name]))
	}
	t.row("reported", ago(node.GetLastReportAt()))
	t.row("version", node.GetVersion())
	for _, name := range slices.Sorted(maps.Keys(node.GetAttributes())) {
		t.row("attribute", name+" = "+attribute(node.GetAttributes()[name]))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := containerTable(w, node.GetContainers()); err != nil || len(node.GetUnknown()) == 0 {
		return err
	}
	fmt.Fprintf(w, "\nwithout a record in the zone, and running on until `mammoth store accept`:\n")
	return containerTable(w, node.GetUnknown())
}

func containerTable(w io.Writer, containers []*apiv1.NodeContainer) error {
	if len(containers) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w, "CONTAINER", "APP", "INSTANCE", "STATE", "CPU", "MEMORY", "DISK")
	for _, container := range containers {
		r := container.GetResources()
		t.row(container.GetId(), container.GetApp(), container.GetInstance(), container.GetState(),
			cores(r.GetCpuMillis()), size(r.GetMemoryBytes()), size(r.GetDiskBytes()))
	}
	return t.Flush()
}

func attribute(value *corev1.Attribute) string {
	switch value := value.GetValue().(type) {
	case *corev1.Attribute_Number:
		return strconv.FormatFloat(value.Number, 'g', -1, 64)
	case *corev1.Attribute_Flag:
		return strconv.FormatBool(value.Flag)
	}
	return value.GetText()
}
